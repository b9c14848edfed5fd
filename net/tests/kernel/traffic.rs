//! Real traffic between namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::world::Netns;

/// How long traffic may take to get through: neighbours and bridges have to learn first.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers each datagram with the address that it came from; ends with the returned guard.
pub fn echo_udp(netns: &Netns, port: u16) -> UdpEcho {
    let socket = netns.run(|| UdpSocket::bind(("::", port)).unwrap());
    let own = socket.try_clone().unwrap();
    let thread = netns.start(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = own.recv_from(&mut buffer) {
            let seen = from.ip().to_canonical();
            if seen.is_loopback() && buffer.starts_with(b"stop") {
                return;
            }
            own.send_to(seen.to_string().as_bytes(), from).ok();
        }
    });
    UdpEcho { stop: netns.run(|| UdpSocket::bind("127.0.0.1:0").unwrap()), port, thread: Some(thread) }
}

pub struct UdpEcho {
    stop: UdpSocket,
    port: u16,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.send_to(b"stop", ("127.0.0.1", self.port)).ok();
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// The source address under which `to` sees datagrams from inside this namespace; none if nothing gets through.
pub fn seen_as(netns: &Netns, to: SocketAddr, within: Duration) -> Option<IpAddr> {
    netns.run(|| {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let until = Instant::now() + within;
        let mut buffer = [0; 64];
        while Instant::now() < until {
            // No route or neighbour yet is like no answer.
            socket.send_to(b"who am I", to).ok();
            if let Ok((length, _)) = socket.recv_from(&mut buffer) {
                return std::str::from_utf8(&buffer[..length]).unwrap().parse().ok();
            }
        }
        None
    })
}

/// Asserts that datagrams get from one namespace to another and back; gives the address that is seen.
pub fn assert_reaches(from: &Netns, to: &Netns, address: &str) -> IpAddr {
    let _echo = echo_udp(to, 7);
    seen_as(from, SocketAddr::new(address.parse().unwrap(), 7), DEADLINE).expect("no answer")
}

/// Sends 256 KiB over TCP and back: what checksums that nobody completes would stop.
pub fn assert_streams(from: &Netns, to: &Netns, address: &str) {
    let listener = to.run(|| TcpListener::bind("[::]:8").unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut received = vec![0; 256 * 1024];
        stream.read_exact(&mut received).unwrap();
        stream.write_all(&received).unwrap();
    });
    let address = SocketAddr::new(address.parse().unwrap(), 8);
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE).expect("no connection");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let sent: Vec<u8> = (0..256 * 1024).map(|n| (n % 251) as u8).collect();
        stream.write_all(&sent).unwrap();
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).expect("the stream hangs");
        assert!(sent == received);
    });
    server.join().unwrap();
}
