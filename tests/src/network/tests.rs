//! The network itself, tried with sockets of its hosts.

use super::wires::Link;
use super::{Host, Network};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const PORT: u16 = 7_000;
const MS: Duration = Duration::from_millis(1);

fn socket(host: &Host) -> UdpSocket {
    let at = (host.address, PORT);
    let socket = host.within(move || UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(200 * MS)).unwrap();
    socket
}

/// Time from a datagram's start to its arrival; `None` where it does not come.
fn passes(from: &UdpSocket, to: &UdpSocket) -> Option<Duration> {
    let begun = Instant::now();
    from.send_to(b"here", to.local_addr().unwrap()).unwrap();
    to.recv(&mut [0; 16]).ok().map(|_| begun.elapsed())
}

#[test]
fn a_datagram_takes_the_delay_of_its_link_and_a_cut_link_carries_none() {
    let Some(network) = Network::of(3, 1) else {
        return;
    };
    let [one, two, three] = [0, 1, 2].map(|i| socket(network.host(i)));
    // The first one finds out where the others are.
    passes(&one, &two).expect("a link without any trouble");
    let slow = Link {
        delay: 30 * MS,
        ..Link::default()
    };
    network.set(1, slow);
    let took = passes(&one, &two).unwrap();
    assert!((30 * MS..80 * MS).contains(&took), "{took:?}");
    network.set(1, Link { up: false, ..slow });
    assert_eq!(passes(&one, &two), None);
    assert_eq!(passes(&two, &one), None);
    assert!(
        passes(&one, &three).is_some(),
        "the others reach each other"
    );
    network.set(1, Link::default());
    assert!(passes(&one, &two).is_some());
    assert!(network.traffic(1).lost >= 2, "{:?}", network.traffic(1));
}

#[test]
fn a_share_of_datagrams_is_lost() {
    let Some(network) = Network::of(2, 2) else {
        return;
    };
    let [one, two] = [0, 1].map(|i| socket(network.host(i)));
    passes(&one, &two).expect("a link without any trouble");
    let lossy = Link {
        loss: 0.2,
        ..Link::default()
    };
    network.set(1, lossy);
    let there = two.local_addr().unwrap();
    two.set_read_timeout(Some(20 * MS)).unwrap();
    let mut came = 0;
    for _ in 0..400 {
        one.send_to(b"here", there).unwrap();
        came += usize::from(two.recv(&mut [0; 16]).is_ok());
    }
    assert!((280..=360).contains(&came), "{came} of 400");
}

#[test]
fn a_stream_takes_what_its_link_carries() {
    const BYTES: usize = 2 << 20;
    let Some(network) = Network::of(2, 3) else {
        return;
    };
    let slow = Link {
        rate: Some(50_000_000),
        ..Link::default()
    };
    network.set(1, slow);
    let at = (network.host(1).address, PORT);
    let listener = network.host(1).within(move || TcpListener::bind(at));
    let listener = listener.unwrap();
    let mut sender = network
        .host(0)
        .within(move || TcpStream::connect(at))
        .unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let begun = Instant::now();
    let sending = std::thread::spawn(move || sender.write_all(&vec![7; BYTES]));
    let mut received = Vec::new();
    receiver.read_to_end(&mut received).unwrap();
    let rate = received.len() as f64 * 8.0 / begun.elapsed().as_secs_f64();
    sending.join().unwrap().unwrap();
    assert_eq!(received.len(), BYTES);
    assert!((20e6..51e6).contains(&rate), "{rate} bit/s");
}

#[test]
fn a_host_has_its_own_network_and_its_own_clock() {
    let Some(mut network) = Network::of(2, 4) else {
        return;
    };
    network.set_clock_ahead(1, 200 * MS);
    let shown = |index: usize, file: &str| {
        let output = network.host(index).command("cat").arg(file).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let clock = |index: usize| shown(index, "/proc/self/timens_offsets");
    let set: Vec<String> = clock(1).split_whitespace().map(str::to_owned).collect();
    assert_eq!(set[..3], ["monotonic", "0", "200000000"]);
    assert!(!clock(0).contains("200000000"));
    let interfaces = shown(0, "/proc/self/net/dev");
    let named = interfaces.lines().filter(|l| l.contains(':')).count();
    assert_eq!(named, 2, "{interfaces}");
}
