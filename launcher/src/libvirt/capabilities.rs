//! What libvirt knows about this node's QEMU and CPU, as XML.

use std::ffi::{CStr, CString};
use std::path::Path;

use serde::{Deserialize, Serialize};
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// A libvirt that could not tell.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb}: {message}")]
pub struct CapabilitiesError {
    verb: &'static str,
    message: String,
}

fn failed(verb: &'static str) -> impl Fn(Error) -> CapabilitiesError {
    move |error| CapabilitiesError { verb, message: error.message().to_owned() }
}

/// A connection to a libvirtd that has no domain.
#[derive(Debug)]
pub struct Host {
    connect: Connect,
    machine: &'static str,
    accelerator: &'static str,
}

/// The part of a domain's capabilities that says what a host-model CPU becomes.
#[derive(Deserialize)]
struct DomainCapabilities {
    cpu: Modes,
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
    /// `custom` has a list of all models here, of which only the first is read.
    #[serde(rename = "model", default)]
    models: Vec<String>,
    vendor: Option<String>,
    #[serde(rename = "feature", default)]
    features: Vec<Feature>,
}

#[derive(Serialize, Deserialize)]
struct Feature {
    #[serde(rename = "@policy")]
    policy: String,
    #[serde(rename = "@name")]
    name: String,
}

/// A CPU as libvirt's calls take it.
#[derive(Serialize)]
#[serde(rename = "cpu")]
struct Cpu {
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor: Option<String>,
    #[serde(rename = "feature")]
    features: Vec<Feature>,
}

impl Host {
    /// Connects; questions are about `machine` on `accelerator` (`kvm` or `qemu`).
    ///
    /// # Errors
    /// [`CapabilitiesError`], as for those below.
    pub fn open(socket: &Path, machine: &'static str, accelerator: &'static str) -> Result<Self, CapabilitiesError> {
        let uri = format!("qemu+unix:///session?socket={}&mode=legacy", socket.display());
        let connect = Connect::open(Some(&uri)).map_err(failed("connect"))?;
        Ok(Self { connect, machine, accelerator })
    }

    /// The host and all emulators.
    ///
    /// # Errors
    /// [`CapabilitiesError`].
    pub fn capabilities(&self) -> Result<String, CapabilitiesError> {
        self.connect.get_capabilities().map_err(failed("read the host's capabilities"))
    }

    /// What a domain can be.
    ///
    /// # Errors
    /// [`CapabilitiesError`].
    pub fn domain_capabilities(&self) -> Result<String, CapabilitiesError> {
        let answer = self.connect.get_domain_capabilities(None, None, Some(self.machine), Some(self.accelerator), 0);
        answer.map_err(failed("read the capabilities of domains"))
    }

    /// The CPU that a host-model CPU becomes, with each of its features. None where there is no such CPU.
    ///
    /// # Errors
    /// [`CapabilitiesError`].
    pub fn host_model(&self, domain_capabilities: &str) -> Result<Option<String>, CapabilitiesError> {
        let Some(cpu) = host_model(domain_capabilities) else { return Ok(None) };
        let verb = "expand the host model";
        let text =
            |text: &str| CString::new(text).map_err(|error| CapabilitiesError { verb, message: error.to_string() });
        let (cpu, machine, accelerator) = (text(&cpu)?, text(self.machine)?, text(self.accelerator)?);
        let mut cpus = [cpu.as_ptr()];
        let any = std::ptr::null();
        // SAFETY: the connection is open, and all strings live until the call returns; null means libvirt's default.
        let answer = unsafe {
            sys::virConnectBaselineHypervisorCPU(
                self.connect.as_ptr(),
                any,
                any,
                machine.as_ptr(),
                accelerator.as_ptr(),
                cpus.as_mut_ptr(),
                1,
                sys::VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES,
            )
        };
        if answer.is_null() {
            return Err(failed(verb)(Error::last_error()));
        }
        // SAFETY: libvirt has returned a string of its own, which the caller has to free.
        let expanded = unsafe {
            let expanded = CStr::from_ptr(answer).to_string_lossy().into_owned();
            nix::libc::free(answer.cast());
            expanded
        };
        Ok(Some(expanded))
    }
}

/// The host-model CPU in a domain's capabilities.
fn host_model(domain_capabilities: &str) -> Option<String> {
    let found: DomainCapabilities = quick_xml::de::from_str(domain_capabilities).ok()?;
    let mode = found.cpu.modes.into_iter().find(|mode| mode.name == "host-model" && mode.supported == "yes")?;
    let model = mode.models.into_iter().next()?;
    quick_xml::se::to_string(&Cpu { model, vendor: mode.vendor, features: mode.features }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_host_model_out() {
        let capabilities = "<domainCapabilities><path>q</path><cpu>
            <mode name='host-passthrough' supported='yes'><enum name='x'><value>on</value></enum></mode>
            <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
              <feature policy='require' name='ss'/><feature policy='disable' name='vme'/></mode>
            <mode name='custom' supported='yes'><model usable='no' vendor='AMD'>phenom</model><model>486</model></mode>
            </cpu></domainCapabilities>";
        let expected = r#"<cpu><model>EPYC</model><vendor>AMD</vendor><feature policy="require" name="ss"/><feature policy="disable" name="vme"/></cpu>"#;
        assert_eq!(host_model(capabilities).as_deref(), Some(expected));
        assert_eq!(
            host_model(&capabilities.replace("host-model' supported='yes'", "host-model' supported='no'")),
            None
        );
    }
}
