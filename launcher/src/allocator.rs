//! The C library's allocator, told that memory is dearer than time here: there is a launcher beside each VM.

/// One arena for all threads, and free memory given back early. To be called before the first thread is made.
pub fn be_sparing() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (nix::libc::M_ARENA_MAX, 1),
        (nix::libc::M_MMAP_THRESHOLD, 64 << 10),
        (nix::libc::M_TRIM_THRESHOLD, 64 << 10),
        (nix::libc::M_TOP_PAD, 16 << 10),
    ] {
        // SAFETY: takes two integers; there is one thread.
        unsafe { nix::libc::mallopt(parameter, value) };
    }
}

/// Gives back what a burst of work left free.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer; the allocator does its own locking.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
