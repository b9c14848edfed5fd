//! What libvirt tells of the host, read from the XML that the probe has left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why the host is not known.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file cannot be read.
    #[error("failed to read `{path}`")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what libvirt writes.
    #[error("failed to decode `{path}`")]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: quick_xml::DeError,
    },
    /// There is no answer of the kind.
    #[error("there is no `{0}` in what the probe has left")]
    Missing(String),
}

/// The CPUs and machines that VMs can have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Machine types.
    pub machines: BTreeSet<String>,
    /// CPU models, and whether this host can run each.
    pub models: BTreeMap<String, bool>,
    /// Features of the host-model CPU, all of them.
    pub features: BTreeSet<String>,
    /// What a host-model CPU is called here.
    pub host_model: Option<String>,
    /// Features that the host-model CPU has beside that model.
    pub host_model_features: BTreeSet<String>,
    /// Hyper-V enlightenments.
    pub hyperv: BTreeSet<String>,
    /// The CPU's vendor.
    pub vendor: Option<String>,
    /// Frequency of the time stamp counter, and whether it can be scaled.
    pub tsc: Option<(u64, bool)>,
}

#[derive(Deserialize)]
struct Capabilities {
    host: HostPart,
    #[serde(rename = "guest", default)]
    guests: Vec<Guest>,
}

#[derive(Deserialize)]
struct HostPart {
    cpu: HostCpu,
}

#[derive(Deserialize)]
struct HostCpu {
    arch: String,
    vendor: Option<String>,
    #[serde(rename = "counter", default)]
    counters: Vec<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@frequency")]
    frequency: u64,
    #[serde(rename = "@scaling", default)]
    scaling: String,
}

#[derive(Deserialize)]
struct Guest {
    arch: Arch,
}

#[derive(Deserialize)]
struct Arch {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "machine", default)]
    machines: Vec<String>,
}

#[derive(Deserialize)]
struct DomainCapabilities {
    cpu: Modes,
    features: Option<Features>,
}

#[derive(Deserialize)]
struct Modes {
    #[serde(rename = "mode", default)]
    modes: Vec<Mode>,
}

#[derive(Deserialize)]
struct Mode {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@supported")]
    supported: String,
    #[serde(rename = "model", default)]
    models: Vec<Model>,
    #[serde(rename = "feature", default)]
    features: Vec<Feature>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "@usable", default)]
    usable: String,
    #[serde(rename = "$text", default)]
    name: String,
}

#[derive(Deserialize)]
struct Feature {
    #[serde(rename = "@policy")]
    policy: String,
    #[serde(rename = "@name")]
    name: String,
}

#[derive(Deserialize)]
struct Features {
    hyperv: Option<HyperV>,
}

#[derive(Deserialize)]
struct HyperV {
    #[serde(rename = "enum", default)]
    lists: Vec<List>,
}

#[derive(Deserialize)]
struct List {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "value", default)]
    values: Vec<String>,
}

/// The host-model CPU with each of its features.
#[derive(Deserialize)]
struct Cpu {
    #[serde(rename = "feature", default)]
    features: Vec<Feature>,
}

impl Host {
    /// Reads what the probe left in `folder` about guests on KVM, or emulated ones.
    ///
    /// # Errors
    /// [`HostError`] with the first file that is missing or unreadable.
    pub fn read(folder: &Path, kvm: bool) -> Result<Self, HostError> {
        let answers = folder.join(if kvm { "kvm" } else { "emulation" });
        // Only who can open the device is told the counter's frequency, whether guests can use KVM or not.
        let host = folder.join("kvm/capabilities.xml");
        let host = if host.exists() { host } else { answers.join("capabilities.xml") };
        let capabilities: Capabilities = decode(&host)?;
        let domain: DomainCapabilities = decode(&find(&answers, "domcapabilities-")?)?;
        let cpu: Option<Cpu> = match find(&answers, "host-model-") {
            Ok(path) => Some(decode(&path)?),
            // A host on which there is no such CPU.
            Err(HostError::Missing(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Self::of(capabilities, domain, cpu))
    }

    fn of(capabilities: Capabilities, domain: DomainCapabilities, cpu: Option<Cpu>) -> Self {
        let HostPart { cpu: HostCpu { arch, vendor, counters } } = capabilities.host;
        let guest = capabilities.guests.into_iter().find(|guest| guest.arch.name == arch);
        let mut modes = domain.cpu.modes;
        modes.retain(|mode| mode.supported == "yes");
        let mode = |name: &str| modes.iter().find(|mode| mode.name == name);
        let required = |features: &[Feature]| -> BTreeSet<String> {
            let required = features.iter().filter(|feature| feature.policy == "require");
            required.map(|feature| feature.name.clone()).collect()
        };
        let models = mode("custom").map(|mode| mode.models.iter()).into_iter().flatten();
        let hyperv = domain.features.and_then(|features| features.hyperv).map(|hyperv| hyperv.lists);
        let hyperv = hyperv.into_iter().flatten().filter(|list| list.name == "features");
        let tsc = counters.iter().find(|counter| counter.name == "tsc");
        Self {
            machines: guest.map(|guest| guest.arch.machines.into_iter().collect()).unwrap_or_default(),
            models: models.map(|model| (model.name.clone(), model.usable == "yes")).collect(),
            features: cpu.map(|cpu| required(&cpu.features)).unwrap_or_default(),
            host_model: mode("host-model").and_then(|mode| Some(mode.models.first()?.name.clone())),
            host_model_features: mode("host-model").map(|mode| required(&mode.features)).unwrap_or_default(),
            hyperv: hyperv.flat_map(|list| list.values).filter_map(|name| hyperv_label(&name)).collect(),
            vendor,
            tsc: tsc.map(|tsc| (tsc.frequency, tsc.scaling == "yes")),
        }
    }
}

/// A Hyper-V feature under the name that its label has; none for those that have no label.
fn hyperv_label(libvirt: &str) -> Option<String> {
    let label = match libvirt {
        "stimer" => "synictimer",
        "frequencies" | "ipi" | "reenlightenment" | "reset" | "runtime" | "synic" | "tlbflush" | "vpindex" => libvirt,
        _ => return None,
    };
    Some(label.to_owned())
}

fn find(folder: &Path, prefix: &str) -> Result<PathBuf, HostError> {
    let failed = |source| HostError::File { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    Err(HostError::Missing(prefix.to_owned()))
}

fn decode<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, HostError> {
    let text = fs::read_to_string(path).map_err(|source| HostError::File { path: path.to_owned(), source })?;
    quick_xml::de::from_str(&text).map_err(|source| HostError::Decode { path: path.to_owned(), source })
}
