//! Where the kubelet keeps a launcher's volumes.

use std::path::{Path, PathBuf};

/// The folders of one launcher's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    volumes: PathBuf,
}

impl Place {
    /// Of the pod with this UID; `kubelet` is the kubelet's folder.
    pub fn of(kubelet: &Path, pod_uid: &str) -> Self {
        Self { volumes: kubelet.join("pods").join(pod_uid).join("volumes/kubernetes.io~empty-dir") }
    }

    /// Where the launcher listens.
    pub fn socket(&self) -> PathBuf {
        self.volumes.join("sockets/launcher.sock")
    }

    /// What the launcher sees as /var/run/kubevirt.
    pub fn share(&self) -> PathBuf {
        self.volumes.join("public")
    }

    /// What the launcher sees as /var/run/kubevirt-private.
    pub fn private(&self) -> PathBuf {
        self.volumes.join("private")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_kubelets() {
        let place = Place::of(Path::new("/var/lib/kubelet"), "u1");
        let folder = "/var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir";
        assert_eq!(place.socket(), Path::new(&format!("{folder}/sockets/launcher.sock")));
        assert_eq!(place.private(), Path::new(&format!("{folder}/private")));
    }
}
