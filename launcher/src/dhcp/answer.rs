//! The protocol (RFC 2131), without I/O.

use std::net::{IpAddr, Ipv4Addr};

use dhcproto::Name;
use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode, UnknownOption};
use holdfast_net::model::StaticRoute;
use ipnet::Ipv4Net;
use ipnetwork::IpNetwork;

use super::Lease;

/// Most bytes that one option can carry.
const OPTION: usize = 255;

/// What to answer, if anything.
///
/// DISCOVER gets an offer of the one address; REQUEST of that address an ACK, of any other a NAK; INFORM the options
/// alone. RELEASE and DECLINE change nothing: the address belongs to the VM, not to the lease.
#[must_use]
pub fn answer(lease: &Lease, message: &Message) -> Option<Message> {
    let own = message.opcode() == Opcode::BootRequest
        && message.htype() == HType::Eth
        && message.hlen() == 6
        && message.chaddr() == lease.mac.octets();
    if !own {
        return None;
    }
    let address = lease.network.address.ip();
    let (kind, given) = match message.opts().msg_type()? {
        MessageType::Discover => (MessageType::Offer, address),
        MessageType::Request => match requested(lease, message)? {
            asked if asked == address => (MessageType::Ack, address),
            _ => (MessageType::Nak, Ipv4Addr::UNSPECIFIED),
        },
        MessageType::Inform => (MessageType::Ack, Ipv4Addr::UNSPECIFIED),
        _ => return None,
    };
    let ciaddr = if kind == MessageType::Ack { message.ciaddr() } else { Ipv4Addr::UNSPECIFIED };
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let mut reply = Message::new_with_id(message.xid(), ciaddr, given, unspecified, message.giaddr(), message.chaddr());
    reply.set_opcode(Opcode::BootReply).set_flags(message.flags());
    let options = reply.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(lease.network.server));
    if let Some(id) = message.opts().get(OptionCode::ClientIdentifier) {
        // RFC 6842: a client finds its own answer by it.
        options.insert(id.clone());
    }
    if kind == MessageType::Nak {
        options.insert(DhcpOption::Message(format!("this NIC has the address {address}")));
        return Some(reply);
    }
    if given == address {
        add_times(lease.network.lease_seconds, &mut reply);
    }
    add_network(lease, &mut reply);
    add_boot(lease, &mut reply);
    Some(reply)
}

/// The address that a REQUEST is for; none where it is another server's, or says nothing.
fn requested(lease: &Lease, message: &Message) -> Option<Ipv4Addr> {
    if let Some(DhcpOption::ServerIdentifier(server)) = message.opts().get(OptionCode::ServerIdentifier)
        && *server != lease.network.server
    {
        return None;
    }
    let option = match message.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => *address,
        _ => message.ciaddr(),
    };
    (!option.is_unspecified()).then_some(option)
}

fn add_times(seconds: u32, reply: &mut Message) {
    let options = reply.opts_mut();
    options.insert(DhcpOption::AddressLeaseTime(seconds));
    if seconds != u32::MAX {
        options.insert(DhcpOption::Renewal(seconds / 2));
        options.insert(DhcpOption::Rebinding(seconds - seconds / 8));
    }
}

fn add_network(lease: &Lease, reply: &mut Message) {
    let network = &lease.network;
    let options = reply.opts_mut();
    options.insert(DhcpOption::SubnetMask(network.address.mask()));
    options.insert(DhcpOption::InterfaceMtu(lease.mtu));
    if let Some(router) = network.router {
        options.insert(DhcpOption::Router(vec![router]));
    }
    if !network.dns.is_empty() {
        options.insert(DhcpOption::DomainNameServer(network.dns.clone()));
    }
    if let Some(domain) = network.search.first() {
        options.insert(DhcpOption::DomainName(domain.clone()));
    }
    let search: Vec<Name> = network.search.iter().filter_map(|name| Name::from_utf8(name).ok()).collect();
    if !search.is_empty() {
        options.insert(DhcpOption::DomainSearch(search));
    }
    if let Some(hostname) = &network.hostname {
        options.insert(DhcpOption::Hostname(hostname.clone()));
    }
    let routes = routes(&network.routes, network.router);
    if !routes.is_empty() {
        options.insert(DhcpOption::ClasslessStaticRoute(routes));
    }
}

/// Option 121. A client that reads it ignores option 3, so it carries the default route too (RFC 3442).
fn routes(routes: &[StaticRoute], router: Option<Ipv4Addr>) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let further = routes.iter().filter_map(|route| {
        let IpNetwork::V4(destination) = route.destination else { return None };
        let net = Ipv4Net::new(destination.network(), destination.prefix()).ok()?;
        match route.gateway {
            Some(IpAddr::V4(gateway)) => Some((net, gateway)),
            Some(IpAddr::V6(_)) => None,
            None => Some((net, Ipv4Addr::UNSPECIFIED)),
        }
    });
    let mut all: Vec<_> = further.collect();
    if !all.is_empty()
        && let Some(router) = router
        && !all.iter().any(|(net, _)| net.prefix_len() == 0)
    {
        all.push((Ipv4Net::default(), router));
    }
    all
}

fn add_boot(lease: &Lease, reply: &mut Message) {
    if let Some(Ok(next)) = lease.tftp_server.as_ref().map(|server| server.parse::<Ipv4Addr>()) {
        reply.set_siaddr(next);
    }
    let options = reply.opts_mut();
    let fits = |text: &&String| text.len() <= OPTION;
    if let Some(file) = lease.boot_file.as_ref().filter(fits) {
        options.insert(DhcpOption::BootfileName(file.clone().into_bytes()));
    }
    if let Some(server) = lease.tftp_server.as_ref().filter(fits) {
        options.insert(DhcpOption::TFTPServerName(server.clone().into_bytes()));
    }
    if !lease.ntp_servers.is_empty() {
        options.insert(DhcpOption::NtpServers(lease.ntp_servers.clone()));
    }
    for (code, value) in lease.private.iter().filter(|(_, value)| value.len() <= OPTION) {
        let option = UnknownOption::new(OptionCode::from(*code), value.clone().into_bytes());
        options.insert(DhcpOption::Unknown(option));
    }
}
