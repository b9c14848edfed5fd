//! The serial console: the connection becomes a raw, 8-bit clean stream to the VM's serial socket.
//!
//! A VM's serial port has one reader: whoever connects last has it, and who had it before is disconnected, as with
//! KubeVirt.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use holdfast_api::error_status::ErrorStatus;
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::status::phase;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::answer::{Answer, internal, refused};
use crate::host::Host;

/// The protocol that a client upgrades to.
const PROTOCOL: &str = "plain.kubevirt.io";
/// The serial port's socket.
const SOCKET: &str = "virt-serial0";

/// Who has the console of which VMI: what is dropped here disconnects it.
#[derive(Clone, Default)]
pub struct Consoles(Arc<Mutex<BTreeMap<String, oneshot::Sender<()>>>>);

impl Consoles {
    fn take(&self, uid: &str) -> oneshot::Receiver<()> {
        let (hold, dropped) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), hold);
        dropped
    }
}

/// Opens a VMI's console.
pub async fn open(host: &Host, consoles: &Consoles, namespace: &str, name: &str, mut request: Request) -> Answer {
    let kind = "virtualmachineinstance";
    let vmi: Option<VirtualMachineInstance> = host.store.read(namespace, name);
    let vmi = vmi.ok_or_else(|| refused(&ErrorStatus::not_found(kind, name)))?;
    if vmi.spec.domain.devices.autoattach_serial_console == Some(false) {
        return Err(refused(&ErrorStatus::conflict(kind, name, "No serial consoles are present.")));
    }
    if phase(&vmi) != "Running" {
        return Err(refused(&ErrorStatus::conflict(kind, name, "VMI is not running")));
    }
    let wants = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if wants != Some(PROTOCOL) {
        let message = format!("the console needs an upgrade of the connection to {PROTOCOL}");
        return Err(refused(&ErrorStatus::bad_request(&message)));
    }
    let uid = vmi.metadata.uid.unwrap_or_default();
    let dropped = consoles.take(&uid);
    let folder = host.vm_folder(&uid).join("private").join(&uid);
    let connected = connect(&folder).await;
    let mut serial = connected.map_err(|error| match error.kind() {
        // The domain has just ended, or has not begun, and the status does not say so yet.
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            refused(&ErrorStatus::conflict(kind, name, "VMI is not running"))
        }
        _ => internal(&format!("failed to open the serial console: {error}")),
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut client = TokioIo::new(upgraded);
        tokio::select! {
            // However it ends, both sides are closed.
            _ = copy_bidirectional(&mut client, &mut serial) => {}
            _ = dropped => {}
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// Connects to the socket in a folder whose path may be longer than a socket's may: by the open folder.
async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let open = File::open(folder)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())).await
}
