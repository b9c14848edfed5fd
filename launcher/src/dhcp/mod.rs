//! DHCPv4 for the VM's own NICs: one lease each, answered on packet sockets that the agent opened.
//!
//! [`mod@answer`] is the protocol, pure; [`frame`] wraps it in Ethernet, IP and UDP; [`Server`] is the loop around them.
//! Only the NIC's own MAC is answered, and only with the one address that is its own: a server that would confirm
//! whatever address was asked for would let a guest keep one that belongs to another network.

mod answer;
mod frame;
mod server;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use holdfast_api::kubevirt::DHCPOptions;
use holdfast_net::model::{DhcpV4, GuestNic, MacAddr};

pub use answer::answer;
pub use frame::reply;
pub use server::Server;

/// All that one guest NIC is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The only client.
    pub mac: MacAddr,
    /// Address, gateway, resolvers and the rest of the network's part.
    pub network: DhcpV4,
    /// Option 26, in bytes.
    pub mtu: u16,
    /// Option 67, from the VM's spec.
    pub boot_file: Option<String>,
    /// Option 66.
    pub tftp_server: Option<String>,
    /// Option 42.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Options 224 to 254, as the spec has them.
    pub private: Vec<(u8, String)>,
}

impl Lease {
    /// The lease of a NIC with the options of its interface in the spec; none where it has no lease from us.
    #[must_use]
    pub fn of(nic: &GuestNic, options: Option<&DHCPOptions>) -> Option<Self> {
        let network = nic.dhcp_v4.clone()?;
        let options = options.cloned().unwrap_or_default();
        let private = options.private_options.into_iter().filter_map(|option| {
            let code = u8::try_from(option.option).ok().filter(|code| (224..=254).contains(code))?;
            Some((code, option.value))
        });
        Some(Self {
            mac: nic.mac,
            network,
            mtu: u16::try_from(nic.mtu).unwrap_or(u16::MAX),
            boot_file: options.boot_file_name,
            tftp_server: options.tftp_server_name,
            ntp_servers: options.ntp_servers.iter().filter_map(|server| server.parse().ok()).collect(),
            private: private.collect(),
        })
    }
}
