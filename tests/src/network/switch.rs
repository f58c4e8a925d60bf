//! The thread that carries frames between hosts, as [`Wires`] decides.
//!
//! It sleeps until a host has sent something or a frame is due. It refuses a frame that a host's interface does not take
//! at once, as a real one does.

use super::wires::Wires;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest frame, B.
const FRAME: usize = 2_048;
/// Frames taken of one host before the others have their turn.
const TURN: usize = 64;

/// The switch; it ends when it is dropped.
#[derive(Debug)]
pub struct Switch {
    wires: Arc<Mutex<Wires>>,
    /// Closing it ends the thread.
    running: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

fn lock(wires: &Mutex<Wires>) -> MutexGuard<'_, Wires> {
    wires.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Switch {
    /// Begins to carry frames between the interfaces of all hosts.
    ///
    /// # Panics
    /// The system has no room for one more socket.
    pub fn start(interfaces: Vec<File>, seed: u64) -> Self {
        let wires = Arc::new(Mutex::new(Wires::new(interfaces.len(), seed)));
        let (running, end) = UnixStream::pair().expect("a socket can be made");
        let shared = Arc::clone(&wires);
        let thread = std::thread::spawn(move || carry(&interfaces, &shared, &end));
        Self {
            wires,
            running: Some(running),
            thread: Some(thread),
        }
    }

    pub fn wires(&self) -> MutexGuard<'_, Wires> {
        lock(&self.wires)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // A switch that has failed has told so by itself.
            let _ = thread.join();
        }
    }
}

fn carry(interfaces: &[File], wires: &Mutex<Wires>, end: &UnixStream) {
    let begun = Instant::now();
    let mut frame = [0; FRAME];
    loop {
        let next = lock(wires).next_due();
        let left = next.map(|due| due.saturating_sub(begun.elapsed()));
        let ready = ready(interfaces, end, left);
        if ready[interfaces.len()] {
            return;
        }
        let mut wires = lock(wires);
        for (host, mut interface) in interfaces.iter().enumerate().filter(|(i, _)| ready[*i]) {
            for _ in 0..TURN {
                // Nothing left, or an interface that is gone with its host.
                let Ok(length) = interface.read(&mut frame) else {
                    break;
                };
                wires.take(begun.elapsed(), host, &frame[..length]);
            }
        }
        while let Some((host, frame)) = wires.due(begun.elapsed()) {
            let _ = (&interfaces[host]).write(&frame);
        }
    }
}

/// Which interfaces have something to read, and last whether all is to end, after `left` at most.
fn ready(interfaces: &[File], end: &UnixStream, left: Option<Duration>) -> Vec<bool> {
    let watched = interfaces
        .iter()
        .map(|interface| PollFd::new(interface, PollFlags::IN));
    let mut watched: Vec<PollFd> = watched.chain([PollFd::new(end, PollFlags::IN)]).collect();
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(&mut watched, left.as_ref()) {
        Ok(_) => watched.iter().map(|w| !w.revents().is_empty()).collect(),
        // Interrupted: nothing is known, and it is asked again.
        Err(_) => vec![false; watched.len()],
    }
}
