//! All-reduces by NCCL in a group of one device: the library, the group and its watchdog on a real stream.
//!
//! The sum over one rank is the rank's own input, so every bit is known. Refuses to wait for ever: past the limit the
//! group is given up and the device with it, since what the library had queued may never end.

use super::gpu::Gpu;
use super::nccl::{Communicator, Nccl, NcclError};
use crate::collective::alone::{Alone, AloneDone};
use crate::collective::exact;
use crate::collective::within::Element;
use crate::error::KernelError;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a group of one, which loads kernels for every type; and for one all-reduce of it.
const FORMING: Duration = Duration::from_secs(60);
const REDUCING: Duration = Duration::from_secs(10);

/// Whose fault it was.
enum Fault {
    Nccl(NcclError),
    Kernel(KernelError),
}

impl From<NcclError> for Fault {
    fn from(error: NcclError) -> Self {
        Self::Nccl(error)
    }
}

impl From<KernelError> for Fault {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

/// Does them on `gpu`, with the library in `folder` or where the system has it.
pub(super) fn alone(
    gpu: &Arc<Gpu>,
    folder: Option<&Path>,
    ask: &Alone,
) -> Result<AloneDone, KernelError> {
    let nccl = Nccl::open(folder)
        .map_err(|a| gpu.refuse(format!("{}: {}; {}", a.what, a.why, a.remedy)))?;
    reduce(gpu, &Arc::new(nccl), ask).map_err(|fault| match fault {
        Fault::Kernel(error) => error,
        Fault::Nccl(error @ NcclError::Hung { .. }) => {
            gpu.give_up();
            gpu.refuse(error.to_string())
        }
        Fault::Nccl(error) => gpu.refuse(error.to_string()),
    })
}

fn reduce(gpu: &Arc<Gpu>, nccl: &Arc<Nccl>, ask: &Alone) -> Result<AloneDone, Fault> {
    let size = ask.element.bytes();
    let count = ask.bytes.0 / size;
    let bytes = count * size;
    let (host, input) = (gpu.pinned(bytes)?, gpu.memory(bytes)?);
    let other = match ask.in_place {
        true => None,
        false => Some(gpu.memory(bytes)?),
    };
    let output = other.as_ref().unwrap_or(&input);
    let stream = gpu.stream()?;
    let mut group = Communicator::form(nccl, nccl.unique_id()?, 0, 1, FORMING)?;
    let mut done = AloneDone {
        facts: nccl.facts(),
        ..AloneDone::default()
    };
    for iteration in 0..ask.iterations {
        let wanted = addends(ask, count, iteration);
        // SAFETY: the copy of the round before has ended, and nobody else has this memory.
        unsafe { host.write(&wanted) };
        stream.up(&host, &input, bytes)?;
        let (before, after) = (gpu.event()?, gpu.event()?);
        stream.record(&before)?;
        // SAFETY: both hold `count` elements, and outlive the wait below or are left to a device that is given up.
        unsafe {
            let places = [input.at, output.at];
            group.all_reduce(
                ask.element,
                count as usize,
                places,
                stream.handle.cast(),
                REDUCING,
            )?;
        }
        stream.record(&after)?;
        group.wait(REDUCING, "all-reduce", || {
            after.passed().map_err(Fault::Kernel)
        })?;
        done.reduce_ns.push(after.since_ns(&before)?);
        stream.down(output, 0, &host, 0, bytes)?;
        gpu.finish(&stream, REDUCING)?;
        // SAFETY: the copy has ended.
        let found = unsafe { host.bytes() };
        done.wrong += differing(&wanted, found, size as usize);
    }
    group.end(REDUCING)?;
    Ok(done)
}

/// The bytes of whole numbers that the type holds exactly.
fn addends(ask: &Alone, count: u64, iteration: u32) -> Vec<u8> {
    let (key, shift) = (
        exact::key(ask.seed, 0, iteration.into()),
        ask.element.shift(1),
    );
    let bytes = ask.element.bytes() as usize;
    let of = |element: Element, index: u64| element.whole(Element::addend(index, key, shift));
    let mut all = Vec::with_capacity(count as usize * bytes);
    for index in 0..count {
        all.extend_from_slice(&of(ask.element, index).to_le_bytes()[..bytes]);
    }
    all
}

/// Elements of `size` bytes that differ; what is missing differs.
fn differing(wanted: &[u8], found: &[u8], size: usize) -> u64 {
    let pairs = wanted.chunks(size).enumerate();
    let differs = |(index, want): &(usize, &[u8])| {
        let from = index * size;
        found.get(from..from + size) != Some(*want)
    };
    pairs.filter(differs).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::units::Bytes;

    #[test]
    fn one_bit_is_one_wrong_element_in_every_type_and_inputs_change_each_time() {
        for element in [Element::F32, Element::Bf16, Element::F16] {
            let ask = Alone {
                element,
                bytes: Bytes(4096),
                in_place: false,
                iterations: 2,
                seed: 3,
            };
            let wanted = addends(&ask, 100, 0);
            let size = element.bytes() as usize;
            assert_eq!(wanted.len(), 100 * size);
            assert_ne!(wanted, addends(&ask, 100, 1));
            let mut found = wanted.clone();
            assert_eq!(differing(&wanted, &found, size), 0);
            found[7 * size] ^= 1;
            assert_eq!(differing(&wanted, &found, size), 1);
            found.truncate(50 * size);
            assert_eq!(differing(&wanted, &found, size), 51);
        }
    }
}
