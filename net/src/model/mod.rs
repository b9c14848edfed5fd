//! The words of the wiring, as types: no effects, no I/O, serialisable.

mod attachment;
mod bandwidth;
mod guest;
mod ifname;
mod mac;
mod security;
mod vlan;

pub use attachment::{
    Attachment, AttachmentId, AttachmentIdError, Backend, Binding, BindingMethod, BridgeGateway, Delivery,
    ForwardedPort, MacvlanMode, PodInterface, Protocol,
};
pub use bandwidth::{Bandwidth, Rate, Shaper};
pub use guest::{DhcpV4, GuestNic, StaticRoute};
pub use ifname::{IfName, IfNameError};
pub use mac::{MacAddr, MacAddrError};
pub use security::PortSecurity;
pub use vlan::{PortVlans, TunnelProtocol, Vlan, VlanFlags};
