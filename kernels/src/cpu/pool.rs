//! Runs one function on a fixed set of pinned threads with little delay, and waits for all of them.
//!
//! Thread 0 is the caller: it is pinned for the life of the pool and gets its own affinity back
//! after. A worker waits for its next job in a short spin and then sleeps, so an idle pool burns
//! no core. Refuses fewer processors than threads and a processor it cannot pin to. A panic in
//! a job is returned as an error once every thread has stopped touching the job.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{JoinHandle, Thread};

/// Pause instructions before a waiting thread sleeps: some tens of microseconds, about what a
/// wake-up by the kernel costs.
const SPINS: u32 = 1_000;

/// Why a pool could not start or a job did not end well.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No thread at all was asked for.
    #[error("a pool of 0 threads was asked for; the calling thread alone is 1")]
    NoThreads,
    /// Fewer processors than threads were named.
    #[error(
        "{threads} threads, but only {cpus} processors to pin them to; name one for each thread or none"
    )]
    TooFewCpus {
        /// Threads asked for.
        threads: usize,
        /// Processors named.
        cpus: usize,
    },
    /// The operating system refused a processor.
    #[error(
        "thread {thread} cannot be pinned to processor {cpu}: {source}; name processors this process may use"
    )]
    Pin {
        /// Index of the thread in the pool.
        thread: usize,
        /// Processor asked for.
        cpu: usize,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The operating system refused a thread.
    #[error("thread {thread} cannot start: {source}; lower the number of threads")]
    Spawn {
        /// Index of the thread in the pool.
        thread: usize,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The job panicked on at least one thread.
    #[error("job panicked on thread {thread}: {message}; its results are incomplete")]
    Panicked {
        /// Index of the first thread that reported a panic.
        thread: usize,
        /// The panic's message.
        message: String,
    },
}

type Job<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The job of the current epoch, as a pointer without its lifetime.
struct Slot(UnsafeCell<Option<*const Job<'static>>>);

// SAFETY: the slot is written by the pool's owner only while no worker runs (`pending` is 0) and
// read by workers only after they have seen the epoch that was published after the write.
unsafe impl Sync for Slot {}
// SAFETY: as above; the pointee is `Sync`, so another thread may call it.
unsafe impl Send for Slot {}

struct Shared {
    threads: usize,
    epoch: AtomicU64,
    pending: AtomicUsize,
    stop: AtomicBool,
    job: Slot,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<(usize, String)>>,
}

/// A persistent set of threads. One job at a time: `run` borrows the pool exclusively.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    restore: Option<affinity::Saved>,
}

impl Pool {
    /// Starts `threads − 1` workers; the caller is thread 0.
    ///
    /// `cpus`: thread `i` is pinned to processor `cpus[i]`; empty pins none. Where the operating
    /// system has no affinity call (anything but Linux) nothing is pinned.
    ///
    /// # Errors
    /// [`PoolError`] for zero threads, too few processors, or what the system refuses.
    pub fn new(threads: usize, cpus: &[usize]) -> Result<Self, PoolError> {
        if threads == 0 {
            return Err(PoolError::NoThreads);
        }
        if !cpus.is_empty() && cpus.len() < threads {
            return Err(PoolError::TooFewCpus {
                threads,
                cpus: cpus.len(),
            });
        }
        let shared = Arc::new(Shared {
            threads,
            epoch: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            job: Slot(UnsafeCell::new(None)),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
        });
        // Built at once so that an early return stops and joins the workers that did start.
        let mut pool = Self {
            shared,
            workers: Vec::with_capacity(threads - 1),
            restore: None,
        };
        let (tell, told) = mpsc::channel();
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let tell = tell.clone();
            let cpu = cpus.get(thread).copied();
            let worker = std::thread::Builder::new()
                .name(format!("cpu-pool-{thread}"))
                .spawn(move || {
                    let pinned = pin(thread, cpu).map(drop);
                    let usable = pinned.is_ok();
                    let _ = tell.send(pinned);
                    drop(tell);
                    if usable {
                        serve(&shared, thread);
                    }
                })
                .map_err(|source| PoolError::Spawn { thread, source })?;
            pool.workers.push(worker);
        }
        drop(tell);
        for pinned in told {
            pinned?;
        }
        pool.restore = pin(0, cpus.first().copied())?;
        Ok(pool)
    }

    /// Number of threads, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Calls `job(thread, threads)` once on every thread and returns when all are done.
    ///
    /// # Errors
    /// [`PoolError::Panicked`] if the job panicked anywhere; the pool stays usable.
    pub fn run(&mut self, job: impl Fn(usize, usize) + Sync) -> Result<(), PoolError> {
        let shared = &*self.shared;
        let threads = shared.threads;
        if threads > 1 {
            let job: &Job<'_> = &job;
            // SAFETY: only the lifetime is erased. `run` does not return, by value or by unwinding
            // (the caller's own panic is caught below), before `pending` is 0, and after that no
            // worker uses the pointer.
            let job = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
            *lock(&shared.caller) = Some(std::thread::current());
            shared.pending.store(threads - 1, Ordering::Relaxed);
            // SAFETY: no worker runs between two jobs, so nobody reads the slot now.
            unsafe { *shared.job.0.get() = Some(job) };
            shared.epoch.fetch_add(1, Ordering::Release);
            for worker in &self.workers {
                worker.thread().unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0, threads)));
        wait_until(|| shared.pending.load(Ordering::Acquire) == 0);
        let others = lock(&shared.panic).take();
        match (own, others) {
            (Err(payload), _) => Err(PoolError::Panicked {
                thread: 0,
                message: message(&*payload),
            }),
            (Ok(()), Some((thread, message))) => Err(PoolError::Panicked { thread, message }),
            (Ok(()), None) => Ok(()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches every panic of a job, so there is nothing to learn from its end.
            let _ = worker.join();
        }
        if let Some(saved) = self.restore.take() {
            affinity::restore(saved);
        }
    }
}

/// A worker's life: wait for an epoch, run its job, report, repeat.
fn serve(shared: &Shared, thread: usize) {
    let mut seen = 0;
    loop {
        wait_until(|| shared.epoch.load(Ordering::Acquire) != seen);
        seen = shared.epoch.load(Ordering::Acquire);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the epoch was published after the slot was written, and the slot is not written
        // again before this worker has lowered `pending`.
        let job = unsafe { *shared.job.0.get() };
        if let Some(job) = job {
            // SAFETY: `run` keeps the job alive until `pending` is 0, which needs this worker.
            let job = unsafe { &*job };
            let done = catch_unwind(AssertUnwindSafe(|| job(thread, shared.threads)));
            if let Err(payload) = done {
                lock(&shared.panic).get_or_insert((thread, message(&*payload)));
            }
        }
        let caller = lock(&shared.caller).clone();
        if shared.pending.fetch_sub(1, Ordering::Release) == 1
            && let Some(caller) = caller
        {
            caller.unpark();
        }
    }
}

/// Spins for a moment, then sleeps between wake-ups until `ready` holds.
fn wait_until(ready: impl Fn() -> bool) {
    for _ in 0..SPINS {
        if ready() {
            return;
        }
        std::hint::spin_loop();
    }
    while !ready() {
        std::thread::park();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No job runs under these locks, so a poisoned one still holds a whole value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

fn pin(thread: usize, cpu: Option<usize>) -> Result<Option<affinity::Saved>, PoolError> {
    cpu.map(|cpu| {
        affinity::pin(cpu).map_err(|source| PoolError::Pin {
            thread,
            cpu,
            source,
        })
    })
    .transpose()
}

#[cfg(target_os = "linux")]
mod affinity {
    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
    use std::io::{Error, ErrorKind};

    /// Whose affinity was changed, and what it was.
    pub struct Saved(Pid, CpuSet);

    pub fn pin(cpu: usize) -> Result<Saved, Error> {
        if cpu >= CpuSet::MAX_CPU {
            return Err(Error::new(ErrorKind::InvalidInput, "no such processor"));
        }
        let thread = gettid();
        let before = sched_getaffinity(Some(thread))?;
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(Some(thread), &only)?;
        Ok(Saved(thread, before))
    }

    pub fn restore(saved: Saved) {
        // The thread may have ended since; then there is nothing left to restore.
        let _ = sched_setaffinity(Some(saved.0), &saved.1);
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    /// Nothing was changed, so nothing is kept.
    pub struct Saved;

    pub fn pin(_cpu: usize) -> Result<Saved, std::io::Error> {
        Ok(Saved)
    }

    pub fn restore(_saved: Saved) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    #[test]
    fn every_thread_runs_every_job_exactly_once() {
        for threads in [1, 2, 3, 7] {
            let mut pool = Pool::new(threads, &[]).unwrap();
            let counts: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
            for _ in 0..2_000 {
                pool.run(|thread, of| {
                    assert_eq!(of, threads);
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
            }
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 2_000)
            );
        }
    }

    #[test]
    fn sleeping_workers_wake_for_the_next_job() {
        let mut pool = Pool::new(2, &[]).unwrap();
        let count = AtomicU32::new(0);
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(3));
            pool.run(|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        }
        assert_eq!(count.load(Ordering::Relaxed), 40);
    }

    #[test]
    fn a_panic_on_any_thread_is_an_error_and_the_pool_goes_on() {
        let mut pool = Pool::new(3, &[]).unwrap();
        for bad in 0..3 {
            let failed = pool
                .run(|thread, _| assert_ne!(thread, bad, "deliberate"))
                .unwrap_err();
            let PoolError::Panicked { thread, message } = failed else {
                panic!("{failed}")
            };
            assert_eq!(thread, bad);
            assert!(message.contains("deliberate"), "{message}");
            pool.run(|_, _| {}).unwrap();
        }
    }

    #[test]
    fn zero_threads_and_too_few_processors_are_refused() {
        assert!(matches!(Pool::new(0, &[]), Err(PoolError::NoThreads)));
        assert!(matches!(
            Pool::new(2, &[0]),
            Err(PoolError::TooFewCpus {
                threads: 2,
                cpus: 1
            })
        ));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_sit_on_their_processors_and_the_caller_is_restored() {
        use rustix::thread::sched_getaffinity;
        let before = sched_getaffinity(None).unwrap();
        let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|&cpu| before.is_set(cpu))
            .take(2)
            .collect();
        let mut pool = Pool::new(cpus.len(), &cpus).unwrap();
        pool.run(|thread, _| {
            let now = sched_getaffinity(None).unwrap();
            assert_eq!(now.count(), 1);
            assert!(now.is_set(cpus[thread]));
        })
        .unwrap();
        drop(pool);
        assert!(sched_getaffinity(None).unwrap() == before);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_processor_that_does_not_exist_is_named() {
        let refused = Pool::new(2, &[0, 1_023]).map(drop).unwrap_err().to_string();
        assert!(
            refused.contains("thread 1 cannot be pinned to processor 1023"),
            "{refused}"
        );
    }
}
