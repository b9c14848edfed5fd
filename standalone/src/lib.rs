//! holdfastd as a library: one host, no cluster. See ARCHITECTURE.md at the root of the repository.
//!
//! Reading order, along the way of one VM: [`manifests`] makes objects of a folder's documents in the [`store`],
//! [`controller`] makes a VMI of a VM, [`vm`] brings the VMI into a [`sandbox`] on its networks ([`cni`]) with its
//! disks ([`images`]), and [`api_server`] shows and commands all of it. [`daemon`] starts and ends them.

pub mod api_server;
pub mod checks;
pub mod cni;
pub mod controller;
pub mod daemon;
pub mod host;
pub mod images;
pub mod manifests;
pub mod options;
pub mod sandbox;
pub mod store;
pub mod vm;
