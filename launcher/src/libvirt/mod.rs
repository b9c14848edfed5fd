//! The only part that talks to libvirt.
//!
//! [`daemon`] keeps a libvirtd of the VM's own running, [`events`] turns its callbacks into [`Change`] messages, and
//! [`Guest`] is the one domain that this launcher has. Invariants: a state is always read back, never derived from
//! the event that announced a change; a libvirtd that hangs ends the connection by keep-alive, which bounds each
//! call; no call here runs on the thread that decides.

mod capabilities;
mod daemon;
mod events;
mod guest_agent;
mod state;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt::sys;

pub use capabilities::{CapabilitiesError, Host};
pub use daemon::{Daemon, DaemonError};
pub use events::{Change, run_event_loop};
pub use guest_agent::query as query_guest_agent;
pub use state::{Live, LiveNic, Observed, ShutOff};

/// Seconds between keep-alive messages, and how many may stay unanswered.
const KEEP_ALIVE: (i32, u32) = (5, 3);

/// A request to libvirt that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} domain `{domain}`: {message}")]
pub struct LibvirtError {
    verb: &'static str,
    domain: String,
    message: String,
    /// The request does not fit the domain's state.
    pub conflict: bool,
    /// The guest agent itself said no.
    refused_by_agent: bool,
}

/// The connection to libvirtd and the name of the one domain on it.
#[derive(Clone, Debug)]
pub struct Hypervisor {
    connect: Connect,
    name: String,
}

/// The domain, defined and perhaps running.
#[derive(Clone, Debug)]
pub struct Guest {
    domain: Domain,
    name: String,
}

fn failed(verb: &'static str, domain: &str) -> impl FnOnce(virt::error::Error) -> LibvirtError {
    move |error| LibvirtError {
        verb,
        domain: domain.to_owned(),
        message: error.message().to_owned(),
        conflict: error.code() == ErrorNumber::OperationInvalid,
        // libvirt tells an agent that says no (an internal error) from one that does not answer.
        refused_by_agent: error.code() == ErrorNumber::InternalError,
    }
}

impl Hypervisor {
    /// Connects and subscribes to the events of all domains, which go to `changes` from now on.
    ///
    /// # Errors
    /// [`LibvirtError`] when nobody answers on the socket.
    pub fn open(
        socket: &std::path::Path,
        name: &str,
        changes: impl Fn(Change) + Send + Sync + 'static,
    ) -> Result<Self, LibvirtError> {
        let uri = format!("qemu+unix:///session?socket={}&mode=legacy", socket.display());
        let connect = Connect::open(Some(&uri)).map_err(failed("connect for", name))?;
        events::subscribe(&connect, changes).map_err(failed("subscribe to events of", name))?;
        connect.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1).map_err(failed("keep alive the connection of", name))?;
        Ok(Self { connect, name: name.to_owned() })
    }

    /// The domain, if there is one.
    ///
    /// # Errors
    /// [`LibvirtError`] when that cannot be told.
    pub fn guest(&self) -> Result<Option<Guest>, LibvirtError> {
        match Domain::lookup_by_name(&self.connect, &self.name) {
            Ok(domain) => Ok(Some(Guest { domain, name: self.name.clone() })),
            Err(error) if error.code() == ErrorNumber::NoDomain => Ok(None),
            Err(error) => Err(failed("look up", &self.name)(error)),
        }
    }

    /// Defines the domain without starting it.
    ///
    /// # Errors
    /// [`LibvirtError`] with libvirt's own words when it does not accept the description.
    pub fn define(&self, xml: &str) -> Result<Guest, LibvirtError> {
        let domain = Domain::define_xml(&self.connect, xml).map_err(failed("define", &self.name))?;
        Ok(Guest { domain, name: self.name.clone() })
    }
}

impl Guest {
    fn call<T>(&self, verb: &'static str, result: Result<T, virt::error::Error>) -> Result<(), LibvirtError> {
        result.map(drop).map_err(failed(verb, &self.name))
    }

    /// Starts it, with its vCPUs stopped if `paused`.
    ///
    /// # Errors
    /// [`LibvirtError`] with the hypervisor's words, as for those below.
    pub fn start(&self, paused: bool) -> Result<(), LibvirtError> {
        let flags = if paused { sys::VIR_DOMAIN_START_PAUSED } else { sys::VIR_DOMAIN_NONE };
        self.call("start", self.domain.create_with_flags(flags))
    }

    /// Forgets it; it must not run.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn undefine(&self) -> Result<(), LibvirtError> {
        self.call("undefine", self.domain.undefine())
    }

    /// Stops its vCPUs.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn pause(&self) -> Result<(), LibvirtError> {
        self.call("pause", self.domain.suspend())
    }

    /// Lets its vCPUs go on.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn unpause(&self) -> Result<(), LibvirtError> {
        self.call("unpause", self.domain.resume())
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn reset(&self) -> Result<(), LibvirtError> {
        self.call("reset", self.domain.reset())
    }

    /// Asks the guest to reboot: by its agent if that is connected, else by ACPI.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn soft_reboot(&self, agent: bool) -> Result<(), LibvirtError> {
        let flags = if agent { sys::VIR_DOMAIN_REBOOT_GUEST_AGENT } else { sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN };
        self.call("reboot", self.domain.reboot(flags))
    }

    /// Asks the guest to power off: by its agent, or with the power button.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn shut_down(&self, agent: bool) -> Result<(), LibvirtError> {
        let flags = if agent { sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT } else { sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN };
        self.call("shut down", self.domain.shutdown_flags(flags))
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn destroy(&self) -> Result<(), LibvirtError> {
        self.call("destroy", self.domain.destroy())
    }

    /// Where it is in its life.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn state(&self) -> Result<Observed, LibvirtError> {
        let (state, reason) = self.domain.get_state().map_err(failed("read the state of", &self.name))?;
        Ok(state::observed(state, reason))
    }

    /// What libvirt made of its description, while it runs.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn description(&self) -> Result<Live, LibvirtError> {
        let xml = self.domain.get_xml_desc(0).map_err(failed("describe", &self.name))?;
        Ok(state::live(&xml))
    }

    /// Plugs a device into it while it runs.
    ///
    /// # Errors
    /// [`LibvirtError`], with the words of QEMU where it has no room for one.
    pub fn attach(&self, xml: &str) -> Result<(), LibvirtError> {
        self.call("plug a NIC into", self.domain.attach_device_flags(xml, sys::VIR_DOMAIN_AFFECT_LIVE))
    }

    /// Changes a device of it while it runs.
    ///
    /// # Errors
    /// [`LibvirtError`].
    pub fn update(&self, xml: &str) -> Result<(), LibvirtError> {
        self.call("switch the link of a NIC of", self.domain.update_device_flags(xml, sys::VIR_DOMAIN_AFFECT_LIVE))
    }

    /// Asks the guest to let a device go. That it is gone is an event.
    ///
    /// # Errors
    /// [`LibvirtError`], also where the guest has been asked and has not answered.
    pub fn detach(&self, alias: &str) -> Result<(), LibvirtError> {
        let result = events::detach_alias(&self.domain, alias);
        result.map_err(failed("unplug a NIC from", &self.name))
    }

    fn agent(&self, command: &str, seconds: i32) -> Result<String, LibvirtError> {
        self.domain.qemu_agent_command(command, seconds, 0).map_err(failed("ask the guest agent of", &self.name))
    }
}
