#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const PRIMARY: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]}"#;

struct Folders(tempfile::TempDir);

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "conf"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("plugin"), "program").unwrap();
        fs::write(folder.path().join("conf/10-pods.conflist"), PRIMARY).unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn install(&self) -> Result<(), InstallError> {
        install(&self.places())
    }

    fn places(&self) -> Places {
        Places { program: self.at("plugin"), bin: self.at("bin"), conf: self.at("conf"), socket: self.at("cni.sock") }
    }

    fn chain(&self) -> String {
        fs::read_to_string(self.at("conf").join(FILE)).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn installs_follows_and_leaves_nothing() {
    let folders = Folders::new();
    folders.install().unwrap();
    let program = folders.at("bin/holdfast");
    assert_eq!(fs::read(&program).unwrap(), b"program");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&program).unwrap().permissions()) & 0o777, 0o755);
    assert!(folders.chain().contains("\"holdfast\"") && folders.chain().contains("\"pods\""));
    // The same again writes nothing.
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = (inode(&program), inode(&folders.at("conf").join(FILE)));
    folders.install().unwrap();
    assert_eq!((inode(&program), inode(&folders.at("conf").join(FILE))), before);
    // The cluster's network and our program change.
    fs::write(folders.at("conf/10-pods.conflist"), PRIMARY.replace("ptp", "bridge")).unwrap();
    fs::write(folders.at("plugin"), "newer").unwrap();
    folders.install().unwrap();
    assert!(folders.chain().contains("\"bridge\"") && !folders.chain().contains("\"ptp\""));
    assert_eq!(fs::read(&program).unwrap(), b"newer");
    uninstall(&folders.places()).unwrap();
    assert_eq!(folders.names("conf"), ["10-pods.conflist"]);
    assert!(folders.names("bin").is_empty());
    uninstall(&folders.places()).unwrap();
}

#[test]
fn goes_with_the_network_that_it_stood_behind() {
    let folders = Folders::new();
    folders.install().unwrap();
    fs::remove_file(folders.at("conf/10-pods.conflist")).unwrap();
    assert!(matches!(folders.install(), Err(InstallError::Chain(_))));
    assert!(folders.names("conf").is_empty());
    // The program stays, for networks that name it themselves.
    assert_eq!(folders.names("bin"), ["holdfast"]);
}
