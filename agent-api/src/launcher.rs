//! The agent's side of a launcher: requests to it, its answers, and the events that it streams.
//!
//! The launcher listens on its socket; the agent connects as often as it likes. A connection carries either
//! calls (a request, then its answer, any number of times) or, after [`Request::Watch`], events until either
//! side closes. The launcher keeps no state of the agent's: a new connection starts from nothing.

use holdfast_net::model::GuestNic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request with the version that its sender speaks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// [`crate::PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// What is asked for.
    pub request: Request,
}

/// What the agent can ask of a launcher.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Who are you? Answered by [`Response::Hello`].
    Hello,
    /// Make the domain what is described: define and start it if it is not there; of one that runs, plug and unplug its
    /// NICs and switch their links, and change nothing else. An unplugged NIC is there until the guest lets it go.
    /// Carries one DHCP packet socket for each NIC with `dhcp_v4`, in their order; those of an earlier
    /// Sync are closed. Behind them, where there is no domain yet, the opened tap of each NIC with `macvtap`. Answered by [`Response::Domain`] once the domain runs.
    Sync(Box<Sync>),
    /// Pause the vCPUs.
    Pause,
    /// Let them go on.
    Unpause,
    /// Press the reset button.
    Reset,
    /// Ask the guest to reboot: by its agent, else by ACPI.
    SoftReboot,
    /// Ask the guest to power off; after `grace_seconds` it is destroyed. Answered at once; the end is an event.
    Shutdown {
        /// Seconds from now; 0 destroys at once.
        grace_seconds: u64,
    },
    /// The domain as it is. Answered by [`Response::Domain`].
    Domain,
    /// What the guest agent tells. Answered by [`Response::Guest`].
    Guest,
    /// Turn this connection into a stream of [`Event`]; the present state comes first.
    Watch,
}

/// Everything a launcher needs to run its VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sync {
    /// The VirtualMachineInstance as JSON, defaulted.
    pub vmi: Value,
    /// Its NICs in the order of the spec, wired.
    pub nics: Vec<GuestNic>,
    /// Emulate the CPU: because it was asked for, or because KVM cannot run a guest here.
    pub emulation: bool,
    /// What libvirt found out about this node's QEMU before, so that it need not ask again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<CacheFile>,
}

/// A file of libvirt's cache of QEMU's capabilities. One that does not fit (another QEMU, another kernel) is ignored by
/// libvirt.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheFile {
    /// Its name, without a folder.
    pub name: String,
    /// Its text.
    pub contents: String,
}

impl std::fmt::Debug for CacheFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CacheFile({}, {} bytes)", self.name, self.contents.len())
    }
}

/// The launcher's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// The launcher's own [`crate::PROTOCOL_VERSION`].
        version: u32,
        /// UID of the VMI that it runs.
        vmi_uid: String,
    },
    /// The state of the domain.
    Domain(Box<DomainStatus>),
    /// What the guest agent tells.
    Guest(Box<GuestInfo>),
    /// Done; nothing to tell.
    Done,
    /// Not done.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What decides on what to do about it.
    pub class: FailureClass,
    /// CamelCase word for a condition and an event.
    pub reason: String,
    /// The whole chain of causes, in a line.
    pub message: String,
}

/// What a failure means for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// May pass by itself: try again later.
    Retry,
    /// The spec cannot be carried out as it is: wait for a change.
    Invalid,
    /// The request does not fit the state of the domain.
    Conflict,
    /// A defect of ours.
    Bug,
}

/// The life of a domain as libvirt tells it, in the field's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainStatus {
    /// Where the domain is in its life.
    pub state: DomainState,
    /// libvirt's machine type, expanded (`pc-q35-7.2`); empty before the start.
    #[serde(default)]
    pub machine: String,
    /// Whether the guest agent is connected.
    #[serde(default)]
    pub agent_connected: bool,
    /// volume name -> target (`vda`), in the order of the spec.
    #[serde(default)]
    pub volume_targets: Vec<(String, String)>,
    /// Whether the CPU is emulated.
    #[serde(default)]
    pub emulation: bool,
    /// The names of the spec's interfaces that are devices of the running domain; none from a launcher that does not
    /// plug NICs.
    #[serde(default)]
    pub nics: Option<Vec<String>>,
}

/// Where a domain is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DomainState {
    /// No domain yet.
    None,
    /// Running.
    Running,
    /// vCPUs stopped.
    Paused {
        /// By whom or what.
        reason: PauseReason,
    },
    /// Asked to power off, not yet off.
    ShuttingDown,
    /// Gone for good.
    Final(FinalState),
}

/// Why a domain is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PauseReason {
    /// A user asked for it, or the VM was started paused.
    User,
    /// A disk cannot be written.
    IoError,
    /// A migration is under way.
    Migration,
    /// Another of libvirt's reasons.
    Other,
}

/// How a domain ended. The launcher also writes this to `final.json` before it exits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FinalState {
    /// Succeeded for a guest that powered off or was stopped, Failed for one that crashed or never started.
    pub succeeded: bool,
    /// CamelCase: Shutdown, Destroyed, Crashed, StartFailed...
    pub reason: String,
    /// For people.
    pub message: String,
}

/// An event of a launcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// The domain changed; the first event of a stream tells the present state.
    Domain(DomainStatus),
    /// The guest agent told something new.
    Guest(Box<GuestInfo>),
    /// The guest rebooted by itself.
    Rebooted,
}

/// What the guest agent tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestInfo {
    /// guest-get-host-name.
    pub hostname: String,
    /// guest-get-osinfo: id, name, pretty-name, version, version-id, kernel-release, kernel-version, machine.
    pub os: std::collections::BTreeMap<String, String>,
    /// guest-get-timezone: name and offset in seconds.
    pub timezone: String,
    /// The guest's interfaces, loopback left out.
    pub interfaces: Vec<GuestInterface>,
    /// Who is logged in, each once.
    pub users: Vec<GuestUser>,
    /// The mounted file systems that lie on disks.
    pub file_systems: Vec<GuestFileSystem>,
    /// `frozen` while the file systems are frozen, else empty.
    pub fs_freeze_status: String,
    /// Version of the guest agent.
    pub agent_version: String,
    /// The commands that it knows.
    pub supported_commands: Vec<GuestCommand>,
}

/// A user who is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestUser {
    /// The user's name.
    pub name: String,
    /// Windows domain; empty elsewhere.
    #[serde(default)]
    pub domain: String,
    /// Seconds since the epoch, with a fraction, of the first login that lasts.
    pub login_time: serde_json::Number,
}

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestFileSystem {
    /// The guest's name of the disk or partition (`vda1`).
    pub disk_name: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// `ext4`, `ntfs`...
    pub r#type: String,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
    /// The disks under it.
    pub disks: Vec<GuestDisk>,
}

/// A disk under a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestDisk {
    /// Its serial number; empty where it has none.
    pub serial: String,
    /// `virtio`, `scsi`...
    pub bus_type: String,
}

/// A command of the guest agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestCommand {
    /// Its name.
    pub name: String,
    /// Whether it may be used.
    pub enabled: bool,
}

/// A NIC as the guest sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestInterface {
    /// The guest's name for it (`enp1s0`).
    pub name: String,
    /// Ethernet address in lower case; empty where the guest tells none.
    pub mac: String,
    /// Addresses without prefix, as the agent lists them.
    pub addresses: Vec<String>,
}
