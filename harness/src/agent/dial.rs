//! The agent's side of the network: one link for reports and tasks, one connection for heartbeats, both kept up.
//!
//! A link that breaks is made anew, and every report that is not acknowledged is sent again from the log. It gives up
//! where the controller refuses the agent, and where it was not reached for [`PATIENCE`]; whoever listens then ends all
//! work, so that no node goes on without a controller.

use super::log::{Log, LogError};
use super::offset::Offset;
use crate::clock;
use crate::launch::Invitation;
use crate::protocol::authority::CONTROLLER;
use crate::protocol::codec::{MESSAGE_MAX, Packed};
use crate::protocol::link::{Ahead, BEAT, Beat, Beaten, Claim, Down, LINK, Pass, Said, Task, Up};
use http::uri::PathAndQuery;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

/// A controller that was not reached for this long is gone for good.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries, between two beats, and the longest wait for an answer.
const RETRY: Duration = Duration::from_millis(250);
const BEAT_EVERY: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(5);
/// The first beats follow each other faster, so that clocks are compared before the load begins.
const FIRST_BEATS: Duration = Duration::from_millis(20);
/// Messages on the way to the network, and about how long one of reports may be, B.
const QUEUE: usize = 64;
const MESSAGE: u64 = 256 << 10;
/// Longest time between two messages of rows that a controller may ask for.
const PACE_MAX_MS: u64 = 1_000;

/// What the network tells the agent.
pub enum Heard {
    Task(Box<Task>),
    /// The controller does not want this agent, or no longer.
    Refused(String),
    /// It was not reached for too long.
    Lost(String),
}

/// What the agent and its network share.
pub struct Desk {
    pub log: Mutex<Log>,
    grown: Notify,
    /// Something is in the log that may not wait.
    hurry: Notify,
    pub offset: Mutex<Offset>,
    /// The offset on which all times rest that the node tells; `None` before the first.
    pub began: Mutex<Option<Ahead>>,
    /// The last task that was taken.
    pub taken: Mutex<u64>,
    pub session: Mutex<Option<String>>,
}

impl Desk {
    /// A desk at which nobody has joined.
    pub fn new(log: Log) -> Self {
        Self {
            log: Mutex::new(log),
            grown: Notify::new(),
            hurry: Notify::new(),
            offset: Mutex::default(),
            began: Mutex::new(None),
            taken: Mutex::new(0),
            session: Mutex::new(None),
        }
    }

    /// Puts something into the log, from which it is sent.
    ///
    /// # Errors
    /// [`LogError`]; it is then not in the log.
    pub fn say(&self, said: Said) -> Result<(), LogError> {
        let can_wait = said.can_wait();
        lock(&self.log).append(said)?;
        self.grown.notify_one();
        if !can_wait {
            self.hurry.notify_one();
        }
        Ok(())
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How one link ended.
enum End {
    Refused(String),
    Broken { why: String, lasted: bool },
}

/// Keeps the agent connected until it is refused or gives up; for a thread of its own.
pub fn keep(invitation: &Invitation, claim: Claim, desk: &Arc<Desk>, heard: &Sender<Heard>) {
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
        .and_then(|runtime| {
            let endpoint = endpoint(invitation)?;
            Ok(runtime.block_on(dial(&endpoint, claim, desk, heard)))
        });
    let told = ended.unwrap_or_else(|why| Heard::Lost(format!("no network: {why}")));
    // An agent that no longer listens has ended.
    let _ = heard.send(told);
}

/// Where the controller listens, and by which keys it is reached.
///
/// # Errors
/// One sentence: the invitation's address or keys are none.
pub fn endpoint(invitation: &Invitation) -> Result<Endpoint, String> {
    let Invitation {
        address,
        credentials,
        ..
    } = invitation;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&credentials.authority))
        .identity(Identity::from_pem(
            &credentials.certificate,
            &credentials.key,
        ))
        .domain_name(CONTROLLER);
    Endpoint::from_shared(format!("https://{address}"))
        .and_then(|e| e.tls_config(tls))
        .map(|e| {
            e.connect_timeout(ANSWER)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(ANSWER)
                .keep_alive_timeout(ANSWER)
                .keep_alive_while_idle(true)
        })
        .map_err(|e| format!("{address}: {}", whole(&e)))
}

/// An error with all that it wraps: a handshake's reason is the innermost.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text = format!("{text}: {cause}");
        inner = cause.source();
    }
    text
}

/// Keeps an agent connected until it is refused or gives up.
pub async fn dial(
    endpoint: &Endpoint,
    mut claim: Claim,
    desk: &Arc<Desk>,
    heard: &Sender<Heard>,
) -> Heard {
    let beats = tokio::spawn(beat(endpoint.clone(), claim.node.clone(), Arc::clone(desk)));
    let mut last_ns = clock::monotonic_ns();
    let told = loop {
        claim.last = lock(&desk.log).last();
        claim.task = *lock(&desk.taken);
        if let Some(session) = lock(&desk.session).clone() {
            claim.pass = Pass::Session(session);
        }
        match link(endpoint, claim.clone(), desk, heard).await {
            End::Refused(why) => break Heard::Refused(why),
            End::Broken { why, lasted } => {
                let now_ns = clock::monotonic_ns();
                if lasted {
                    last_ns = now_ns;
                }
                if Duration::from_nanos(now_ns.saturating_sub(last_ns)) > PATIENCE {
                    break Heard::Lost(format!(
                        "the controller was not reached for {} s: {why}",
                        PATIENCE.as_secs()
                    ));
                }
            }
        }
        sleep(RETRY).await;
    };
    beats.abort();
    told
}

/// What a status means for the next try.
fn ended(status: &Status, lasted: bool) -> End {
    let why = status.message().to_owned();
    match status.code() {
        Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument => {
            End::Refused(why)
        }
        _ => End::Broken { why, lasted },
    }
}

/// One link, from its first message to its end.
async fn link(endpoint: &Endpoint, claim: Claim, desk: &Arc<Desk>, heard: &Sender<Heard>) -> End {
    let broken = |why: String| End::Broken { why, lasted: false };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return broken(whole(&error)),
    };
    let (outgoing, queue) = mpsc::channel::<Up>(QUEUE);
    if outgoing.send(Up::Join(Box::new(claim))).await.is_err() {
        return broken("the link closed at once".to_owned());
    }
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_MAX);
    if let Err(error) = grpc.ready().await {
        return broken(whole(&error));
    }
    let path = PathAndQuery::from_static(LINK);
    let codec = Packed::<Up, Down>::default();
    let answer = grpc.streaming(Request::new(ReceiverStream::new(queue)), path, codec);
    let mut incoming = match timeout(ANSWER, answer).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return ended(&status, false),
        Err(_) => return broken("no answer".to_owned()),
    };
    let (kept, pace) = match timeout(ANSWER, incoming.message()).await {
        Ok(Ok(Some(Down::Welcome {
            session,
            kept,
            pace_ms,
        }))) => {
            *lock(&desk.session) = Some(session);
            (kept, Duration::from_millis(pace_ms.min(PACE_MAX_MS)))
        }
        Ok(Err(status)) => return ended(&status, false),
        _ => return broken("no welcome".to_owned()),
    };
    lock(&desk.log).forget(kept);
    let sender = tokio::spawn(report(Arc::clone(desk), outgoing.clone(), kept, pace));
    let end = loop {
        match incoming.message().await {
            Ok(Some(Down::Tasks(tasks))) => {
                if !take(tasks, desk, heard) {
                    break broken("the agent has ended".to_owned());
                }
                let task = *lock(&desk.taken);
                // The channel holds what the network cannot take at once; a link that cannot take this is broken.
                if outgoing.send(Up::Took { task }).await.is_err() {
                    break End::Broken {
                        why: "the link closed".to_owned(),
                        lasted: true,
                    };
                }
            }
            Ok(Some(Down::Kept { number })) => lock(&desk.log).forget(number),
            Ok(Some(Down::Welcome { .. })) => {}
            Ok(None) => {
                break End::Broken {
                    why: "the controller closed the link".to_owned(),
                    lasted: true,
                };
            }
            Err(status) => break ended(&status, true),
        }
    };
    sender.abort();
    end
}

/// Hands the agent those tasks that are new; whether it listens.
fn take(tasks: Vec<(u64, Task)>, desk: &Desk, heard: &Sender<Heard>) -> bool {
    let mut taken = lock(&desk.taken);
    for (number, task) in tasks {
        if number > *taken {
            *taken = number;
            if heard.send(Heard::Task(Box::new(task))).is_err() {
                return false;
            }
        }
    }
    true
}

/// Sends what is in the log after `kept`, and then whatever is added to it: rows once in a `pace`, all else at once.
async fn report(desk: Arc<Desk>, outgoing: mpsc::Sender<Up>, kept: u64, pace: Duration) {
    let mut next = kept + 1;
    loop {
        let read = {
            let log = lock(&desk.log);
            // What an earlier link had brought may be acknowledged before it is sent again over this one.
            next = next.max(log.oldest());
            log.read_from(next, MESSAGE)
        };
        match read {
            Ok(reports) if !reports.is_empty() => {
                next += reports.len() as u64;
                if outgoing.send(Up::Reports(reports)).await.is_err() {
                    return;
                }
                let more = lock(&desk.log).last() >= next;
                if !more {
                    let _ = timeout(pace, desk.hurry.notified()).await;
                }
            }
            Ok(_) => {
                // Nothing to report is told: it is no link that carries nothing.
                if timeout(BEAT_EVERY, desk.grown.notified()).await.is_err() {
                    let task = *lock(&desk.taken);
                    if outgoing.send(Up::Took { task }).await.is_err() {
                        return;
                    }
                }
            }
            // A report that cannot be read back keeps all later ones from being sent: they would leave a hole.
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Heartbeats on a connection of their own, each of which also compares the clocks.
async fn beat(endpoint: Endpoint, node: String, desk: Arc<Desk>) {
    // Connected when first used, and again whenever it broke.
    let mut grpc = Grpc::new(endpoint.connect_lazy()).max_decoding_message_size(MESSAGE_MAX);
    loop {
        let session = lock(&desk.session).clone();
        if let Some(session) = session {
            let ahead = lock(&desk.offset).best();
            let beat = Beat {
                node: node.clone(),
                session,
                ahead,
                began: *lock(&desk.began),
            };
            if let Ok(Some((sent_ns, beaten))) = timeout(ANSWER, once(&mut grpc, beat)).await {
                lock(&desk.offset).push(sent_ns, beaten, clock::monotonic_ns());
            }
        }
        let known = lock(&desk.offset).is_known();
        sleep(if known { BEAT_EVERY } else { FIRST_BEATS }).await;
    }
}

async fn once(grpc: &mut Grpc<Channel>, beat: Beat) -> Option<(u64, Beaten)> {
    grpc.ready().await.ok()?;
    let sent_ns = clock::monotonic_ns();
    let path = PathAndQuery::from_static(BEAT);
    let answer = grpc.unary(Request::new(beat), path, Packed::<Beat, Beaten>::default());
    let beaten = answer.await.ok()?.into_inner();
    Some((sent_ns, beaten))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::link::Said;

    #[test]
    fn reports_that_are_acknowledged_before_they_are_sent_again_hold_up_none_after_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 5).unwrap();
        for _ in 0..3 {
            log.append(Said::Last).unwrap();
        }
        log.forget(2);
        let desk = Arc::new(Desk::new(log));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let sent = runtime.block_on(async {
            let (outgoing, mut queue) = mpsc::channel(QUEUE);
            let sender = tokio::spawn(report(desk, outgoing, 0, RETRY));
            let sent = timeout(ANSWER, queue.recv()).await;
            sender.abort();
            sent
        });
        let sent = sent.ok().flatten();
        assert!(
            matches!(&sent, Some(Up::Reports(reports)) if reports.len() == 1 && reports[0].number == 3),
            "{sent:?}"
        );
    }
}
