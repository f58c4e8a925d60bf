//! Rows that wait beside a record until their own file is written, so that memory need not hold them.
//!
//! Each block names the one before it of the same table, so that memory holds one number a table. The file has no
//! name from the moment it is made, and is gone with the process however that ends; a block that comes back as it was
//! not written is an error. Layout of a block, little-endian:
//! ```text
//! block = offset of the block before + 1 or 0 u64 | rows u64 | CRC-32C of those and the payload u64 | payload
//! payload = each column after the other: 8 B a number, 4 B a short one, 1 B a flag
//! ```

use super::columns::Column;
use super::error::{Operation, StoreError};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const HEADER: usize = 24;
/// What is written at once, B.
const WRITTEN: usize = 1 << 20;

/// The waiting rows of all tables of one record.
pub(super) struct Spool {
    dir: PathBuf,
    /// Made with the first block.
    file: Option<BufWriter<File>>,
    end: u64,
    block: Vec<u8>,
}

impl Spool {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            file: None,
            end: 0,
            block: Vec::new(),
        }
    }

    /// Appends a block of a table whose latest one is `last`, which then is this one.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] and what else writing meets.
    pub fn put(
        &mut self,
        last: &mut Option<u64>,
        columns: &[Column],
        rows: usize,
    ) -> Result<(), StoreError> {
        self.block.clear();
        self.block.resize(HEADER, 0);
        columns.iter().for_each(|c| c.put_bytes(&mut self.block));
        let before = last.map_or(0, |at| at + 1);
        let header = Header::new(before, rows as u64, &self.block[HEADER..]);
        self.block[..HEADER].copy_from_slice(&header.encode());
        let failed = |e| StoreError::io(&self.dir, Operation::Write, e);
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = tempfile::tempfile_in(&self.dir).map_err(failed)?;
                none.insert(BufWriter::with_capacity(WRITTEN, file))
            }
        };
        file.write_all(&self.block).map_err(failed)?;
        *last = Some(self.end);
        self.end += self.block.len() as u64;
        Ok(())
    }

    /// Where the blocks of a table begin, from its first to `last`.
    ///
    /// # Errors
    /// What reading meets.
    pub fn blocks(&mut self, last: u64) -> Result<Vec<u64>, StoreError> {
        let mut blocks = Vec::new();
        let mut next = Some(last);
        while let Some(at) = next {
            blocks.push(at);
            let before = self.header(at)?.before.checked_sub(1);
            // Each lies before the one that names it, so that this ends whatever the file holds.
            next = before.filter(|before| *before < at);
        }
        blocks.reverse();
        Ok(blocks)
    }

    /// Appends the rows of the block that begins `at` to empty columns and says how many they are.
    ///
    /// # Errors
    /// [`StoreError::Format`] where the block is not what was written, and what reading meets.
    pub fn take(&mut self, at: u64, columns: &mut [Column]) -> Result<usize, StoreError> {
        let header = self.header(at)?;
        let width: usize = columns.iter().map(Column::width).sum();
        let bytes = header.rows.saturating_mul(width as u64);
        let inside = bytes <= self.end.saturating_sub(at + HEADER as u64);
        self.block
            .resize(if inside { bytes as usize } else { 0 }, 0);
        let (dir, block) = (&self.dir, &mut self.block);
        let failed = |e| StoreError::io(dir, Operation::Read, e);
        if let Some(file) = &mut self.file {
            file.get_mut().read_exact(block).map_err(failed)?;
        }
        if !inside || Header::new(header.before, header.rows, block) != header {
            let why = "rows that were set aside while sealing came back changed";
            return Err(StoreError::format(dir, why));
        }
        let rows = header.rows as usize;
        let mut left = block.as_slice();
        for column in columns {
            let (own, others) = left.split_at(rows * column.width());
            column.take_bytes(own);
            left = others;
        }
        Ok(rows)
    }

    /// Reads the header of a block; its payload is next.
    fn header(&mut self, at: u64) -> Result<Header, StoreError> {
        let mut bytes = [0; HEADER];
        if let Some(file) = &mut self.file {
            let found = file.seek(SeekFrom::Start(at));
            let read = found.and_then(|_| file.get_mut().read_exact(&mut bytes));
            read.map_err(|e| StoreError::io(&self.dir, Operation::Read, e))?;
        }
        Ok(Header::decode(bytes))
    }
}

#[derive(PartialEq, Eq)]
struct Header {
    before: u64,
    rows: u64,
    crc: u64,
}

impl Header {
    fn new(before: u64, rows: u64, payload: &[u8]) -> Self {
        let crc = crc32c::crc32c(&before.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &rows.to_le_bytes());
        Self {
            before,
            rows,
            crc: u64::from(crc32c::crc32c_append(crc, payload)),
        }
    }

    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let numbers = [self.before, self.rows, self.crc];
        for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: [u8; HEADER]) -> Self {
        let (numbers, _) = bytes.as_chunks::<8>();
        Self {
            before: u64::from_le_bytes(numbers[0]),
            rows: u64::from_le_bytes(numbers[1]),
            crc: u64::from_le_bytes(numbers[2]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(from: u64) -> Vec<Column> {
        let numbers = from..from + 5;
        vec![
            Column::Long(numbers.clone().collect()),
            Column::Float(numbers.map(|x| 1.0 / x as f64).collect()),
            Column::Short(vec![7; 5]),
            Column::Flag(vec![true, false, true, true, false]),
        ]
    }

    fn empty() -> Vec<Column> {
        let mut none = columns(0);
        none.iter_mut().for_each(Column::clear);
        none
    }

    #[test]
    fn blocks_of_two_tables_come_back_each_in_its_order() {
        let mut spool = Spool::new(&std::env::temp_dir());
        let mut last = [None, None];
        for block in 0..6_u64 {
            let table = &mut last[(block % 2) as usize];
            spool.put(table, &columns(block), 5).unwrap();
        }
        for (table, last) in last.into_iter().enumerate() {
            let blocks = spool.blocks(last.unwrap()).unwrap();
            assert_eq!(blocks.len(), 3);
            for (index, at) in blocks.into_iter().enumerate() {
                let mut found = empty();
                assert_eq!(spool.take(at, &mut found).unwrap(), 5);
                assert_eq!(found, columns((2 * index + table) as u64));
            }
        }
    }

    #[test]
    fn a_block_changed_at_any_byte_is_an_error() {
        let mut spool = Spool::new(&std::env::temp_dir());
        let (mut last, columns) = (None, columns(3));
        spool.put(&mut last, &columns, 5).unwrap();
        spool.put(&mut last, &columns, 5).unwrap();
        let (first, end) = (last.unwrap(), spool.end);
        let flip = |spool: &mut Spool, byte| {
            let file = spool.file.as_mut().unwrap();
            file.seek(SeekFrom::Start(byte)).unwrap();
            let mut one = [0];
            file.get_mut().read_exact(&mut one).unwrap();
            file.seek(SeekFrom::Start(byte)).unwrap();
            file.write_all(&[one[0] ^ 0x10]).unwrap();
        };
        for byte in first..end {
            flip(&mut spool, byte);
            let blocks = spool.blocks(last.unwrap()).unwrap();
            let mut all = blocks.iter().map(|at| spool.take(*at, &mut empty()));
            assert!(all.any(|taken| taken.is_err()), "byte {byte}");
            flip(&mut spool, byte);
        }
    }
}
