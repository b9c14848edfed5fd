//! Certificates and kubeconfigs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::layout::{API_SERVICE, CONTROL_PLANE, Cluster, Node};
use crate::process::Program;

/// Days that certificates are valid: longer than any test cluster lives.
const DAYS: &str = "365";

/// The folder of a cluster's certificates, with its authority in it.
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// That of a cluster, made where it is not there.
    pub fn of(cluster: Cluster<'_>) -> Result<Self> {
        let pki = Self { folder: cluster.pki() };
        if pki.folder.join("complete").exists() {
            return Ok(pki);
        }
        fs::create_dir_all(&pki.folder).with_context(|| format!("failed to make {}", pki.folder.display()))?;
        // Without a file of its own it would add what the system's says.
        fs::write(pki.path("openssl.cnf"), "[req]\ndistinguished_name = name\n[name]\n")?;
        pki.request("ca", "/CN=holdfast-test-cluster", &["basicConstraints=critical,CA:TRUE"], false)?;
        let names = format!(
            "IP:{CONTROL_PLANE},IP:{API_SERVICE},IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
             DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
        );
        pki.certificate("apiserver", "/CN=kube-apiserver", Some(&names))?;
        pki.certificate("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client", None)?;
        pki.certificate("front-proxy", "/CN=front-proxy-client", None)?;
        pki.certificate("controller-manager", "/CN=system:kube-controller-manager", None)?;
        pki.certificate("scheduler", "/CN=system:kube-scheduler", None)?;
        pki.certificate("proxy", "/CN=system:kube-proxy", None)?;
        pki.certificate("admin", "/O=system:masters/CN=admin", None)?;
        let (key, public) = (pki.path("service-accounts.key"), pki.path("service-accounts.pub"));
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key])?;
        openssl(&["pkey", "-in", &key, "-pubout", "-out", &public])?;
        for user in ["admin", "controller-manager", "scheduler", "proxy"] {
            pki.write_kubeconfig(user, &cluster.kubeconfig(user))?;
        }
        fs::write(pki.path("complete"), "")?;
        Ok(pki)
    }

    /// The path of a file in it.
    pub fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// A node's certificate, as a server and as a client, and its kubeconfigs, in a folder of the node.
    pub fn equip(&self, node: &Node<'_>, folder: &Path) -> Result<()> {
        let name = &node.machine.name;
        if !self.folder.join(format!("{name}.crt")).exists() {
            let names = format!("DNS:{name},IP:{}", node.address());
            self.certificate(name, &format!("/O=system:nodes/CN=system:node:{name}"), Some(&names))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        for (from, to) in
            [("ca.crt", "ca.crt"), (&format!("{name}.crt"), "node.crt"), (&format!("{name}.key"), "node.key")]
        {
            fs::copy(self.folder.join(from), folder.join(to)).with_context(|| format!("failed to copy {from}"))?;
        }
        self.write_kubeconfig(name, &folder.join("kubelet.kubeconfig"))?;
        self.write_kubeconfig("proxy", &folder.join("proxy.kubeconfig"))
    }

    /// The kubeconfig of a user of this name and these groups, with a certificate of its own. Written to `file`.
    pub fn user(&self, name: &str, groups: &[String], file: &Path) -> Result<()> {
        let id = format!("user-{name}");
        let groups: String = groups.iter().map(|group| format!("/O={group}")).collect();
        self.certificate(&id, &format!("{groups}/CN={name}"), None)?;
        self.write_kubeconfig(&id, file)
    }

    fn certificate(&self, id: &str, subject: &str, names: Option<&str>) -> Result<()> {
        let names = names.map(|names| format!("subjectAltName={names}"));
        let usage = "extendedKeyUsage=serverAuth,clientAuth";
        let extensions: Vec<&str> = names.as_deref().into_iter().chain([usage, "basicConstraints=CA:FALSE"]).collect();
        self.request(id, subject, &extensions, true)
    }

    fn request(&self, id: &str, subject: &str, extensions: &[&str], by_authority: bool) -> Result<()> {
        let (key, certificate) = (self.path(&format!("{id}.key")), self.path(&format!("{id}.crt")));
        let (config, ca, ca_key) = (self.path("openssl.cnf"), self.path("ca.crt"), self.path("ca.key"));
        let mut arguments = vec!["req", "-x509", "-new", "-nodes", "-config", &config, "-days", DAYS, "-subj", subject];
        arguments.extend([
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        if by_authority {
            arguments.extend(["-CA", &ca, "-CAkey", &ca_key]);
        }
        extensions.iter().for_each(|extension| arguments.extend(["-addext", extension]));
        openssl(&arguments).with_context(|| format!("failed to make certificate `{id}`"))
    }

    fn write_kubeconfig(&self, id: &str, file: &Path) -> Result<()> {
        let data = |name: &str| -> Result<String> {
            let path = self.path(name);
            Ok(STANDARD.encode(fs::read(&path).with_context(|| format!("failed to read {path}"))?))
        };
        let (key, certificate) = (data(&format!("{id}.key"))?, data(&format!("{id}.crt"))?);
        let config = kubeconfig(&data("ca.crt")?, &certificate, &key);
        fs::write(file, format!("{config:#}\n")).with_context(|| format!("failed to write {}", file.display()))?;
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("failed to protect {}", file.display()))
    }
}

/// A kubeconfig. JSON is YAML.
fn kubeconfig(ca: &str, certificate: &str, key: &str) -> Value {
    let server = format!("https://{CONTROL_PLANE}:6443");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": { "server": server, "certificate-authority-data": ca } }],
        "users": [{ "name": "me", "user": { "client-certificate-data": certificate, "client-key-data": key } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "me" } }],
        "current-context": "test",
    })
}

fn openssl(arguments: &[&str]) -> Result<()> {
    Program::new("openssl").args(arguments).output().map(drop)
}
