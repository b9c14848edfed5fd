//! What a host must have, looked at before anything is done, each with the next step to take.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::unistd::Uid;

/// Programs that are executed on the host or in sandboxes, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 5] = [
    ("nft", "nftables"),
    ("libvirtd", "libvirt-daemon"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("genisoimage", "genisoimage"),
];
/// Where programs are looked for.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Room for a socket's path (107 bytes) less what follows the state folder in that of a launcher:
/// `/vms/UID/share/sockets/launcher.sock`.
const LONGEST_STATE: usize = 107 - (5 + 36 + 29);

/// Looks at the host. Returns every reason not to start.
pub fn problems(state: &Path, launcher: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if !Uid::effective().is_root() {
        found.push("holdfastd makes namespaces, links and mounts: run it as root".to_owned());
    }
    if state.as_os_str().len() > LONGEST_STATE {
        found.push(format!(
            "the state folder `{}` has {} bytes in its path: sockets are made below it, and at most {LONGEST_STATE} fit; \
             choose a shorter one by --state",
            state.display(),
            state.as_os_str().len()
        ));
    }
    if !launcher.is_file() {
        found.push(format!(
            "there is no launcher `{}`: install virt-launcher, or name it by --launcher",
            launcher.display()
        ));
    }
    for (program, package) in PROGRAMS {
        if !FOLDERS.iter().any(|folder| Path::new(folder).join(program).is_file()) {
            found.push(format!("`{program}` is not installed: on Debian, apt-get install {package}"));
        }
    }
    if !fs::metadata("/dev/net/tun").is_ok_and(|meta| meta.file_type().is_char_device()) {
        found.push("there is no /dev/net/tun: the kernel needs TUN/TAP (CONFIG_TUN; modprobe tun)".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_says_what_to_do() {
        let long = format!("/{}", "s".repeat(LONGEST_STATE));
        let found = problems(Path::new(&long), Path::new("/nowhere/virt-launcher"));
        assert!(found.iter().any(|text| text.contains("--state")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("--launcher")), "{found:?}");
        let short = problems(Path::new("/s"), Path::new("/proc/self/exe"));
        assert!(!short.iter().any(|text| text.contains("--")), "{short:?}");
    }
}
