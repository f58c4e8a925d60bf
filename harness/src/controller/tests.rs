//! Agents and a controller over real connections of the loopback: what is refused by name, and what a link that breaks
//! again and again loses or brings twice, which is nothing.

use super::*;
use crate::agent::dial::{self, Heard, endpoint};
use crate::agent::log::Log;
use crate::controller::hall::tests::claim;
use crate::launch::Invitation;
use crate::protocol::codec::{MESSAGE_MAX, Packed};
use crate::protocol::link::{Down, LINK, Pass, Said};
use crate::shell::inbox;
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::site;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use hallmark_results::frame::What;
use http::uri::PathAndQuery;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use tonic::{Code, Request};

const SECOND: Duration = Duration::from_secs(1);

fn controller() -> (Controller, Receiver<Input>) {
    let text = "schema_version = 1\nname = \"S\"\ncountry = \"NO\"\nregion = \"r\"\nhall = \"A\"\nlauncher = \"ssh\"\n\
                [devices]\ncount = 1\n[[rack]]\nname = \"R\"\ncontract_power = \"1 kW\"\nnodes = [\"n[1-2]\"]\n";
    let site = site::parse(text, "site.toml").unwrap();
    let (inlet, inbox) = inbox::open();
    (
        Controller::start(&site, "r1", false, &inlet).unwrap(),
        inbox,
    )
}

fn invitation(controller: &Controller, node: usize) -> Invitation {
    let (credentials, token) = controller.invite(node).unwrap();
    Invitation {
        address: controller.address(),
        node: format!("n{}", node + 1),
        credentials,
        token,
        folder: std::path::PathBuf::new(),
        devices: Vec::new(),
        cores: Vec::new(),
    }
}

/// An agent's network side, without workers.
struct Peer {
    desk: Arc<dial::Desk>,
    ears: Receiver<Heard>,
    _folder: tempfile::TempDir,
}

fn dial(invitation: Invitation) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    /// Each agent begins a log of its own.
    static LOGS: AtomicU64 = AtomicU64::new(5);
    let log = Log::open(folder.path(), LOGS.fetch_add(1, Ordering::Relaxed)).unwrap();
    let mut claim = claim(&invitation.node, Pass::Token(invitation.token.clone()));
    claim.log = log.id();
    let desk = Arc::new(dial::Desk::new(log));
    let (heard, ears) = channel();
    let shared = Arc::clone(&desk);
    std::thread::spawn(move || dial::keep(&invitation, claim, &shared, &heard));
    Peer {
        desk,
        ears,
        _folder: folder,
    }
}

impl Peer {
    fn refused(&self) -> String {
        match self.ears.recv_timeout(30 * SECOND) {
            Ok(Heard::Refused(why)) => why,
            Ok(Heard::Lost(why)) => panic!("lost: {why}"),
            Ok(Heard::Task(task)) => panic!("{task:?}"),
            Err(error) => panic!("not refused: {error}"),
        }
    }

    fn joined(&self) {
        for _ in 0..1_500 {
            if dial::lock(&self.desk.session).is_some() {
                return;
            }
            clock::sleep(LOOK);
        }
        panic!("not joined");
    }
}

#[test]
fn a_used_token_a_second_agent_and_a_borrowed_certificate_are_refused_by_name() {
    let (controller, _inbox) = controller();
    let first = invitation(&controller, 0);
    let living = dial(first.clone());
    living.joined();
    let replayed = dial(first.clone()).refused();
    assert_eq!(
        replayed,
        "the join token of node `n1` was used already; a token is good for one agent"
    );
    let second = dial(invitation(&controller, 0)).refused();
    assert!(
        second.starts_with("node `n1` has joined already"),
        "{second}"
    );
    let posing = Invitation {
        node: "n2".to_owned(),
        ..first
    };
    assert_eq!(
        dial(posing).refused(),
        "the certificate is not for node `n2`: a node speaks for itself alone"
    );
    assert!(controller.claim(0).is_ok() && controller.claim(1).is_err());
}

#[test]
fn an_agent_that_is_started_once_more_is_told_which_devices_are_its_nodes() {
    let (mut controller, _inbox) = controller();
    controller.muster(vec![0..1, 1..2]);
    let of = |node| DeviceInfo {
        memory: Bytes::gibibytes(1),
        dtypes: vec![Dtype::F32],
        ..claim(node, Pass::Token(String::new())).devices.remove(0)
    };
    let loaded = hallmark_profiles::profile::load("smoke").unwrap();
    let settings = crate::plan::Settings::default();
    let plan = crate::plan::make(&loaded, &[of("n1"), of("n2")], &settings).unwrap();
    controller.handle().sense(&plan, 0);
    let places = controller.desk.places();
    let firsts = [0, 1].map(|node| match places[node].sense {
        Some(Task::Sense { first, .. }) => Some(first),
        _ => None,
    });
    assert_eq!(firsts, [Some(0), Some(1)]);
}

/// Agents of which the first has ended at once, and a launcher that says so.
struct Ended;

impl Launched for Ended {
    fn ended(&mut self) -> Vec<(usize, String)> {
        vec![(0, "its pod was removed".to_owned())]
    }

    fn told(&mut self) -> Vec<String> {
        vec!["pods wait".to_owned()]
    }

    fn again(&mut self, _node: usize, _credentials: Credentials, _token: String) -> bool {
        false
    }

    fn end(&mut self, _patience: Duration) -> bool {
        true
    }
}

#[test]
fn a_node_whose_agent_has_ended_before_the_load_has_not_joined_though_it_was_heard() {
    let (mut controller, _inbox) = controller();
    let peers = [
        dial(invitation(&controller, 0)),
        dial(invitation(&controller, 1)),
    ];
    peers.iter().for_each(Peer::joined);
    controller.attend(Box::new(Ended));
    let mut notes = Vec::new();
    let note = |told: &str| notes.push(told.to_owned());
    controller.gather(30_000_000_000, || false, note).unwrap();
    assert_eq!(notes.first().map(String::as_str), Some("pods wait"));
    assert_eq!(
        controller.claim(0).unwrap_err(),
        "node `n1` has not joined: its pod was removed"
    );
    assert!(controller.claim(1).is_ok());
}

#[test]
fn another_runs_certificate_opens_no_link() {
    let (controller, _inbox) = controller();
    let (other, _other_inbox) = super::tests::controller();
    let stranger = Invitation {
        address: controller.address(),
        ..invitation(&other, 0)
    };
    let stranger = dial(stranger);
    clock::sleep(2 * SECOND);
    assert!(controller.claim(0).is_err() && dial::lock(&stranger.desk.session).is_none());
    // The desk is there for those who belong to it.
    dial(invitation(&controller, 0)).joined();
}

#[test]
fn a_message_beyond_the_limit_ends_its_own_link_and_no_other() {
    let (controller, _inbox) = controller();
    let invitation = invitation(&controller, 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let status = runtime.block_on(async {
        let channel = endpoint(&invitation).unwrap().connect().await.unwrap();
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let huge = tokio_stream::iter([vec![0_u64; MESSAGE_MAX]]);
        let codec = Packed::<Vec<u64>, Down>::default();
        let path = PathAndQuery::from_static(LINK);
        grpc.streaming(Request::new(huge), path, codec).await.err()
    });
    let status = status.unwrap();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    dial(super::tests::invitation(&controller, 0)).joined();
}

/// A wire that can be cut: connections over it break, and new ones are dropped while it is.
struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

fn wire(to: SocketAddr) -> Wire {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let cut = Arc::new(AtomicBool::new(false));
    let is_cut = Arc::clone(&cut);
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            if is_cut.load(Ordering::Relaxed) {
                continue;
            }
            let far = TcpStream::connect(to).unwrap();
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let is_cut = Arc::clone(&is_cut);
                std::thread::spawn(move || carry(from, to, &is_cut));
            }
        }
    });
    Wire { address, cut }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    from.set_read_timeout(Some(LOOK)).unwrap();
    let mut bytes = [0; 4096];
    while !cut.load(Ordering::Relaxed) {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) if to.write_all(&bytes[..count]).is_err() => break,
            Err(e)
                if !matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                break;
            }
            _ => {}
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn no_report_overtakes_one_that_waits_for_room_where_the_link_breaks_meanwhile() {
    let reports = inbox::INPUTS_MAX as u64 + 500;
    let (controller, inbox) = controller();
    let wire = wire(controller.address);
    let peer = dial(Invitation {
        address: wire.address.to_string(),
        ..invitation(&controller, 0)
    });
    peer.joined();
    for number in 1..=reports {
        let what = What::Xid {
            code: number % 100,
            detail: String::new(),
        };
        let said = Said::Event { what, device: None };
        peer.desk.say(said).unwrap();
    }
    let until = |ready: &dyn Fn(u64, u64) -> bool| {
        let came = (0..1_500).any(|_| {
            clock::sleep(LOOK);
            let (link, taken) = controller.desk.hall().seen(0);
            ready(link, taken)
        });
        assert!(came, "{:?}", controller.desk.hall().seen(0));
    };
    // The inbox is full and one waits before it, over a link that is then gone.
    until(&|_, taken| taken > inbox::INPUTS_MAX as u64);
    for _ in 0..2 {
        let (before, _) = controller.desk.hall().seen(0);
        wire.cut.store(true, Ordering::Relaxed);
        // Longer than the wire takes to notice.
        clock::sleep(SECOND / 3);
        wire.cut.store(false, Ordering::Relaxed);
        until(&|link, _| link > before);
    }
    for number in 1..=reports {
        let input = inbox.recv_timeout(30 * SECOND).unwrap();
        assert!(matches!(input, Input::From(origin, _) if origin.number == number));
    }
}

#[test]
fn a_node_s_table_is_of_that_node_whatever_place_it_names() {
    let (controller, inbox) = controller();
    let peer = dial(invitation(&controller, 0));
    peer.joined();
    let mut meter = tables::clock(0, "R", 60_000_000_000);
    meter.id = 7;
    peer.desk.say(Said::Table(meter)).unwrap();
    match inbox.recv_timeout(30 * SECOND).unwrap() {
        Input::From(_, input) => match *input {
            Input::Table(table) => assert_eq!(table.place, "n1"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wire_that_breaks_again_and_again_loses_no_report_and_brings_none_twice() {
    const REPORTS: u64 = 400;
    const CODES: u64 = 200;
    let (mut controller, inbox) = controller();
    let wire = wire(controller.address);
    let peer = dial(Invitation {
        address: wire.address.to_string(),
        ..invitation(&controller, 0)
    });
    peer.joined();
    let cut = Arc::clone(&wire.cut);
    std::thread::spawn(move || {
        for _ in 0..4 {
            clock::sleep(Duration::from_millis(400));
            cut.store(true, Ordering::Relaxed);
            clock::sleep(Duration::from_millis(300));
            cut.store(false, Ordering::Relaxed);
        }
    });
    let desk = Arc::clone(&peer.desk);
    std::thread::spawn(move || {
        for number in 1..=REPORTS {
            let what = What::Xid {
                code: number % CODES,
                detail: String::new(),
            };
            desk.say(Said::Event { what, device: None }).unwrap();
            clock::sleep(Duration::from_millis(6));
        }
    });
    let mut numbers = Vec::new();
    while numbers.len() < REPORTS as usize {
        let input = inbox.recv_timeout(30 * SECOND).unwrap();
        let Input::From(origin, input) = input else {
            panic!("{input:?}");
        };
        assert!(
            matches!(*input, Input::Event(What::Xid { code, .. }, None) if code == origin.number % CODES)
        );
        numbers.push(origin.number);
        // Only every tenth is on disk soon: all others are sent again after each break.
        let handed = origin.number;
        let durable = handed / 10 * 10;
        controller.turn(&[origin], Progress { handed, durable }, 0);
    }
    assert_eq!(numbers, (1..=REPORTS).collect::<Vec<_>>());
    clock::sleep(SECOND);
    assert!(inbox.try_recv().is_err(), "and none comes a second time");
    assert_eq!(controller.desk.hall().kept(0), REPORTS);
}

#[test]
fn reports_that_the_network_holds_up_are_no_devices_silence_until_it_is_the_nodes() {
    let (mut controller, _inbox) = controller();
    controller.devices = vec![0..2, 2..2];
    let (_, token) = controller.invite(0).unwrap();
    let now_ns = clock::monotonic_ns();
    controller
        .desk
        .hall()
        .join(claim("n1", Pass::Token(token)), |_| true, "s", now_ns)
        .unwrap();
    let mut heard = |link_s: u64, beat_s: u64| {
        let now_ns = clock::monotonic_ns();
        controller.awake_ns = 0;
        controller.turned_ns = now_ns;
        for (line, ago_s) in [(Line::Link, link_s), (Line::Beat, beat_s)] {
            let at_ns = now_ns - ago_s * 1_000_000_000;
            controller.desk.hall().hear(0, line, at_ns);
        }
        let progress = Progress {
            handed: 0,
            durable: 0,
        };
        let inputs = controller.turn(&[], progress, 0).into_iter();
        let told = inputs.map(|input| match input {
            Input::Unreached(device) => (device, "unreached"),
            Input::Worker(device, FromWorker::Fault { .. }) => (device, "fault"),
            input => panic!("{input:?}"),
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(heard(1, 1), []);
    assert_eq!(heard(1, 5), [], "its reports come");
    assert_eq!(heard(5, 1), [(0, "unreached"), (1, "unreached")]);
    assert_eq!(heard(5, 5), [(0, "unreached"), (1, "unreached")]);
    assert_eq!(heard(9, 1), [], "they are as silent as they seem");
    assert_eq!(heard(9, 9), [(0, "fault"), (1, "fault")]);
}
