//! What the `virt` crate does not wrap: libvirt's callbacks, as plain messages, and one call.
//!
//! One thread runs libvirt's own event loop for the life of the process. A subscription lives as long as its
//! connection: libvirt frees the closure with it.

use std::ffi::{CString, c_char, c_int, c_void};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

/// Something happened; what it was is to be read from libvirt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The domain may be in another state, or have other devices.
    Lifecycle,
    /// The guest rebooted.
    Rebooted,
    /// The guest agent opened (true) or closed its channel.
    Agent(bool),
    /// The connection to libvirtd is gone.
    Disconnected,
}

type Closure = Box<dyn Fn(Change) + Send + Sync>;

/// Starts the thread that runs libvirt's event loop. To be called once, before the first connection.
///
/// # Errors
/// When the loop or its thread cannot be made.
pub fn run_event_loop() -> std::io::Result<()> {
    virt::error::clear_error_callback();
    // SAFETY: takes no arguments; called before any connection exists, as libvirt demands.
    if unsafe { sys::virEventRegisterDefaultImpl() } < 0 {
        return Err(std::io::Error::other(Error::last_error()));
    }
    std::thread::Builder::new().name("libvirt-events".to_owned()).spawn(|| {
        loop {
            // SAFETY: the default implementation is registered, and this is the only thread that runs it.
            if unsafe { sys::virEventRunDefaultImpl() } < 0 {
                tracing::error!(error = %Error::last_error(), "libvirt's event loop failed");
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    })?;
    Ok(())
}

/// Sends every change on `connect` to `changes`, on the event loop's thread: it must not block.
pub(super) fn subscribe(connect: &Connect, changes: impl Fn(Change) + Send + Sync + 'static) -> Result<(), Error> {
    let changes: std::sync::Arc<Closure> = std::sync::Arc::new(Box::new(changes));
    let opaque = || Box::into_raw(Box::new(std::sync::Arc::clone(&changes))).cast::<c_void>();
    // SAFETY: libvirt calls a close callback with this very signature. `opaque` is a fresh box that only libvirt
    // knows from here on; it frees it by `free` exactly once, when the connection goes.
    let done = unsafe { sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(closed), opaque(), Some(free)) };
    if done < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: the generic callback type stands for the one that belongs to each event ID (libvirt's own convention,
    // VIR_DOMAIN_EVENT_CALLBACK); each function below has the signature that libvirt documents for its ID.
    let callbacks = unsafe {
        [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, generic(lifecycle as *const c_void)),
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, generic(rebooted as *const c_void)),
            (sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, generic(agent as *const c_void)),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, generic(device as *const c_void)),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, generic(device as *const c_void)),
        ]
    };
    for (event, callback) in callbacks {
        let domain = std::ptr::null_mut();
        // SAFETY: as above; no domain means all domains of the connection.
        let id = unsafe {
            let event = event as c_int;
            sys::virConnectDomainEventRegisterAny(connect.as_ptr(), domain, event, callback, opaque(), Some(free))
        };
        if id < 0 {
            return Err(Error::last_error());
        }
    }
    Ok(())
}

/// # Safety
/// `function` is a function whose signature libvirt knows from the event ID that it is registered for.
unsafe fn generic(function: *const c_void) -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: function pointers are of one size here, and it is not null; the signature is the caller's promise.
    unsafe { std::mem::transmute::<*const c_void, sys::virConnectDomainEventGenericCallback>(function) }
}

/// # Safety
/// `opaque` came from [`subscribe`] and is not freed yet.
unsafe fn send(opaque: *mut c_void, change: Change) {
    // SAFETY: the caller's promise.
    let changes = unsafe { &*opaque.cast::<std::sync::Arc<Closure>>() };
    // A panic must not unwind into libvirt.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| changes(change)));
}

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    _: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt hands back what was registered, until it is freed.
    unsafe { send(opaque, Change::Lifecycle) };
    0
}

unsafe extern "C" fn rebooted(_: sys::virConnectPtr, _: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as in `lifecycle`.
    unsafe { send(opaque, Change::Rebooted) };
}

unsafe extern "C" fn agent(
    _: sys::virConnectPtr,
    _: sys::virDomainPtr,
    state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) {
    let connected = state == sys::VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED as c_int;
    // SAFETY: as in `lifecycle`.
    unsafe { send(opaque, Change::Agent(connected)) };
}

unsafe extern "C" fn device(_: sys::virConnectPtr, _: sys::virDomainPtr, _alias: *const c_char, opaque: *mut c_void) {
    // SAFETY: as in `lifecycle`.
    unsafe { send(opaque, Change::Lifecycle) };
}

unsafe extern "C" fn closed(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: as in `lifecycle`.
    unsafe { send(opaque, Change::Disconnected) };
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: libvirt frees each registration once, and does not call back after that.
    drop(unsafe { Box::from_raw(opaque.cast::<std::sync::Arc<Closure>>()) });
}

/// Asks the guest to let the device with this alias go, and does not wait for it.
pub(super) fn detach_alias(domain: &Domain, alias: &str) -> Result<(), Error> {
    let alias = CString::new(alias).unwrap_or_default();
    // SAFETY: both pointers are valid for the call, which keeps neither.
    let done = unsafe { sys::virDomainDetachDeviceAlias(domain.as_ptr(), alias.as_ptr(), sys::VIR_DOMAIN_AFFECT_LIVE) };
    if done < 0 { Err(Error::last_error()) } else { Ok(()) }
}
