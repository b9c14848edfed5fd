//! holdfastd as a library: see ARCHITECTURE.md at the root of the repository.

pub mod cni;
pub mod images;
pub mod sandbox;
pub mod store;
