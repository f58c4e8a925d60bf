//! Decides how free memory of a device is tested, and what is said of a word that reads back wrong.
//!
//! Everything that can be had is allocated in blocks and held while each pattern is written to all of it before any of
//! it is read, so that a cell disturbed by a neighbour, or an address line that is stuck, shows. Refuses to call memory
//! tested that another holds.

use super::arrays::Arrays;
use super::gpu::{Arguments, Gpu, Memory, SETUP_LIMIT, Shape, Stream};
use super::module::{Kernel, Modules, Source};
use crate::audit::mix;
use crate::backend::MemoryTest;
use crate::error::KernelError;
use hallmark_profiles::units::Bytes;
use std::sync::Arc;

/// Blocks are allocated from the largest to the smallest size, each while there is room.
const BLOCK_BYTES: [u64; 3] = [1 << 30, 64 << 20, 2 << 20];
/// Left to the driver, which needs some memory for itself.
const LEFT_BYTES: u64 = 64 << 20;
/// Wrong words that are recorded of each block and pass.
const ROOM: u32 = 16;
/// Wrong words that are told.
const TOLD_MAX: usize = 16;

/// A pattern: word i is (hash(i) & mask) ^ flip.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    mask: u32,
    flip: u32,
}

/// Every bit both ways, neighbours unlike, then random words, which tell addresses apart, and their complement.
const PATTERNS: [Pattern; 6] = [
    Pattern { mask: 0, flip: 0 },
    Pattern { mask: 0, flip: !0 },
    Pattern {
        mask: 0,
        flip: 0xAAAA_AAAA,
    },
    Pattern {
        mask: 0,
        flip: 0x5555_5555,
    },
    Pattern { mask: !0, flip: 0 },
    Pattern { mask: !0, flip: !0 },
];

struct Bench<'a> {
    gpu: &'a Arc<Gpu>,
    stream: Stream,
    write: Kernel,
    check: Kernel,
    blocks: Vec<Memory>,
    faults: Memory,
}

/// Tests all free memory.
pub(super) fn test(gpu: &Arc<Gpu>, modules: &Modules) -> Result<MemoryTest, KernelError> {
    let module = modules.get(Source::Step)?;
    let free = gpu.free()?;
    let bench = Bench {
        gpu,
        stream: gpu.stream()?,
        write: module.kernel("pattern_write")?,
        check: module.kernel("pattern_check")?,
        faults: gpu.memory(16 + 16 * u64::from(ROOM))?,
        blocks: take(gpu)?,
    };
    let mut test = MemoryTest {
        tested: Bytes(bench.blocks.iter().map(|b| b.bytes).sum()),
        free,
        passes: PATTERNS.len() as u32,
        wrong: 0,
        faults: Vec::new(),
    };
    for (pass, pattern) in PATTERNS.iter().enumerate() {
        bench.write(*pattern, pass)?;
        bench.check(*pattern, pass, &mut test)?;
    }
    Ok(test)
}

fn take(gpu: &Arc<Gpu>) -> Result<Vec<Memory>, KernelError> {
    let mut blocks = Vec::new();
    for size in BLOCK_BYTES {
        while gpu.free()?.0 > size + LEFT_BYTES {
            match gpu.memory(size) {
                Ok(memory) => blocks.push(memory),
                // Free memory may lie in pieces smaller than this.
                Err(KernelError::Memory { .. }) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(blocks)
}

/// Blocks have keys of their own, so that one that shadows another is seen.
fn key(block: usize, pass: usize) -> u32 {
    mix(0x7E57_0000 ^ block as u32 ^ (pass as u32 / 2) << 24)
}

impl Bench<'_> {
    fn shape(&self, memory: &Memory) -> Shape {
        Shape::new(Arrays::blocks(self.gpu, memory.bytes / 16), 256)
    }

    fn write(&self, pattern: Pattern, pass: usize) -> Result<(), KernelError> {
        for (block, memory) in self.blocks.iter().enumerate() {
            let arguments = Arguments::new(&[
                memory.at,
                memory.bytes / 16,
                key(block, pass).into(),
                pattern.mask.into(),
                pattern.flip.into(),
            ]);
            let shape = self.shape(memory);
            self.stream
                .launch(self.write.function, shape, &arguments, "write a pattern")?;
        }
        self.gpu.finish(&self.stream, SETUP_LIMIT)
    }

    fn check(
        &self,
        pattern: Pattern,
        pass: usize,
        test: &mut MemoryTest,
    ) -> Result<(), KernelError> {
        let read = self.gpu.pinned(self.faults.bytes)?;
        for (block, memory) in self.blocks.iter().enumerate() {
            self.stream.zero(&self.faults, 0, self.faults.bytes)?;
            let arguments = Arguments::new(&[
                memory.at,
                memory.bytes / 16,
                key(block, pass).into(),
                pattern.mask.into(),
                pattern.flip.into(),
                self.faults.at,
                ROOM.into(),
            ]);
            let shape = self.shape(memory);
            self.stream
                .launch(self.check.function, shape, &arguments, "check a pattern")?;
            self.stream
                .down(&self.faults, 0, &read, 0, self.faults.bytes)?;
            self.gpu.finish(&self.stream, SETUP_LIMIT)?;
            // SAFETY: the copy has ended.
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(unsafe { read.bytes() });
            take_faults(&words, memory.at, pass, test);
        }
        Ok(())
    }
}

/// Adds what one check recorded: a count, three words unused, then four words for each fault.
fn take_faults(words: &[u32], base: u64, pass: usize, test: &mut MemoryTest) {
    let count = words.first().copied().unwrap_or(0);
    test.wrong = test.wrong.saturating_add(u64::from(count));
    let recorded = words.get(4..).unwrap_or_default().chunks_exact(4);
    for fault in recorded.take(count.min(ROOM) as usize) {
        let &[low, high, wanted, found] = fault else {
            continue;
        };
        if test.faults.len() >= TOLD_MAX {
            return;
        }
        let word = u64::from(high) << 32 | u64::from(low);
        let wrong = wanted ^ found;
        let bits = (0..32).filter(|bit| wrong >> bit & 1 == 1);
        let bits: Vec<String> = bits.map(|bit| bit.to_string()).collect();
        test.faults.push(format!(
            "address {:#x}, bit {} of the word: read {found:#010x}, written {wanted:#010x} in pass {}",
            base + 4 * word,
            bits.join(" "),
            pass + 1
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> MemoryTest {
        MemoryTest {
            tested: Bytes(0),
            free: Bytes(0),
            passes: 6,
            wrong: 0,
            faults: Vec::new(),
        }
    }

    #[test]
    fn a_wrong_word_is_told_by_its_address_and_bits() {
        let mut test = empty();
        let words = [1, 0, 0, 0, 5, 1, 0xAAAA_AAAA, 0xAAAA_AAA8];
        take_faults(&words, 0x1000, 2, &mut test);
        assert_eq!(test.wrong, 1);
        let want =
            "address 0x400001014, bit 1 of the word: read 0xaaaaaaa8, written 0xaaaaaaaa in pass 3";
        assert_eq!(test.faults, [want]);
    }

    #[test]
    fn all_wrong_words_are_counted_though_few_are_told() {
        let mut test = empty();
        let mut words = vec![1_000_000, 0, 0, 0];
        words.extend([1, 0, 2, 3].repeat(ROOM as usize));
        for _ in 0..3 {
            take_faults(&words, 0, 0, &mut test);
        }
        assert_eq!((test.wrong, test.faults.len()), (3_000_000, TOLD_MAX));
    }

    #[test]
    fn every_bit_is_written_both_ways_with_and_without_neighbours_like_it() {
        let all = PATTERNS.iter().filter(|p| p.mask == 0).map(|p| p.flip);
        let flips: Vec<u32> = all.collect();
        for bit in 0..32 {
            let both: Vec<u32> = flips.iter().map(|f| f >> bit & 1).collect();
            assert!(both.contains(&0) && both.contains(&1));
        }
        assert!(flips.contains(&0xAAAA_AAAA) && flips.contains(&0x5555_5555));
        // A random pass and its complement share their keys.
        assert_eq!(key(3, 4), key(3, 5));
        assert_ne!(key(3, 4), key(4, 4));
    }
}
