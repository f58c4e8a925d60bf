//! Decides which steps are queued as one CUDA graph, and how a graph serves steps that audit different matmuls.
//!
//! A step that reduces nothing is captured beforehand, once for each set of events and each turn of the operand
//! pairs, with every audit in it; before a launch the audits that the step does not want are switched off. A
//! step whose buckets go through the host is queued kernel by kernel, since the host takes part in it. Refuses
//! more graphs than [`GRAPHS_MAX`] for one step: then kernels are queued one by one, and the record says so.

use super::course::Course;
use super::driver::Graphs as Calls;
use super::gpu::{Gpu, SETUP_LIMIT, Stream};
use super::layout::SLOTS;
use super::rig::{Into, Rig};
use crate::error::KernelError;
use crate::work::Submission;
use cudarc::driver::sys::{
    CUgraph, CUgraphExec, CUgraphNode, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use hallmark_profiles::workload::{Parts, StepSpec};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Graphs kept for one combination of parts.
const GRAPHS_MAX: u64 = 64;

/// What distinguishes one graph of a step from another: parts as bits, and the turn of slots and pairs.
type Key = (u8, u64);

/// The graphs of a step.
pub(super) struct Graphs {
    gpu: Arc<Gpu>,
    ready: BTreeMap<Key, Mutex<Graph>>,
    turns: u64,
}

/// One captured step.
struct Graph {
    exec: CUgraphExec,
    graph: CUgraph,
    /// Of each matmul: the nodes of its audit, and whether they are on.
    audits: Vec<(Vec<CUgraphNode>, bool)>,
}

// SAFETY: a graph's handles may be used from any thread, one at a time, which the mutex around it sees to.
unsafe impl Send for Graph {}

/// Nodes noted while a step is captured.
pub(super) struct Captured {
    gpu: Arc<Gpu>,
    /// By matmul.
    nodes: Vec<Vec<CUgraphNode>>,
}

impl Captured {
    /// Notes the node that was just put into the graph as one of `gemm`'s audit.
    pub fn note(&mut self, stream: &Stream, gemm: usize) -> Result<(), KernelError> {
        let calls = calls(&self.gpu)?;
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut id, mut graph) = (0_u64, std::ptr::null_mut());
        let mut last: *const CUgraphNode = std::ptr::null();
        let mut count = 0_usize;
        // SAFETY: everything is written to locals; `last` points into the driver's list of what the next node will
        // depend on, valid until the stream is used again.
        let node = unsafe {
            let code = (calls.cuStreamGetCaptureInfo_v2)(
                stream.handle,
                &raw mut status,
                &raw mut id,
                &raw mut graph,
                &raw mut last,
                &raw mut count,
            );
            self.gpu.ok(code, "ask for a node of a graph")?;
            (count == 1 && !last.is_null()).then(|| *last)
        };
        let Some(node) = node else {
            return Err(self.gpu.refuse(format!(
                "a graph's audit has {count} nodes to depend on, not one"
            )));
        };
        if let Some(nodes) = self.nodes.get_mut(gemm) {
            nodes.push(node);
        }
        Ok(())
    }
}

fn calls(gpu: &Gpu) -> Result<&Calls, KernelError> {
    let known = gpu.driver.graphs.as_ref();
    known.ok_or_else(|| gpu.refuse("its driver has no graphs"))
}

/// Steps after which slots and operand pairs come round together.
fn turns(pairs: u32) -> u64 {
    let (slots, pairs) = (SLOTS as u64, u64::from(pairs.max(1)));
    let common = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    slots / common(slots, pairs) * pairs
}

const fn bits(parts: Parts) -> u8 {
    parts.gemms as u8
        | (parts.buckets as u8) << 1
        | (parts.optimizer as u8) << 2
        | (parts.memory as u8) << 3
}

/// The combinations of parts that a run asks of a step without its buckets.
fn combinations(spec: &StepSpec) -> Vec<Parts> {
    let parts = |gemms, optimizer, memory| Parts {
        gemms,
        buckets: false,
        optimizer,
        memory,
        within_node: false,
    };
    let (gemms, state) = (!spec.gemms.is_empty(), spec.parameters > 0);
    let mut all = Vec::new();
    if gemms {
        all.push(parts(true, false, false));
    }
    if gemms && state {
        all.push(parts(true, true, false));
    }
    if spec.memory.0 > 0 {
        all.push(parts(false, false, true));
    }
    all
}

/// Queues every kernel of the step once: the driver loads a kernel when it is first launched, which must not happen
/// while a graph is being captured.
fn warm(rig: &Rig) -> Result<(), KernelError> {
    let audited = StepSpec {
        audit_share: 1.0,
        ..rig.spec.clone()
    };
    for parts in combinations(&rig.spec) {
        let submission = Submission {
            seq: 0,
            parts,
            stop: false,
        };
        let course = Course::new(&audited, &rig.layout, submission, false);
        rig.head(&course, 0, &mut Into::Queue)?;
        rig.tail(&course, 0, &Into::Queue)?;
    }
    rig.gpu.finish(&rig.stream, SETUP_LIMIT)
}

impl Graphs {
    pub fn none(gpu: &Arc<Gpu>) -> Self {
        Self {
            gpu: Arc::clone(gpu),
            ready: BTreeMap::new(),
            turns: 1,
        }
    }

    /// Captures every step of the rig that can be captured; what the record has to say about it.
    pub fn capture(rig: &mut Rig) -> Result<String, KernelError> {
        let turns = turns(rig.layout.pairs);
        if rig.gpu.driver.graphs.is_none() {
            return Ok("none: the driver lacks functions for graphs".to_owned());
        }
        if turns > GRAPHS_MAX {
            return Ok(format!(
                "none: {} operand pairs would need {turns} of them, {GRAPHS_MAX} are kept",
                rig.layout.pairs
            ));
        }
        warm(rig)?;
        let mut ready = BTreeMap::new();
        for parts in combinations(&rig.spec) {
            for turn in 0..turns {
                let submission = Submission {
                    seq: turn,
                    parts,
                    stop: false,
                };
                let course = Course::new(&rig.spec, &rig.layout, submission, false);
                let graph = Graph::capture(rig, &course, (turn % SLOTS as u64) as usize)?;
                ready.insert((bits(parts), turn), Mutex::new(graph));
            }
        }
        rig.gpu.finish(&rig.stream, SETUP_LIMIT)?;
        let count = ready.len();
        rig.graphs = Self {
            gpu: Arc::clone(&rig.gpu),
            ready,
            turns,
        };
        Ok(format!(
            "{count}, for steps whose buckets do not pass through the host"
        ))
    }

    /// Queues the step as its graph; false where there is none.
    pub fn launch(
        &self,
        stream: &Stream,
        course: &Course,
        slot: usize,
    ) -> Result<bool, KernelError> {
        if course.stop.is_some() {
            return Ok(false);
        }
        let parts = Parts {
            buckets: false,
            ..course.parts
        };
        let turn = course.seq % self.turns;
        let Some(graph) = self.ready.get(&(bits(parts), turn)) else {
            return Ok(false);
        };
        if turn % SLOTS as u64 != slot as u64 {
            return Ok(false);
        }
        let calls = calls(&self.gpu)?;
        let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
        graph.choose(&self.gpu, calls, course)?;
        // SAFETY: the graph is whole and its arrays are held by the rig.
        let status = unsafe { (calls.cuGraphLaunch)(graph.exec, stream.handle) };
        self.gpu.ok(status, "queue a step")?;
        Ok(true)
    }
}

impl Graph {
    fn capture(rig: &Rig, course: &Course, slot: usize) -> Result<Self, KernelError> {
        let gpu = &rig.gpu;
        let calls = calls(gpu)?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: nothing is being captured on the stream, which belongs to this thread while a step is prepared.
        let status = unsafe { (calls.cuStreamBeginCapture_v2)(rig.stream.handle, mode) };
        gpu.ok(status, "begin to capture a step")?;
        let mut captured = Captured {
            gpu: Arc::clone(gpu),
            nodes: vec![Vec::new(); rig.spec.gemms.len()],
        };
        let mut into = Into::Graph(&mut captured);
        let put = rig
            .head(course, slot, &mut into)
            .and_then(|()| rig.tail(course, slot, &into));
        let mut graph: CUgraph = std::ptr::null_mut();
        // SAFETY: ends what was begun, also after an error, so that the stream can be used again.
        let status = unsafe { (calls.cuStreamEndCapture)(rig.stream.handle, &raw mut graph) };
        put?;
        gpu.ok(status, "capture a step")?;
        let mut exec: CUgraphExec = std::ptr::null_mut();
        // SAFETY: the graph was just made; the handle is written to a local.
        let status = unsafe { (calls.cuGraphInstantiateWithFlags)(&raw mut exec, graph, 0) };
        let made = Self {
            exec,
            graph,
            audits: captured.nodes.into_iter().map(|n| (n, true)).collect(),
        };
        gpu.ok(status, "make a graph of a step")?;
        // SAFETY: sends the graph to the device, so that its first launch costs no more than the others.
        let status = unsafe { (calls.cuGraphUpload)(made.exec, rig.stream.handle) };
        gpu.ok(status, "send a graph to the device")?;
        Ok(made)
    }

    /// Switches each audit on or off as the step wants it. Launches that are queued already keep theirs.
    fn choose(&mut self, gpu: &Gpu, calls: &Calls, course: &Course) -> Result<(), KernelError> {
        for (gemm, (nodes, on)) in self.audits.iter_mut().enumerate() {
            let wanted = course.audits(gemm);
            if wanted == *on {
                continue;
            }
            for &node in nodes.iter() {
                // SAFETY: the node is one of the graph that `exec` was made of.
                let status =
                    unsafe { (calls.cuGraphNodeSetEnabled)(self.exec, node, wanted.into()) };
                gpu.ok(status, "choose the audits of a step")?;
            }
            *on = wanted;
        }
        Ok(())
    }
}

impl Drop for Graphs {
    fn drop(&mut self) {
        let Some(calls) = self.gpu.driver.graphs.as_ref() else {
            return;
        };
        if self.gpu.is_lost() {
            return;
        }
        for graph in self.ready.values_mut() {
            let graph = graph.get_mut().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: made by this value; nothing of it is queued once a step is given back.
            unsafe {
                (calls.cuGraphExecDestroy)(graph.exec);
                (calls.cuGraphDestroy)(graph.graph);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_pairs_come_round_together() {
        assert_eq!(turns(16), 16);
        assert_eq!(turns(1), 8);
        assert_eq!(turns(3), 24);
        assert!(turns(17) > GRAPHS_MAX);
        for pairs in 1..40_u32 {
            let turns = turns(pairs);
            assert_eq!((turns % SLOTS as u64, turns % u64::from(pairs)), (0, 0));
        }
    }
}
