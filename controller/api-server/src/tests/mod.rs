//! virt-api as a whole, between a front proxy, an API server and a virt-handler that are made for the test.

#![allow(clippy::unwrap_used)]

mod admission;
mod authentication;
mod streams;
mod subresources;
mod world;
