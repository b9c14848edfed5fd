//! The machine that a guest sees.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CPU, Clock, Devices, DiskIOThreads, Features, Firmware, Memory, ResourceRequirements};

/// The virtual machine's hardware.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainSpec {
    /// Disks, NICs and everything else that is plugged in.
    pub devices: Devices,
    /// Sockets, cores, threads and model of the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CPU>,
    /// Memory of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// What the pod asks the cluster for; taken for the guest's size where `cpu` or `memory` do not
    /// say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Chipset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// BIOS or UEFI, and what is booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Features of the hypervisor that the guest can see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
    /// The guest's clock and its timers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub clock: Option<Clock>,
    /// What SMBIOS says of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chassis: Option<Chassis>,
    /// Threads for disk I/O: `shared`, `auto` (as many as disks allow) or `supplementalPool`.
    /// QEMU's own thread where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_threads_policy: Option<String>,
    /// Number of threads for `supplementalPool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_threads: Option<DiskIOThreads>,
    /// Encryption of the guest's memory by the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_security: Option<LaunchSecurity>,
    /// What a reboot by the guest does: `Reboot` (the default) or `Terminate`, which ends the
    /// instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Reboot", "Terminate"]))]
    pub reboot_policy: Option<String>,
}

/// The chipset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// QEMU's machine type, such as `q35` or `pc-q35-rhel9.6.0`; the architecture's default where
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
}

/// What SMBIOS says of the case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chassis {
    /// Maker of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Version of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Serial number of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Asset tag of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<String>,
    /// Stock-keeping unit of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
}

/// Encryption of the guest's memory; one is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaunchSecurity {
    /// AMD SEV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sev: Option<SEV>,
    /// AMD SEV-SNP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<SEVSNP>,
    /// Intel TDX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tdx: Option<TDX>,
}

/// AMD SEV.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SEV {
    /// What the guest owner demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<SEVPolicy>,
    /// Session blob of the guest owner, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Diffie-Hellman certificate of the guest owner, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dh_cert: Option<String>,
    /// Measure the guest at launch and wait for the owner's approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<SEVAttestation>,
}

/// What the guest owner demands of SEV.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SEVPolicy {
    /// Whether register contents are encrypted too (SEV-ES).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_state: Option<bool>,
}

/// Attestation at launch. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SEVAttestation {}

/// AMD SEV-SNP. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SEVSNP {}

/// Intel TDX. Has no fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TDX {}
