//! virt-handler.
fn main() {}
