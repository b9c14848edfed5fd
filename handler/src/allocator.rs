//! The C library's allocator, told to keep little: work comes in bursts, and between them there is next to none.

/// One arena for all threads: each of the many short-lived ones would else get its own, and never give it back. To be
/// called before the first thread is made.
pub fn be_sparing() {
    // SAFETY: takes two integers, and there is one thread.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}

/// Gives back what a burst of work left free in between what stays.
pub fn trim() {
    // SAFETY: takes an integer; the allocator does its own locking.
    unsafe { nix::libc::malloc_trim(0) };
}
