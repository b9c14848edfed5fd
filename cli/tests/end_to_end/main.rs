//! virtctl as a user calls it, against a holdfastd that is played by [`server`]: with HTTP over a unix socket, and
//! with state, so that what a command does can be seen there.
#![allow(clippy::unwrap_used, reason = "a test that meets an error shall end")]

mod calls;
mod console;
mod objects;
mod replay;
mod server;
mod terminal;
mod virtctl;
