//! The desk at which agents join and report: the controller's side of the network.
//!
//! It checks who speaks, that a report is new and about the node's own devices, and hands it to the run's inbox; when
//! that is full the agent waits. It refuses what is too long, late or unreadable by ending that link alone.

use super::crossing::Crossing;
use super::hall::{Hall, Joined, Line, Refusal};
use super::{sensed, tables};
use crate::clock;
use crate::protocol::FromWorker;
use crate::protocol::authority::{Credentials, is_for};
use crate::protocol::codec::{MESSAGE_MAX, Packed};
use crate::protocol::link::{
    Ahead, BEAT, Beat, Beaten, Cards, Claim, Down, LINK, Report, Said, Task, Up,
};
use crate::run::Input;
use crate::shell::fleet::Origin;
use crate::shell::inbox::Inlet;
use hallmark_results::frame::{FaultKind, Table, What};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Mutex as Turn, Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for an agent's first message.
const JOIN: Duration = Duration::from_secs(10);
/// Messages on the way to one agent.
const QUEUE: usize = 64;
/// Between two tries to hand a report to a run that is busy, and between two looks at what an agent is to be told.
const AGAIN: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(500);
/// Between two messages of rows from one node, and what each node of the hall adds: a controller hears so many a second
/// and no more, however large its hall is.
const PACE_MS: u64 = 20;
const NODES_PER_MS: u64 = 5;
/// What the network and the run share.
pub struct Desk {
    hall: Mutex<Hall>,
    inputs: Inlet,
    places: Mutex<Vec<Place>>,
    crossing: Mutex<Crossing>,
    /// The load is over: an agent that joins from now on has only its log to hand over.
    finishing: AtomicBool,
}

/// What is known of a node beside the [`Hall`]'s account.
#[derive(Default)]
pub struct Place {
    /// Its devices in the numbers of the plan; empty before there is one.
    pub devices: Range<u32>,
    pub ahead: Option<Ahead>,
    /// When that came, on the controller's clock.
    pub ahead_at_ns: u64,
    /// What it was when the node took the run's start over: on it rest all of the node's times.
    pub began: Option<Ahead>,
    /// It has said its last word.
    pub done: bool,
    /// The latest refusal of an agent under its name.
    pub refused: Option<String>,
    /// What has it read its sensors, for an agent that is started once more.
    pub sense: Option<Task>,
    /// The tables that it has declared, in the numbers of the run.
    tables: BTreeMap<u32, Table>,
    told: sensed::Told,
    /// Whose reports the run takes: over a new link none overtakes one that came before and waits for room.
    turn: Arc<Turn<()>>,
    wake: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    pub fn new(hall: Hall, inputs: Inlet) -> Self {
        let places = (0..hall.count()).map(|_| Place::default()).collect();
        Self {
            hall: Mutex::new(hall),
            inputs,
            places: Mutex::new(places),
            crossing: Mutex::default(),
            finishing: AtomicBool::new(false),
        }
    }

    /// Notes that the load is over.
    pub fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
    }

    /// Whether the load is over.
    pub fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    /// Gives an agent in an earlier one's place what that one had to do and it can go on with.
    fn take_up(&self, node: usize) {
        let sense = self.places()[node].sense.clone();
        let mut hall = self.hall();
        if let Some(sense) = sense {
            hall.task(node, sense);
        }
        if self.is_finishing() {
            hall.task(node, Task::Finish);
        }
    }

    pub fn hall(&self) -> MutexGuard<'_, Hall> {
        lock(&self.hall)
    }

    pub fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        lock(&self.places)
    }

    /// How the nodes' bridges find each other.
    pub fn crossing(&self) -> MutexGuard<'_, Crossing> {
        lock(&self.crossing)
    }

    /// Takes what a bridge has put up, and shows it to all once they all have; gives why, where a group loses it by that.
    fn show(&self, node: usize, generation: u32, round: u32, cards: Cards) -> Option<String> {
        let mut crossing = self.crossing();
        if let Err(why) = crossing.show(node, generation, round, cards) {
            return crossing.ended(node, generation, Err(why));
        }
        let complete = crossing.complete();
        drop(crossing);
        let (nodes, task) = complete?;
        for node in nodes {
            self.hall().task(node, task.clone());
            self.wake(node);
        }
        None
    }

    /// Has a node's link look at what the node is to be told.
    pub fn wake(&self, node: usize) {
        if let Some(place) = self.places().get(node) {
            place.wake.notify_one();
        }
    }

    fn pace_ms(&self) -> u64 {
        PACE_MS + self.hall().count() as u64 / NODES_PER_MS
    }

    fn join(&self, claim: Claim, certificate: &CertificateDer<'_>) -> Result<Joined, Refusal> {
        let session = session();
        let joined = self.hall().join(
            claim,
            |name| is_for(certificate, name),
            &session,
            clock::monotonic_ns(),
        )?;
        Ok(joined)
    }

    fn turn(&self, node: usize) -> Arc<Turn<()>> {
        Arc::clone(&self.places()[node].turn)
    }

    /// Tells the run what an agent's joining says of the one before it, whose workers ended with it.
    async fn joined(&self, joined: &Joined, name: &str) {
        let turn = self.turn(joined.node);
        let _turn = turn.lock().await;
        if joined.restarted {
            let devices = self.places()[joined.node].devices.clone();
            for device in devices {
                let kind = FaultKind::Agent;
                let detail = format!("the agent of node `{name}` was started anew");
                let lost = FromWorker::Fault { kind, detail };
                self.hand_over(Input::Worker(device, lost)).await;
            }
            self.take_up(joined.node);
        }
        if joined.log_lost {
            let detail =
                format!("the log of node `{name}` was begun anew: what it still held is lost");
            let kind = FaultKind::Journal;
            self.hand_over(Input::Event(What::Fault { kind, detail }, None))
                .await;
        }
    }

    /// Hands an input to the run, as soon as it has room.
    async fn hand_over(&self, mut input: Input) {
        while let Err(back) = self.inputs.try_send(input) {
            input = back;
            sleep(AGAIN).await;
        }
    }

    /// A node's table as the record has it; `None` where the node has declared it before. It is of no other place than
    /// the node, whatever place it names.
    fn declared(&self, node: usize, mut given: Table) -> Result<Option<Table>, String> {
        let name = self.hall().name(node);
        let number = tables::number(node, given.id);
        given.id = number.ok_or_else(|| format!("node `{name}` numbers a table {}", given.id))?;
        given.name = tables::name(node, &name, &given.name);
        given.place = name;
        let tables = &mut self.places()[node].tables;
        let known = tables.insert(given.id, given.clone());
        if tables.len() > sensed::TABLES_MAX {
            return Err(format!(
                "it declares more than {} tables",
                sensed::TABLES_MAX
            ));
        }
        match known {
            None => Ok(Some(given)),
            // An agent that was started once more goes on with it.
            Some(known) if known == given => Ok(None),
            Some(_) => Err(format!("table {} is another than it was", given.name)),
        }
    }

    /// A report as the run takes it; refused where it is not about the node's own devices.
    fn input(&self, node: usize, log: u64, report: Report) -> Result<Option<Input>, String> {
        let own = self.places()[node].devices.clone();
        let name = || self.hall().name(node);
        let known = |device: Option<u32>| match device {
            Some(device) if !own.contains(&device) => Err(format!(
                "node `{}` reports of device {device}, and has {} to {}",
                name(),
                own.start,
                own.end
            )),
            _ => Ok(()),
        };
        let table = |id: u32| {
            let number = tables::number(node, id);
            number.ok_or_else(|| format!("node `{}` numbers a table {id}", name()))
        };
        let number = report.number;
        let from = |input| Input::From(origin(node, log, number), Box::new(input));
        let input = match report.said {
            Said::Worker { device, mut report } => {
                known(Some(device))?;
                sensed::shorten(&mut report);
                for other in sensed::also_of(&report) {
                    known(Some(*other))?;
                }
                Input::Worker(device, report)
            }
            Said::Gone { device, mut why } => {
                known(Some(device))?;
                sensed::cut(&mut why);
                Input::Gone(device, why)
            }
            Said::Table(given) => {
                known(given.device)?;
                match self.declared(node, given)? {
                    Some(table) => Input::Table(table),
                    None => return Ok(None),
                }
            }
            Said::Samples(mut samples) => {
                samples.table = table(samples.table)?;
                Input::Samples(samples)
            }
            Said::Event { mut what, device } => {
                known(device)?;
                if let What::Gap { table: id, .. } = &mut what {
                    *id = table(*id)?;
                }
                let name = name();
                self.places()[node].told.take(&what, &name)?;
                Input::Event(sensed::event(what, device, &name)?, device)
            }
            Said::Cards {
                generation,
                round,
                cards,
            } => {
                let why = self.show(node, generation, round, cards);
                return Ok(why.map(|why| from(broken_bridge(&name(), &why))));
            }
            Said::Bridge {
                generation,
                outcome,
            } => {
                let why = self.crossing().ended(node, generation, outcome);
                return Ok(why.map(|why| from(broken_bridge(&name(), &why))));
            }
            Said::Last => {
                self.places()[node].done = true;
                return Ok(None);
            }
        };
        Ok(Some(from(input)))
    }
}

const fn origin(node: usize, log: u64, number: u64) -> Origin {
    Origin {
        node: node as u32,
        log,
        number,
    }
}

fn broken_bridge(node: &str, why: &str) -> Input {
    let kind = FaultKind::Collective;
    let detail = format!("node `{node}`: {why}");
    Input::Event(What::Fault { kind, detail }, None)
}

impl Place {
    /// By how much the node's times are off at most and at least, s: what its clock has moved against the controller's
    /// since the run began, and what both comparisons may err by. `None` where the latest is older than `patience_ns`.
    pub fn off_s(&self, now_ns: u64, patience_ns: u64) -> Option<[f64; 2]> {
        let (began, now) = (self.began?, self.ahead?);
        if now_ns.saturating_sub(self.ahead_at_ns) > patience_ns {
            return None;
        }
        let moved_ns = began.ns.abs_diff(now.ns);
        let error_ns = began.error_ns.saturating_add(now.error_ns);
        let (most_ns, least_ns) = (
            moved_ns.saturating_add(error_ns),
            moved_ns.saturating_sub(error_ns),
        );
        Some([most_ns, least_ns].map(|ns| ns as f64 / 1e9))
    }
}

/// Something that nobody guesses.
pub fn session() -> String {
    let mut bytes = [0; 16];
    // Without random numbers there is no key either, and nobody has joined.
    let _ = getrandom::fill(&mut bytes);
    hallmark_results::plan::hex(&bytes)
}

fn refusal(refusal: &Refusal) -> Status {
    match refusal {
        // Its agent links anew, and sends again what is missing.
        Refusal::Order { .. } => Status::aborted(refusal.to_string()),
        _ => Status::failed_precondition(refusal.to_string()),
    }
}

fn certificate<T>(request: &Request<T>) -> Result<CertificateDer<'static>, Status> {
    let shown = request.peer_certs().and_then(|c| c.first().cloned());
    shown.ok_or_else(|| Status::unauthenticated("no certificate"))
}

async fn link(
    desk: Arc<Desk>,
    request: Request<Streaming<Up>>,
) -> Result<Response<ReceiverStream<Result<Down, Status>>>, Status> {
    let certificate = certificate(&request)?;
    let mut up = request.into_inner();
    let claim = match timeout(JOIN, up.message()).await {
        Ok(Ok(Some(Up::Join(claim)))) => *claim,
        Ok(Err(status)) => return Err(status),
        Ok(Ok(_)) => return Err(Status::invalid_argument("a link begins with a claim")),
        Err(_) => return Err(Status::deadline_exceeded("no claim came")),
    };
    let name = claim.node.clone();
    let joined = desk.join(claim, &certificate).map_err(|e| {
        let known = desk.hall().find(&name);
        let mut places = desk.places();
        if let Some(place) = known.and_then(|n| places.get_mut(n)) {
            place.refused = Some(e.to_string());
        }
        refusal(&e)
    })?;
    let (down, queue) = mpsc::channel(QUEUE);
    let speaker = tokio::spawn(speak(Arc::clone(&desk), joined.clone(), down.clone()));
    // Not here: an agent that gives its link up while the run has no room takes this with it.
    tokio::spawn(async move {
        desk.joined(&joined, &name).await;
        let status = listen(&desk, &joined, up).await;
        speaker.abort();
        desk.hall().unlink(joined.node, joined.link);
        if let Some(status) = status {
            let _ = down.send(Err(status)).await;
        }
    });
    Ok(Response::new(ReceiverStream::new(queue)))
}

/// Takes reports until the link ends; gives what the agent is to be told of why.
async fn listen(desk: &Desk, joined: &Joined, mut up: Streaming<Up>) -> Option<Status> {
    let node = joined.node;
    loop {
        let message = match up.message().await {
            Ok(message) => message,
            Err(status) => return Some(status),
        };
        let message = message?;
        desk.hall().hear(node, Line::Link, clock::monotonic_ns());
        match message {
            Up::Reports(reports) => {
                let turn = desk.turn(node);
                let _turn = turn.lock().await;
                for report in reports {
                    let taken = desk.hall().take(node, joined.link, report.number);
                    match taken {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(why) => return Some(refusal(&why)),
                    }
                    match desk.input(node, joined.log, report) {
                        Ok(Some(input)) => desk.hand_over(input).await,
                        Ok(None) => {}
                        Err(why) => return Some(Status::failed_precondition(why)),
                    }
                }
            }
            Up::Took { task } => desk.hall().took(node, task),
            Up::Join(_) => return Some(Status::invalid_argument("a link has one claim")),
        }
    }
}

/// Tells an agent its tasks and what of its reports is on disk, until the link ends.
async fn speak(desk: Arc<Desk>, joined: Joined, down: mpsc::Sender<Result<Down, Status>>) {
    let node = joined.node;
    let (wake, welcome) = {
        let session = desk.hall().session(node).map(str::to_owned);
        let welcome = Down::Welcome {
            session: session.unwrap_or_default(),
            kept: joined.kept,
            pace_ms: desk.pace_ms(),
        };
        // Its own, or a link that is dead and not known to be would be woken in its place.
        let wake = Arc::new(Notify::new());
        desk.places()[node].wake = Arc::clone(&wake);
        (wake, welcome)
    };
    let mut messages = vec![welcome];
    let (mut told, mut kept) = (0, joined.kept);
    let mut kept_ns = clock::monotonic_ns();
    loop {
        for message in messages.drain(..) {
            if down.send(Ok(message)).await.is_err() {
                return;
            }
        }
        {
            let hall = desk.hall();
            let tasks = hall.tasks_after(node, told);
            // First: one that is to leave keeps what is not known to be on disk here.
            let since_ns = clock::monotonic_ns().saturating_sub(kept_ns);
            let is_due = !tasks.is_empty() || u128::from(since_ns) >= LOOK.as_nanos();
            if hall.kept(node) > kept && is_due {
                (kept, kept_ns) = (hall.kept(node), clock::monotonic_ns());
                messages.push(Down::Kept { number: kept });
            }
            told = tasks.last().map_or(told, |(number, _)| *number);
            let together = tasks.chunk_by(|(_, a), (_, b)| a.is_small() && b.is_small());
            messages.extend(together.map(|some| Down::Tasks(some.to_vec())));
        }
        if messages.is_empty() {
            let _ = timeout(LOOK, wake.notified()).await;
        }
    }
}

async fn beat(desk: Arc<Desk>, request: Request<Beat>) -> Result<Response<Beaten>, Status> {
    let came_ns = clock::monotonic_ns();
    let certificate = certificate(&request)?;
    let beat = request.into_inner();
    let is_for = |name: &str| is_for(&certificate, name);
    let known = desk.hall().beat(&beat.node, is_for, &beat.session, came_ns);
    let node = known.map_err(|e| refusal(&e))?;
    if let Some(place) = desk.places().get_mut(node) {
        if beat.ahead.is_some() {
            (place.ahead, place.ahead_at_ns) = (beat.ahead, came_ns);
        }
        // Of an agent in an earlier one's place, its own.
        place.began = beat.began.or(place.began);
    }
    let left_ns = clock::monotonic_ns();
    Ok(Response::new(Beaten { came_ns, left_ns }))
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

struct Links(Arc<Desk>);

impl StreamingService<Up> for Links {
    type Response = Down;
    type ResponseStream = ReceiverStream<Result<Down, Status>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<Up>>) -> Self::Future {
        Box::pin(link(Arc::clone(&self.0), request))
    }
}

struct Beats(Arc<Desk>);

impl UnaryService<Beat> for Beats {
    type Response = Beaten;
    type Future = Answer<Beaten>;

    fn call(&mut self, request: Request<Beat>) -> Self::Future {
        Box::pin(beat(Arc::clone(&self.0), request))
    }
}

/// The two methods by their paths.
#[derive(Clone)]
struct Methods(Arc<Desk>);

impl tower_service::Service<http::Request<Body>> for Methods {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let desk = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(match request.uri().path() {
                LINK => {
                    let codec = Packed::<Down, Up>::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MESSAGE_MAX);
                    grpc.streaming(Links(desk), request).await
                }
                BEAT => {
                    let codec = Packed::<Beaten, Beat>::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MESSAGE_MAX);
                    grpc.unary(Beats(desk), request).await
                }
                path => Status::unimplemented(format!("no method {path}")).into_http(),
            })
        })
    }
}

/// Serves the desk on a thread of its own until `stop` is told; gives the address that it listens at.
///
/// # Errors
/// One sentence: the address cannot be listened at, or TLS does not take the credentials.
pub fn serve(
    desk: &Arc<Desk>,
    address: &str,
    credentials: &Credentials,
    stop: Arc<Notify>,
) -> Result<SocketAddr, String> {
    let fail = |e: &dyn std::fmt::Display| format!("cannot listen at {address}: {e}");
    let listener = std::net::TcpListener::bind(address).map_err(|e| fail(&e))?;
    listener.set_nonblocking(true).map_err(|e| fail(&e))?;
    let bound = listener.local_addr().map_err(|e| fail(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| fail(&e))?;
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            &credentials.certificate,
            &credentials.key,
        ))
        .client_ca_root(Certificate::from_pem(&credentials.authority))
        .timeout(JOIN);
    let server = Server::builder()
        .http2_keepalive_interval(Some(JOIN))
        .max_concurrent_streams(8)
        .tls_config(tls)
        .map_err(|e| fail(&e))?;
    let methods = Methods(Arc::clone(desk));
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            let incoming = TcpListenerStream::new(listener);
            tokio::spawn(server.serve_with_incoming(methods, incoming));
            // Links that are still open end with the runtime.
            stop.notified().await;
        });
    });
    Ok(bound)
}
