//! TLS from mounted Secrets, read anew when they change.
