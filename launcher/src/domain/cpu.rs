//! vCPUs: how many there are, how many can come, and what they look like.

use holdfast_api::kubevirt::DomainSpec;
use serde::Serialize;

/// Sockets (plugged and at most), cores and threads of the VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topology {
    sockets: u32,
    max_sockets: u32,
    cores: u32,
    threads: u32,
}

/// `<vcpu>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct VcpuCount {
    #[serde(rename = "@placement")]
    placement: &'static str,
    #[serde(rename = "@current", skip_serializing_if = "Option::is_none")]
    current: Option<u32>,
    #[serde(rename = "$text")]
    max: u32,
}

/// `<vcpus>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Vcpus {
    vcpu: Vec<Vcpu>,
}

#[derive(Clone, Debug, Serialize)]
struct Vcpu {
    #[serde(rename = "@id")]
    id: u32,
    #[serde(rename = "@enabled")]
    enabled: &'static str,
    #[serde(rename = "@hotpluggable")]
    hotpluggable: &'static str,
    #[serde(rename = "@order", skip_serializing_if = "Option::is_none")]
    order: Option<u32>,
}

/// `<cpu>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cpu {
    #[serde(rename = "@mode")]
    mode: &'static str,
    #[serde(rename = "@match", skip_serializing_if = "Option::is_none")]
    matching: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    topology: CpuTopology,
    #[serde(rename = "feature")]
    features: Vec<Feature>,
}

#[derive(Clone, Debug, Serialize)]
struct CpuTopology {
    #[serde(rename = "@sockets")]
    sockets: u32,
    #[serde(rename = "@cores")]
    cores: u32,
    #[serde(rename = "@threads")]
    threads: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Feature {
    #[serde(rename = "@policy")]
    policy: String,
    #[serde(rename = "@name")]
    name: String,
}

/// Reads the topology; what is not given is 1, and there are no free sockets unless `maxSockets` gives them.
pub(super) fn topology(spec: &DomainSpec) -> Topology {
    let cpu = spec.cpu.as_ref();
    let field = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0);
    let sockets = field(cpu.and_then(|cpu| cpu.sockets)).unwrap_or(1);
    let max = field(cpu.and_then(|cpu| cpu.max_sockets)).unwrap_or(sockets);
    Topology {
        sockets,
        max_sockets: if spec.devices.disable_hotplug == Some(true) { sockets } else { max.max(sockets) },
        cores: field(cpu.and_then(|cpu| cpu.cores)).unwrap_or(1),
        threads: field(cpu.and_then(|cpu| cpu.threads)).unwrap_or(1),
    }
}

impl Topology {
    /// vCPUs at the start.
    pub(super) fn current(&self) -> u32 {
        self.sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }

    fn max(&self) -> u32 {
        self.max_sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }

    pub(super) fn count(&self) -> VcpuCount {
        let current = (self.current() < self.max()).then(|| self.current());
        VcpuCount { placement: "static", current, max: self.max() }
    }

    /// The list of vCPUs where some can be plugged in later.
    pub(super) fn slots(&self) -> Option<Vcpus> {
        let yes_no = |yes| if yes { "yes" } else { "no" };
        let vcpu = |id| {
            let enabled = id < self.current();
            Vcpu { id, enabled: yes_no(enabled), hotpluggable: yes_no(!enabled), order: enabled.then_some(id + 1) }
        };
        (self.current() < self.max()).then(|| Vcpus { vcpu: (0..self.max()).map(vcpu).collect() })
    }
}

/// The host's model unless the spec names another; features as the spec lists them.
pub(super) fn build(spec: &DomainSpec, vcpus: &Topology) -> Cpu {
    let cpu = spec.cpu.as_ref();
    let (mode, matching, model) = match cpu.and_then(|cpu| cpu.model.as_deref()) {
        None | Some("" | "host-model") => ("host-model", None, None),
        Some("host-passthrough") => ("host-passthrough", None, None),
        Some(model) => ("custom", Some("exact"), Some(model.to_owned())),
    };
    let features = cpu.map(|cpu| cpu.features.as_slice()).unwrap_or_default();
    let feature = |feature: &holdfast_api::kubevirt::CPUFeature| Feature {
        policy: feature.policy.clone().filter(|policy| !policy.is_empty()).unwrap_or_else(|| "require".to_owned()),
        name: feature.name.clone(),
    };
    Cpu {
        mode,
        matching,
        model,
        topology: CpuTopology { sockets: vcpus.max_sockets, cores: vcpus.cores, threads: vcpus.threads },
        features: features.iter().map(feature).collect(),
    }
}
