//! Agents by Kubernetes: a Job with one pod on each node, by the system's `kubectl`.
//!
//! It decides in which order things are created: first the Job, whose pods wait for their invitations, then what belongs
//! to it, so that a cluster that removes the Job removes the invitations too. It watches the pods, tells why one does not
//! start, and removes everything when it ends, however that is; only a killed controller leaves the Job, which ends by
//! itself, as its agents do, and is removed an hour later. What a cluster is asked for: [`manifest`].

use super::agents::{Agents, Seat};
use super::{Hall, ask::AskError};
use crate::clock;
use crate::controller::{Launched, desk};
use crate::exit::Failure;
use crate::protocol::authority::Credentials;
use crate::topology;
use hallmark_profiles::site::{Kubernetes, LoadedSite};
use kubectl::Kubectl;
use manifest::Order;
use pods::{News, Pods};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub mod jobset;
pub mod kubectl;
pub mod manifest;
pub mod nodes;
pub mod pods;

/// Between two questions about the pods, and two looks at whether that is still wanted.
const ASK: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// Stands where an invitation will be, in what is shown and kept.
const PLACEHOLDER: &str = "made when the run starts, given to the cluster alone, and shown nowhere";
/// Digits of a drawn name.
const DRAWN: usize = 12;

/// The site's wish for pods.
///
/// # Errors
/// [`Failure`] with exit 2: the site file says none.
pub fn asked(site: &LoadedSite) -> Result<&Kubernetes, Failure> {
    let asked = site.site.kubernetes.as_ref();
    asked.ok_or_else(|| Failure::usage("the site file has no table [kubernetes]"))
}

/// What a cluster would be asked for, with placeholders instead of secrets.
///
/// # Errors
/// [`Failure`]: it cannot be written as JSON.
pub fn shown(order: &Order) -> Result<String, Failure> {
    let placeholder = |_: usize, _: &str| Ok::<String, serde_json::Error>(PLACEHOLDER.to_owned());
    let objects = manifest::all(order, placeholder).map_err(Failure::broken)?;
    let mut text =
        serde_json::to_string_pretty(&manifest::list(&objects)).map_err(Failure::broken)?;
    text.push('\n');
    Ok(text)
}

/// A name for the objects of one run, which no other has.
pub fn draw_name() -> String {
    let drawn = desk::session();
    format!("hallmark-{}", drawn.get(..DRAWN).unwrap_or(&drawn))
}

/// Creates the objects of a run, and keeps what was asked for, less its secrets, in `file`.
///
/// # Errors
/// [`Failure`]: kubectl is not here, or the cluster does not take them; nothing is left there.
pub fn start(hall: &Hall, order: &Order, file: &Path) -> Result<Box<dyn Launched>, Failure> {
    let unwritten =
        |e: std::io::Error| Failure::broken(format!("cannot write {}: {e}", file.display()));
    std::fs::write(file, shown(order)?).map_err(unwritten)?;
    let kubectl = Kubectl::new(order.asked, order.name, manifest::kinds(order.asked));
    // From here on all of it is removed whatever happens.
    let mut run = InCluster {
        kubectl: kubectl.clone(),
        watched: Arc::new(Watched::default()),
        removed: false,
    };
    let refused = |e: AskError| Failure::broken(format!("the cluster does not take the run: {e}"));
    let workload = manifest::workload(order).map_err(Failure::broken)?;
    let created = kubectl.create(&workload).map_err(refused)?;
    let owner = manifest::owner(&created);
    let cores = topology::cores();
    let beside = manifest::beside(order, owner.as_ref(), |index, _| {
        invitation(hall, index, &cores).map_err(Unmade)
    });
    let beside = beside.map_err(|unmade| unmade.0)?;
    kubectl
        .create_quietly(&manifest::list(&beside))
        .map_err(refused)?;
    let limit_s = order.asked.start_limit().as_secs();
    let pods = Pods::new(hall.nodes.iter().copied(), clock::monotonic_ns(), limit_s);
    run.watch(pods);
    Ok(Box::new(run))
}

/// An invitation that could not be made.
struct Unmade(Failure);

impl From<serde_json::Error> for Unmade {
    fn from(error: serde_json::Error) -> Self {
        Self(Failure::broken(error))
    }
}

fn invitation(hall: &Hall, index: usize, cores: &[usize]) -> Result<String, Failure> {
    let own = Seat::own_machine();
    let seat = match hall.rehearsal {
        true => Seat::share(own.folder, cores, hall.nodes.len(), index),
        false => own,
    };
    let invitation = Agents::invitation(hall, index, seat)?;
    serde_json::to_string(&invitation).map_err(Failure::broken)
}

/// What the thread that asks for the pods has heard.
#[derive(Default)]
struct Watched {
    ended: Mutex<Vec<(usize, String)>>,
    told: Mutex<Vec<String>>,
    enough: AtomicBool,
}

impl Watched {
    fn hear(&self, news: News) {
        lock(&self.ended).extend(news.ended);
        lock(&self.told).extend(news.told);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that a run has in its cluster.
struct InCluster {
    kubectl: Kubectl,
    watched: Arc<Watched>,
    removed: bool,
}

impl InCluster {
    /// A cluster that is slow to answer must not hold up the run, so a thread of its own asks it.
    fn watch(&mut self, mut pods: Pods) {
        let (kubectl, watched) = (self.kubectl.clone(), Arc::clone(&self.watched));
        std::thread::spawn(move || {
            let mut complained = String::new();
            while !watched.enough.load(Ordering::Acquire) {
                let answer = kubectl.pods().map_err(|e| e.to_string());
                let now_ns = clock::monotonic_ns();
                let taken = answer.and_then(|answer| pods.take(&answer, now_ns));
                let news = taken.unwrap_or_else(|error| {
                    let is_news = complained != error;
                    complained.clone_from(&error);
                    News {
                        ended: pods.late(now_ns),
                        told: is_news.then(|| format!("nothing is learnt of the pods: {error}")),
                    }
                });
                watched.hear(news);
                for _ in 0..ASK.as_millis() / LOOK.as_millis() {
                    if !watched.enough.load(Ordering::Acquire) {
                        clock::sleep(LOOK);
                    }
                }
            }
        });
    }

    fn remove(&mut self) -> bool {
        self.watched.enough.store(true, Ordering::Release);
        if std::mem::replace(&mut self.removed, true) {
            return true;
        }
        let removed = self.kubectl.delete();
        if let Err(error) = &removed {
            let by_hand = self.kubectl.by_hand();
            eprintln!(
                "hallmark: {error}; what the run has in the cluster may still be there: {by_hand}"
            );
        }
        removed.is_ok()
    }
}

impl Launched for InCluster {
    fn ended(&mut self) -> Vec<(usize, String)> {
        std::mem::take(&mut *lock(&self.watched.ended))
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.watched.told))
    }

    /// A pod that has ended is not made anew: its log has gone with it.
    fn again(&mut self, _node: usize, _credentials: Credentials, _token: String) -> bool {
        false
    }

    /// The cluster ends what is left of the agents once it is told so.
    fn end(&mut self, _patience: Duration) -> bool {
        self.remove()
    }
}

impl Drop for InCluster {
    fn drop(&mut self) {
        self.remove();
    }
}
