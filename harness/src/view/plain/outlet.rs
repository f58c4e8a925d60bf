//! Carries output to standard output without ever holding up the run.
//!
//! A reader that stalls (a full pipe, a lost connection) would block a write, and with it the loop that
//! journals. So a thread of its own writes; what does not fit its short queue is refused, and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Pieces that wait at most.
const QUEUE: usize = 1024;

/// The sending end of the writer.
pub struct Outlet {
    queue: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    waiting: Arc<AtomicUsize>,
    refused: u64,
}

impl Outlet {
    /// Writes to this process's standard output.
    pub fn stdout() -> Self {
        Self::to(std::io::stdout())
    }

    /// Writes to `out`, flushed after each piece.
    pub fn to(mut out: impl Write + Send + 'static) -> Self {
        let (queue, pieces) = sync_channel::<Vec<u8>>(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let work = move || {
            for piece in pieces {
                // A reader that went away changes no run: the rest is written to nobody.
                let _ = out.write_all(&piece).and_then(|()| out.flush());
                left.fetch_sub(1, Ordering::Release);
            }
        };
        // Without a thread everything is refused and counted; the run goes on unseen.
        let writer = std::thread::Builder::new()
            .name("view".to_owned())
            .spawn(work)
            .ok();
        Self {
            queue: writer.is_some().then_some(queue),
            writer,
            waiting,
            refused: 0,
        }
    }

    /// Hands a piece over; `false` if the writer is too far behind to take it.
    pub fn send(&mut self, piece: Vec<u8>) -> bool {
        self.waiting.fetch_add(1, Ordering::Acquire);
        let taken = match self.queue.as_ref().map(|q| q.try_send(piece)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        };
        if !taken {
            self.waiting.fetch_sub(1, Ordering::Release);
            self.refused += 1;
        }
        taken
    }

    /// Hands over a piece that must not be lost, once nothing else is to be kept from waiting.
    pub fn insist(&mut self, piece: Vec<u8>) {
        self.waiting.fetch_add(1, Ordering::Acquire);
        if self.queue.as_ref().is_none_or(|q| q.send(piece).is_err()) {
            self.waiting.fetch_sub(1, Ordering::Release);
        }
    }

    /// Everything handed over so far has been written.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Pieces refused since this was last asked.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Waits until everything is written, and takes nothing more.
    pub fn finish(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// A place that tests read back.
    #[derive(Clone, Default)]
    pub struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        pub fn text(&self) -> String {
            String::from_utf8(self.lock().clone()).unwrap()
        }

        fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_is_refused_to_and_counted_never_waited_for() {
        let sink = Sink::default();
        let held = sink.0.lock().unwrap();
        let mut outlet = Outlet::to(sink.clone());
        let sent = 3 * QUEUE as u64;
        let taken = (0..sent).filter(|_| outlet.send(b"x".to_vec())).count() as u64;
        assert!(taken <= QUEUE as u64 + 1, "{taken}");
        assert_eq!(outlet.take_refused(), sent - taken);
        assert!(!outlet.is_idle());
        drop(held);
        outlet.finish();
        assert_eq!(sink.text().len() as u64, taken);
        assert!(outlet.is_idle());
    }

    #[test]
    fn a_reader_that_went_away_stops_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut outlet = Outlet::to(Gone);
        assert!(outlet.send(b"one".to_vec()));
        outlet.insist(b"two".to_vec());
        outlet.finish();
        assert!(outlet.is_idle());
    }
}
