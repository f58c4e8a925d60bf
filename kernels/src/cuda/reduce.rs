//! Decides how ranks that share one device reduce: their buffers, the one launch that holds them all, and the check.
//!
//! The kernels are those between devices. Every total is compared on the device with the sum that the generator gives,
//! and small ones on the host once more. Times are the device's, from event to event with a queue that is kept full.
//! Refuses more ranks than the device can hold at once, for they would wait for each other for ever.

use super::arrays::Arrays;
use super::gpu::{Arguments, Event, Gpu, Memory, Pinned, SETUP_LIMIT, Shape, Stream};
use super::module::{Kernel, Modules, Source};
use crate::collective::exact;
use crate::collective::within::{
    Element, Inject, ONE_SHOT_MAX, RANKS_MAX, Shots, Within, WithinDone,
};
use crate::error::KernelError;
use core::ffi::c_void;
use hallmark_profiles::units::Bytes;
use std::sync::Arc;

/// Threads of a block.
const THREADS: u32 = 256;
/// Between the buffers of two ranks.
const ALIGN: u64 = 512;
/// Bytes of one block's flags; the contract's 32 words.
const FLAG_BYTES: u64 = 128;
/// Longest wait of a rank for another, which here was started with it.
const WAIT_NS: u64 = 1_000_000_000;
/// The same where one is known to stay away.
const ABSENT_WAIT_NS: u64 = 20_000_000;
/// Calls that are queued before the queue is waited for; it holds about a thousand.
const QUEUE_CALLS: usize = 640;
/// For each of them the device is kept busy beforehand, so that no time holds the host's own.
const QUEUE_NS: u64 = 8_000;
/// Wrong elements that are recorded.
const ROOM: u32 = 8;
/// Up to this much of every rank is compared on the host as well.
const HOST_BYTES: u64 = 1 << 20;

/// As `struct Peer` of the source.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Peer {
    input: u64,
    output: u64,
    stage: u64,
    flags: u64,
    status: u64,
}

/// As `struct Group` of the source.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Group {
    peer: [Peer; RANKS_MAX as usize],
    limit_ns: u64,
    ranks: u32,
    first: u32,
    blocks: u32,
    room: u32,
}

struct Kernels {
    reduce: Kernel,
    fill: Kernel,
    check: Kernel,
    copy: Kernel,
    spin: Kernel,
    flip: Kernel,
}

impl Kernels {
    fn new(modules: &Modules, element: Element, shots: Shots) -> Result<Self, KernelError> {
        let module = modules.get(Source::Reduce)?;
        let step = modules.get(Source::Step)?;
        let [reduce, fill, check] = entries(element, shots);
        Ok(Self {
            reduce: module.kernel(&reduce)?,
            fill: module.kernel(&fill)?,
            check: module.kernel(&check)?,
            copy: step.kernel("copy")?,
            spin: step.kernel("spin")?,
            flip: step.kernel("flip")?,
        })
    }
}

/// Names of the kernels that reduce, fill and check.
fn entries(element: Element, shots: Shots) -> [String; 3] {
    let way = match shots {
        Shots::One => "one",
        Shots::Two => "two",
    };
    let name = element.name();
    [
        format!("all_reduce_{way}_{name}"),
        format!("rank_fill_{name}"),
        format!("rank_check_{name}"),
    ]
}

/// Everything that the reductions of one kind touch.
struct Bench<'a> {
    gpu: &'a Arc<Gpu>,
    ask: Within,
    kernels: Kernels,
    stream: Stream,
    inputs: Memory,
    outputs: Option<Memory>,
    status: Memory,
    faults: Memory,
    keys: Memory,
    keys_up: Pinned,
    group: Group,
    /// Distance between the buffers of two ranks.
    stride: u64,
    batch: usize,
    /// Three for each reduction of a batch.
    events: Vec<Event>,
    /// Given back after the stream, which may still use them.
    _held: [Memory; 2],
}

/// Reduces as asked.
pub(super) fn within(
    gpu: &Arc<Gpu>,
    modules: &Modules,
    ask: &Within,
) -> Result<WithinDone, KernelError> {
    refuse(ask).map_err(|why| gpu.refuse(why))?;
    let kernels = Kernels::new(modules, ask.element, ask.shots)?;
    let bench = Bench::new(gpu, *ask, kernels)?;
    let mut done = WithinDone {
        blocks: bench.group.blocks,
        ..WithinDone::default()
    };
    let iterations = if ask.inject == Inject::Absent {
        1
    } else {
        ask.iterations
    };
    let mut next = 0;
    while next < iterations && done.waited_for.is_empty() {
        let end = iterations.min(next + bench.batch as u32);
        bench.run(next, end, iterations, &mut done)?;
        next = end;
    }
    bench.close(iterations, &mut done)?;
    Ok(done)
}

/// What is wrong with what was asked.
fn refuse(ask: &Within) -> Result<(), String> {
    let Within { ranks, bytes, .. } = *ask;
    if !(2..=RANKS_MAX).contains(&ranks) {
        return Err(format!(
            "{ranks} ranks asked for, an all-reduce within a device takes 2 to {RANKS_MAX}"
        ));
    }
    if bytes.0 == 0 || !bytes.0.is_multiple_of(ask.element.bytes()) {
        return Err(format!(
            "{} B are no whole number of {} elements, at least one",
            bytes.0,
            ask.element.name()
        ));
    }
    if ask.shots == Shots::One && bytes > ONE_SHOT_MAX {
        return Err(format!(
            "{bytes} in one shot, which takes up to {ONE_SHOT_MAX}; use two"
        ));
    }
    if ask.iterations == 0 {
        return Err("no reductions were asked for; ask for at least one".to_owned());
    }
    Ok(())
}

/// Blocks of each rank, of those that the device can hold at once; `None` where they are too few for all ranks.
fn blocks(ask: &Within, resident: u32) -> Option<u32> {
    let most = resident / ask.ranks;
    let threads = match ask.shots {
        Shots::One => ask.bytes.0.div_ceil(4),
        Shots::Two => (ask.bytes.0 / 16).div_ceil(u64::from(ask.ranks)),
    };
    let wanted = u32::try_from(threads.div_ceil(u64::from(THREADS))).unwrap_or(u32::MAX);
    (most > 0).then(|| wanted.clamp(1, most))
}

fn pointer<T>(to: &T) -> *mut c_void {
    std::ptr::from_ref(to).cast_mut().cast()
}

impl<'a> Bench<'a> {
    fn new(gpu: &'a Arc<Gpu>, ask: Within, kernels: Kernels) -> Result<Self, KernelError> {
        let resident = gpu.resident(kernels.reduce.function, THREADS)?;
        let Some(blocks) = blocks(&ask, resident) else {
            return Err(gpu.refuse(format!(
                "{} ranks do not fit at once: it holds {resident} blocks; use fewer ranks",
                ask.ranks
            )));
        };
        let ranks = u64::from(ask.ranks);
        let stride = ask.bytes.0.next_multiple_of(ALIGN);
        let room = match ask.shots {
            Shots::One => ask.bytes.0.div_ceil(4) as u32,
            Shots::Two => 0,
        };
        let stage_bytes = 2 * ranks * u64::from(room) * 8;
        let flag_bytes = FLAG_BYTES * u64::from(blocks);
        let buffers = if ask.in_place { 1 } else { 2 };
        let need = Bytes(buffers * ranks * stride + ranks * (stage_bytes + flag_bytes));
        let free = gpu.free()?;
        if need > free {
            return Err(KernelError::Memory {
                device: gpu.id.clone(),
                free,
                need,
            });
        }
        let calls = ask.ranks as usize + 6;
        let batch = (QUEUE_CALLS / calls).clamp(1, ask.iterations as usize);
        let key_bytes = batch as u64 * ranks * 4;
        let events = (0..3 * batch).map(|_| gpu.event());
        let mut bench = Self {
            stream: gpu.stream()?,
            inputs: gpu.memory(ranks * stride)?,
            outputs: match ask.in_place {
                true => None,
                false => Some(gpu.memory(ranks * stride)?),
            },
            status: gpu.memory(ranks * 4)?,
            faults: gpu.memory(16 + 16 * u64::from(ROOM))?,
            keys: gpu.memory(key_bytes)?,
            keys_up: gpu.pinned(key_bytes)?,
            group: Group {
                limit_ns: match ask.inject {
                    Inject::Absent => ABSENT_WAIT_NS,
                    _ => WAIT_NS,
                },
                ranks: ask.ranks,
                blocks,
                room,
                ..Group::default()
            },
            events: events.collect::<Result<_, _>>()?,
            _held: [
                gpu.memory(ranks * stage_bytes)?,
                gpu.memory(ranks * flag_bytes)?,
            ],
            gpu,
            ask,
            kernels,
            stride,
            batch,
        };
        bench.lay_out(stage_bytes, flag_bytes)?;
        Ok(bench)
    }

    /// Where each rank's memory lies; all of it begins as zeros.
    fn lay_out(&mut self, stage_bytes: u64, flag_bytes: u64) -> Result<(), KernelError> {
        let output = self.outputs.as_ref().map_or(self.inputs.at, |o| o.at);
        let [stage, flags] = &self._held;
        let ranks = (0_u64..).zip(&mut self.group.peer);
        for (rank, peer) in ranks.take(self.ask.ranks as usize) {
            *peer = Peer {
                input: self.inputs.at + rank * self.stride,
                output: output + rank * self.stride,
                stage: stage.at + rank * stage_bytes,
                flags: flags.at + rank * flag_bytes,
                status: self.status.at + rank * 4,
            };
        }
        let all = [Some(&self.inputs), self.outputs.as_ref()];
        let rest = [stage, flags, &self.status, &self.faults];
        for memory in all.into_iter().flatten().chain(rest) {
            self.stream.zero(memory, 0, memory.bytes)?;
        }
        self.gpu.finish(&self.stream, SETUP_LIMIT)
    }

    fn count(&self) -> u64 {
        self.ask.bytes.0 / self.ask.element.bytes()
    }

    fn key(&self, rank: u32, iteration: u32) -> u32 {
        exact::key(self.ask.seed, rank, iteration.into())
    }

    /// Queues reductions `from` to `end` behind each other, waits for them and reads what they came to.
    fn run(
        &self,
        from: u32,
        end: u32,
        iterations: u32,
        done: &mut WithinDone,
    ) -> Result<(), KernelError> {
        let ranks = 0..self.ask.ranks;
        let keys = (from..end).flat_map(|i| ranks.clone().map(move |rank| self.key(rank, i)));
        let keys: Vec<u32> = keys.collect();
        let bytes: &[u8] = bytemuck::cast_slice(&keys);
        // SAFETY: the batch before has ended.
        unsafe { self.keys_up.write(bytes) };
        self.stream
            .up(&self.keys_up, &self.keys, bytes.len() as u64)?;
        let calls = (end - from) as u64 * u64::from(self.ask.ranks + 6);
        let spin = Arguments::new(&[calls * QUEUE_NS]);
        self.stream.launch(
            self.kernels.spin.function,
            Shape::new(1, 1),
            &spin,
            "keep the queue",
        )?;
        for (place, iteration) in (from..end).enumerate() {
            self.one(place, iteration, iteration + 1 == iterations)?;
        }
        self.gpu.finish(&self.stream, SETUP_LIMIT)?;
        self.take_waits(done)?;
        for place in 0..(end - from) as usize {
            let [start, middle, end] = [0, 1, 2].map(|e| &self.events[3 * place + e]);
            done.reduce_ns.push(end.since_ns(middle)?);
            if self.outputs.is_some() {
                done.copy_ns.push(middle.since_ns(start)?);
            }
        }
        Ok(())
    }

    /// Queues one reduction with fresh inputs, its events and its check.
    fn one(&self, place: usize, iteration: u32, last: bool) -> Result<(), KernelError> {
        let stream = &self.stream;
        let count = self.count();
        let shift = self.ask.element.shift(self.ask.ranks);
        let spread = Shape::new(Arrays::blocks(self.gpu, count), THREADS);
        for rank in 0..self.ask.ranks {
            let at = self.group.peer[rank as usize].input;
            let key = self.key(rank, iteration);
            let arguments = Arguments::new(&[at, count, key.into(), shift.into()]);
            stream.launch(
                self.kernels.fill.function,
                spread,
                &arguments,
                "fill an input",
            )?;
        }
        stream.record(&self.events[3 * place])?;
        if let Some(outputs) = &self.outputs {
            // A total left over from before cannot pass, and this is what a reduction's rate is held against.
            let lines = outputs.bytes / 16;
            let arguments = Arguments::new(&[self.inputs.at, outputs.at, lines]);
            let shape = Shape::new(Arrays::blocks(self.gpu, lines), THREADS);
            stream.launch(self.kernels.copy.function, shape, &arguments, "copy")?;
        }
        stream.record(&self.events[3 * place + 1])?;
        self.reduce(iteration + 1)?;
        stream.record(&self.events[3 * place + 2])?;
        if last && self.ask.inject == Inject::Bit {
            self.flip()?;
        }
        self.check(place, count, shift, spread)
    }

    fn reduce(&self, turn: u32) -> Result<(), KernelError> {
        let started = match self.ask.inject {
            Inject::Absent => self.ask.ranks - 1,
            _ => self.ask.ranks,
        };
        let shape = Shape::new(started * self.group.blocks, THREADS);
        let bytes = self.ask.bytes.0;
        let mut pointers = [pointer(&self.group), pointer(&bytes), pointer(&turn)];
        let function = self.kernels.reduce.function;
        self.stream
            .launch_together(function, shape, &mut pointers, "reduce within the device")
    }

    fn check(&self, place: usize, count: u64, shift: u32, shape: Shape) -> Result<(), KernelError> {
        let held = self.ask.ranks;
        let keys = self.keys.at + place as u64 * u64::from(held) * 4;
        let mut pointers = [
            pointer(&self.group),
            pointer(&held),
            pointer(&count),
            pointer(&keys),
            pointer(&shift),
            pointer(&self.faults.at),
            pointer(&ROOM),
        ];
        let function = self.kernels.check.function;
        self.stream
            .launch_at(function, shape, &mut pointers, "check totals")
    }

    /// Flips one bit of the last rank's total: in its last element, in a place that the seed names.
    fn flip(&self) -> Result<(), KernelError> {
        let bytes = self.ask.element.bytes();
        let last = self.group.peer[self.ask.ranks as usize - 1].output;
        let at = last + self.ask.bytes.0 - bytes;
        let bit = self.ask.seed % (8 * bytes) + 8 * (at % 4);
        let arguments = Arguments::new(&[at - at % 4, 0, bit]);
        let function = self.kernels.flip.function;
        self.stream
            .launch(function, Shape::new(1, 1), &arguments, "flip a bit")
    }

    fn words(&self, from: &Memory) -> Result<Vec<u32>, KernelError> {
        let read = self.gpu.pinned(from.bytes)?;
        self.stream.down(from, 0, &read, 0, from.bytes)?;
        self.gpu.finish(&self.stream, SETUP_LIMIT)?;
        // SAFETY: the copy has ended.
        Ok(bytemuck::pod_collect_to_vec(unsafe { read.bytes() }))
    }

    fn take_waits(&self, done: &mut WithinDone) -> Result<(), KernelError> {
        let status = self.words(&self.status)?;
        let mask = status.iter().fold(0, |all, one| all | one);
        done.waited_for = (0..RANKS_MAX).filter(|r| mask >> r & 1 == 1).collect();
        Ok(())
    }

    /// Reads what the checks found, and compares small totals on the host.
    fn close(&self, iterations: u32, done: &mut WithinDone) -> Result<(), KernelError> {
        let words = self.words(&self.faults)?;
        take_faults(&words, done);
        if self.ask.bytes.0 > HOST_BYTES || !done.waited_for.is_empty() {
            return Ok(());
        }
        let outputs = self.words(self.outputs.as_ref().unwrap_or(&self.inputs))?;
        let keys: Vec<u32> = (0..self.ask.ranks)
            .map(|rank| self.key(rank, iterations - 1))
            .collect();
        let bytes: &[u8] = bytemuck::cast_slice(&outputs);
        compare(&self.ask, bytes, self.stride, &keys, done);
        Ok(())
    }
}

/// Adds what the checks recorded: a count, three words unused, then four words for each wrong element.
fn take_faults(words: &[u32], done: &mut WithinDone) {
    let count = words.first().copied();
    // A count that was not read back is no count of zero.
    done.wrong += count.map_or(1, u64::from);
    let recorded = words.get(4..).unwrap_or_default().chunks_exact(4);
    for fault in recorded.take(count.unwrap_or(0).min(ROOM) as usize) {
        let &[low, high, wanted, found] = fault else {
            continue;
        };
        let index = u64::from(high & 0xFFFF) << 32 | u64::from(low);
        done.faults.push(format!(
            "rank {} element {index}: {found:#010x}, not {wanted:#010x}",
            high >> 16
        ));
    }
}

/// Compares the last totals on the host, which must find as many wrong elements there as the device found.
fn compare(ask: &Within, outputs: &[u8], stride: u64, keys: &[u32], done: &mut WithinDone) {
    let size = ask.element.bytes() as usize;
    let shift = ask.element.shift(ask.ranks);
    let mut wrong = 0;
    for rank in 0..ask.ranks as usize {
        let start = rank * stride as usize;
        let held = outputs.get(start..start + ask.bytes.0 as usize);
        let Some(held) = held else {
            done.faults.push(format!("rank {rank} was not read back"));
            done.wrong += 1;
            continue;
        };
        for (index, element) in (0_u64..).zip(held.chunks_exact(size)) {
            let addends = keys.iter().map(|&key| Element::addend(index, key, shift));
            let total = addends.fold(0_i32, i32::wrapping_add);
            let bits = element.iter().rev();
            let found = bits.fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
            wrong += u64::from(found != ask.element.whole(total));
            done.compared += 1;
        }
    }
    if wrong > done.wrong {
        done.faults.push(format!(
            "the host finds {wrong} elements wrong, the device's own check {}",
            done.wrong
        ));
        done.wrong = wrong;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Within = Within {
        ranks: 3,
        element: Element::Bf16,
        bytes: Bytes(10),
        shots: Shots::Two,
        in_place: false,
        iterations: 2,
        seed: 9,
        inject: Inject::Nothing,
    };

    #[test]
    fn what_no_kernel_can_do_is_refused_in_words() {
        let why = |ask: Within| refuse(&ask).err().unwrap_or_default();
        assert_eq!(why(ASK), "");
        assert!(why(Within { ranks: 17, ..ASK }).contains("2 to 16"));
        assert!(why(Within { ranks: 1, ..ASK }).contains("1 ranks"));
        let odd = Within {
            bytes: Bytes(11),
            ..ASK
        };
        assert!(why(odd).contains("11 B are no whole number of bf16"));
        let large = Within {
            bytes: Bytes(65_538),
            shots: Shots::One,
            ..ASK
        };
        assert!(why(large).contains("use two"));
        let none = Within {
            iterations: 0,
            ..ASK
        };
        assert!(why(none).contains("at least one"));
    }

    #[test]
    fn all_ranks_fit_at_once_or_none_is_started() {
        let large = Within {
            bytes: Bytes(1 << 30),
            ranks: 8,
            ..ASK
        };
        assert_eq!(blocks(&large, 132 * 4), Some(66));
        assert_eq!(blocks(&large, 7), None);
        assert_eq!(blocks(&ASK, 132 * 4), Some(1));
        let short = Within {
            bytes: Bytes(8192),
            shots: Shots::One,
            ranks: 8,
            ..ASK
        };
        assert_eq!(blocks(&short, 132 * 4), Some(8));
    }

    #[test]
    fn every_kernel_that_may_be_asked_for_is_in_the_ptx() {
        for element in Element::ALL {
            for shots in Shots::ALL {
                for entry in entries(element, shots) {
                    assert!(Source::Reduce.has(&entry), "{entry}");
                }
            }
        }
        for entry in ["copy", "spin", "flip"] {
            assert!(Source::Step.has(entry), "{entry}");
        }
        assert_eq!(size_of::<Group>(), 664);
    }

    /// Right totals of three ranks, laid out as on the device.
    fn outputs(keys: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 512];
        let shift = ASK.element.shift(3);
        for rank in 0..3 {
            for index in 0..5_u64 {
                let total: i32 = keys.iter().map(|&k| Element::addend(index, k, shift)).sum();
                let at = rank * 512 + 2 * index as usize;
                let bits = ASK.element.whole(total) as u16;
                bytes[at..at + 2].copy_from_slice(&bits.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn a_bit_that_the_device_does_not_see_the_host_does() {
        let keys = [1, 2, 3];
        let mut bytes = outputs(&keys);
        let mut done = WithinDone::default();
        compare(&ASK, &bytes, 512, &keys, &mut done);
        assert_eq!((done.wrong, done.compared), (0, 15));
        bytes[512 + 8] ^= 1;
        compare(&ASK, &bytes, 512, &keys, &mut done);
        assert_eq!(done.wrong, 1);
        assert!(done.faults[0].contains("the host finds 1"), "{done:?}");
        let mut cut = WithinDone::default();
        compare(&ASK, &outputs(&keys)[..600], 512, &keys, &mut cut);
        assert_eq!(cut.wrong, 1, "what was not read back is never right");
        take_faults(&[], &mut cut);
        assert_eq!(cut.wrong, 2, "nor is a count that was not");
    }

    #[test]
    fn a_wrong_element_is_told_by_its_rank_and_place() {
        let mut done = WithinDone::default();
        let words = [1, 0, 0, 0, 5, 2 << 16 | 1, 0xA, 0xB];
        take_faults(&words, &mut done);
        assert_eq!(done.wrong, 1);
        let want = "rank 2 element 4294967301: 0x0000000b, not 0x0000000a";
        assert_eq!(done.faults, [want]);
    }
}
