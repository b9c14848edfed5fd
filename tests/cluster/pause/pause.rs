//! The process of a pod's sandbox: it holds the pod's namespaces, and reaps orphans where they are shared.
//!
//! Built by `cargo xtask cluster` with rustc alone, as one static file.

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const WNOHANG: i32 = 1;

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn pause() -> i32;
    fn _exit(status: i32) -> !;
}

extern "C" fn end(_: i32) {
    // SAFETY: _exit is async-signal-safe.
    unsafe { _exit(0) }
}

extern "C" fn reap(_: i32) {
    // SAFETY: waitpid is async-signal-safe and takes a null status.
    while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
}

fn main() {
    // SAFETY: both handlers call async-signal-safe functions only.
    unsafe {
        signal(SIGINT, end);
        signal(SIGTERM, end);
        signal(SIGCHLD, reap);
    }
    loop {
        // SAFETY: it only waits for a signal.
        unsafe { pause() };
    }
}
