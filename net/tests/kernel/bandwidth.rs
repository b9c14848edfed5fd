//! How much a port carries: measured, each way, on both kinds of bridges.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_net::attachment::{desired, host_ifname};
use holdfast_net::model::{Attachment, Backend, Bandwidth, Rate, Vlan};

use crate::switch::Switch;
use crate::traffic::assert_reaches;
use crate::world::{Netns, World, ifname, settle};

const DEADLINE: Duration = Duration::from_secs(20);
/// Bits per second toward the pod, and from it.
const INGRESS: u64 = 10_000_000;
const EGRESS: u64 = 16_000_000;
/// What is sent before it is measured (the bucket is full at first), and then, in bytes.
const BEFORE: usize = 256 * 1024;
const MEASURED: usize = 2 * 1024 * 1024;
/// How often it is measured where something else takes the processor.
const ATTEMPTS: usize = 4;

/// Bits per second of a stream, without headers.
fn measure(from: &Netns, to: &Netns, address: &str) -> f64 {
    let listener = to.run(|| TcpListener::bind("0.0.0.0:9").unwrap());
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.read_exact(&mut vec![0; BEFORE]).unwrap();
        let begin = Instant::now();
        stream.read_exact(&mut vec![0; MEASURED]).unwrap();
        (MEASURED * 8) as f64 / begin.elapsed().as_secs_f64()
    });
    let address: SocketAddr = format!("{address}:9").parse().unwrap();
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE).expect("no connection");
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&vec![7; BEFORE + MEASURED]).unwrap();
    });
    receiver.join().unwrap()
}

/// Asserts that a stream has the rate within 15 %, headers left out: never more, and no less where the machine has time.
fn assert_rate(from: &Netns, to: &Netns, address: &str, rate: u64) {
    let measured: Vec<f64> = (0..ATTEMPTS)
        .scan(false, |done, _| {
            let part = (!*done).then(|| measure(from, to, address) / rate as f64)?;
            *done = part >= 0.85;
            Some(part)
        })
        .collect();
    println!("{rate} bit/s to {address}: parts that came through: {measured:.3?}");
    assert!(measured.iter().all(|part| *part <= 1.15), "more than {rate} bit/s to {address}: {measured:.3?}");
    assert!(measured.iter().any(|part| *part >= 0.85), "less than {rate} bit/s to {address}: {measured:.3?}");
}

fn limits_a_pod(world: &World, backend: &Backend, socket: Option<&Path>) {
    let (one, two) = (world.netns(), world.netns());
    let [first, second] = [world.attachment(&one, 11, backend.clone()), world.attachment(&two, 12, backend.clone())];
    let rate = |rate| Some(Rate { rate, burst: None });
    let limited = |ingress, egress| Attachment {
        bandwidth: Bandwidth { ingress: rate(ingress), egress: rate(egress) },
        ..first.clone()
    };
    let first = limited(INGRESS, EGRESS);
    world.wire(socket, async |wiring| {
        settle(&wiring, &desired(&second)).await;
        assert!(!wiring.make(&desired(&first)).await.unwrap().done.is_empty());
        assert!(wiring.plan(&desired(&first)).await.unwrap().is_empty());
    });
    assert_reaches(&two, &one, "10.7.0.11");
    assert_rate(&two, &one, "10.7.0.11", INGRESS);
    assert_rate(&one, &two, "10.7.0.12", EGRESS);

    // Both are changed, removed, and put in the place of something else.
    let host_end = host_ifname(&first.id);
    let changed = limited(INGRESS * 2, EGRESS * 2);
    let harms: [&(dyn Fn() + Sync); 4] = [
        &|| drop(world.host.command(&format!("tc qdisc delete dev {host_end} root"))),
        &|| drop(one.command("tc qdisc delete dev eth0 root")),
        &|| drop(one.command("tc qdisc replace dev eth0 root handle 7: tbf rate 1mbit burst 10kb latency 50ms")),
        &|| {
            let change = "root handle 4846: tbf rate 1mbit burst 10kb latency 50ms";
            world.host.command(&format!("tc qdisc change dev {host_end} {change}"));
        },
    ];
    world.wire(socket, async |wiring| {
        settle(&wiring, &desired(&changed)).await;
        for harm in harms {
            harm();
            assert_eq!(wiring.plan(&desired(&changed)).await.unwrap().ops.len(), 1);
            settle(&wiring, &desired(&changed)).await;
        }
    });
    assert_rate(&two, &one, "10.7.0.11", INGRESS * 2);
}

#[test]
fn on_a_linux_bridge() {
    let world = World::new();
    world.host.ip("link add br0 type bridge");
    world.host.ip("link set br0 up");
    limits_a_pod(&world, &Backend::LinuxBridge { bridge: ifname("br0"), vlan: Vlan::Untagged, gateway: None }, None);
}

#[test]
fn on_ovs() {
    let world = World::new();
    let switch = Switch::start(&world);
    let backend = Backend::Ovs { bridge: "br0".to_owned(), vlan: Vlan::Untagged };
    limits_a_pod(&world, &backend, Some(&switch.socket()));
}
