//! The Parquet files of a record while they are written, with the rows that are held back for each.
//!
//! Rows leave as row groups of [`GROUP_ROWS`], the last one of a file shorter. A hall has thousands of tables, of which
//! none fills a row group for hours: where all together hold back more than they may, their rows wait in a [`Spool`], and
//! the files are written one after the other at the end. So the files are the same however little may be held back.

use super::columns::{Column, GROUP_ROWS, Sheet, Spec};
use super::error::StoreError;
use super::manifest::{FileEntry, OPS, STEPS, TRIALS, table_file};
use super::seal::Progress;
use super::spool::Spool;
use super::tables;
use crate::frame::{Samples, Steps, Table};
use std::ops::Range;
use std::path::Path;

/// All files of one record that hold rows.
pub(super) struct Sheets<'a> {
    dir: &'a Path,
    steps: Group,
    ops: Group,
    /// Made with the first trial: most runs sweep nothing.
    trials: Option<Group>,
    tables: Vec<Held<'a>>,
    spool: Spool,
    /// Cells that all tables hold back, and how many they may.
    cells: usize,
    cells_max: usize,
}

/// A file and the rows of its next group.
struct Group {
    sheet: Sheet,
    rows: Rows,
}

/// What is held back of one table.
struct Held<'a> {
    table: &'a Table,
    narrow: &'a [bool],
    /// Made with the first full row group, or at the end.
    sheet: Option<Sheet>,
    rows: Rows,
    /// The latest of its blocks in the spool: from the first on all its rows go there.
    spooled: Option<u64>,
}

/// Columns, equally long.
struct Rows {
    columns: Vec<Column>,
    count: usize,
}

impl Rows {
    fn new(specs: &[Spec]) -> Self {
        Self {
            columns: specs.iter().map(|(_, kind)| Column::new(*kind)).collect(),
            count: 0,
        }
    }

    fn cells(&self) -> usize {
        self.count * self.columns.len()
    }

    /// Appends `count` rows by `put`, which gets the columns and the rows to take; `full` takes each full row group.
    fn append(
        &mut self,
        count: usize,
        mut put: impl FnMut(&mut [Column], Range<usize>),
        mut full: impl FnMut(&[Column], usize) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = 0;
        while from < count {
            let to = count.min(from + GROUP_ROWS - self.count);
            put(&mut self.columns, from..to);
            self.count += to - from;
            from = to;
            if self.count == GROUP_ROWS {
                full(&self.columns, self.count)?;
                self.columns.iter_mut().for_each(Column::clear);
                self.count = 0;
            }
        }
        Ok(())
    }
}

impl Group {
    fn new(sheet: Sheet) -> Self {
        Self {
            rows: Rows::new(sheet.specs()),
            sheet,
        }
    }

    fn append(
        &mut self,
        count: usize,
        put: impl FnMut(&mut [Column], Range<usize>),
    ) -> Result<(), StoreError> {
        let sheet = &mut self.sheet;
        self.rows.append(count, put, |c, rows| sheet.group(c, rows))
    }

    /// Appends rows that are columns already.
    fn join(&mut self, columns: &[Column], rows: usize) -> Result<(), StoreError> {
        self.append(rows, |to, range| {
            for (to, from) in to.iter_mut().zip(columns) {
                to.extend(from, range.clone());
            }
        })
    }

    fn finish(mut self) -> Result<FileEntry, StoreError> {
        self.sheet.group(&self.rows.columns, self.rows.count)?;
        self.sheet.finish()
    }
}

impl<'a> Held<'a> {
    fn new(table: &'a Table, narrow: &'a [bool]) -> Self {
        Self {
            rows: Rows::new(&tables::sample_specs(table, narrow)),
            table,
            narrow,
            sheet: None,
            spooled: None,
        }
    }

    fn append(
        &mut self,
        samples: &Samples,
        dir: &Path,
        spool: &mut Spool,
    ) -> Result<(), StoreError> {
        let (sheet, spooled) = (&mut self.sheet, &mut self.spooled);
        let (table, narrow) = (self.table, self.narrow);
        self.rows.append(
            samples.at_ns.len(),
            |columns, range| tables::put_samples(columns, samples, range),
            |columns, rows| match (&mut *sheet, &*spooled) {
                (_, Some(_)) => spool.put(spooled, columns, rows),
                (Some(sheet), None) => sheet.group(columns, rows),
                (none, None) => none
                    .insert(create(dir, table, narrow)?)
                    .group(columns, rows),
            },
        )
    }

    /// Puts what is held back into the spool and gives its memory back.
    fn spool(&mut self, spool: &mut Spool) -> Result<(), StoreError> {
        if self.rows.count == 0 {
            return Ok(());
        }
        spool.put(&mut self.spooled, &self.rows.columns, self.rows.count)?;
        self.rows = Rows::new(&tables::sample_specs(self.table, self.narrow));
        Ok(())
    }

    fn finish(self, dir: &Path, spool: &mut Spool) -> Result<FileEntry, StoreError> {
        let sheet = match self.sheet {
            Some(sheet) => sheet,
            None => create(dir, self.table, self.narrow)?,
        };
        let Some(spooled) = self.spooled else {
            let rows = self.rows;
            return Group { sheet, rows }.finish();
        };
        let mut group = Group::new(sheet);
        for block in spool.blocks(spooled)? {
            let mut rows = Rows::new(group.sheet.specs());
            rows.count = spool.take(block, &mut rows.columns)?;
            group.join(&rows.columns, rows.count)?;
        }
        group.join(&self.rows.columns, self.rows.count)?;
        group.finish()
    }
}

fn create(dir: &Path, table: &Table, narrow: &[bool]) -> Result<Sheet, StoreError> {
    // Units and sources for whoever opens the file by itself.
    let note = serde_json::to_string(table).map_err(|e| StoreError::Encode(e.to_string()))?;
    let specs = tables::sample_specs(table, narrow);
    let notes = [("hallmark.table", note)];
    Sheet::create(dir, &table_file(&table.name), specs, &notes)
}

impl<'a> Sheets<'a> {
    /// `narrow`: for each table and series whether 32 bits hold all its values. `cells_max`: what tables may hold back.
    pub fn create(
        dir: &'a Path,
        declared: &'a [Table],
        narrow: &'a [Vec<bool>],
        cells_max: usize,
    ) -> Result<Self, StoreError> {
        let group = |name: &str, specs| Sheet::create(dir, name, specs, &[]).map(Group::new);
        let held = declared.iter().zip(narrow).map(|(t, n)| Held::new(t, n));
        Ok(Self {
            steps: group(STEPS, tables::step_specs())?,
            ops: group(OPS, tables::op_specs())?,
            trials: None,
            tables: held.collect(),
            spool: Spool::new(dir),
            cells: 0,
            cells_max,
            dir,
        })
    }

    pub fn steps(&mut self, steps: &Steps) -> Result<(), StoreError> {
        let rows = &steps.rows;
        self.steps.append(rows.len(), |columns, range| {
            tables::put_steps(columns, steps, &rows[range])
        })?;
        let ops = &steps.ops;
        self.ops.append(ops.len(), |columns, range| {
            tables::put_ops(columns, steps, &ops[range])
        })?;
        let trials = &steps.trials;
        if trials.is_empty() {
            return Ok(());
        }
        let group = match &mut self.trials {
            Some(group) => group,
            none => {
                let made = Sheet::create(self.dir, TRIALS, tables::trial_specs(), &[])?;
                none.insert(Group::new(made))
            }
        };
        group.append(trials.len(), |columns, range| {
            tables::put_trials(columns, steps, &trials[range])
        })
    }

    pub fn samples(&mut self, samples: &Samples) -> Result<(), StoreError> {
        let Some(table) = self.tables.get_mut(samples.table as usize) else {
            return Ok(());
        };
        let before = table.rows.cells();
        table.append(samples, self.dir, &mut self.spool)?;
        self.cells = self.cells + table.rows.cells() - before;
        if self.cells > self.cells_max {
            for table in &mut self.tables {
                table.spool(&mut self.spool)?;
            }
            self.cells = 0;
        }
        Ok(())
    }

    /// Writes what is left and gives the files their names.
    pub fn finish(mut self, tell: &mut dyn FnMut(Progress)) -> Result<Vec<FileEntry>, StoreError> {
        let groups = [self.steps, self.ops].into_iter().chain(self.trials);
        let mut files: Vec<FileEntry> = groups.map(Group::finish).collect::<Result<_, _>>()?;
        let all = files.len() + self.tables.len();
        for table in self.tables {
            files.push(table.finish(self.dir, &mut self.spool)?);
            tell(Progress::Written(files.len() as u64, all as u64));
        }
        Ok(files)
    }
}
