//! The wiring against the real kernel and the real switch. As root.
