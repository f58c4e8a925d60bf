//! The account of a run from its folder: the fold over its frames, with the tables of a sealed record on all cores.
//!
//! What a table's rows add to an account touches nothing but that table, so each thread reads whole tables into an
//! account of its own, and they are joined. The outcome is that of one fold over all frames.

use super::error::StoreError;
use super::read::{Record, Rows, Run};
use crate::frame::{Frame, Steps};
use crate::standing::{Standing, StandingError};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads at most: each holds a batch, and beyond these the disk sets the pace.
const THREADS_MAX: usize = 16;

/// A run that gives no account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error("the record is empty")]
    Empty,
}

impl Run {
    /// The account of all its frames.
    ///
    /// # Errors
    /// [`AccountError`]: a file that cannot be read, or frames that no run can have written.
    pub fn account(&self) -> Result<Standing, AccountError> {
        if let Some(record) = self.record() {
            return record.account();
        }
        let mut frames = self.frames()?;
        let mut standing = Standing::open(&frames.next().ok_or(AccountError::Empty)??)?;
        for frame in frames {
            standing.push(&frame?)?;
        }
        Ok(standing)
    }
}

impl Record {
    /// The account of all its frames.
    ///
    /// # Errors
    /// [`AccountError`]: a file that cannot be read, or frames that no run can have written.
    pub fn account(&self) -> Result<Standing, AccountError> {
        let mut declared = self.declarations();
        let mut standing = Standing::open(&declared.next().ok_or(AccountError::Empty)?)?;
        for frame in declared {
            standing.push(&frame)?;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let apart: Vec<Standing> = (1..cores.min(THREADS_MAX))
            .map(|_| standing.apart())
            .collect();
        let (rows, next) = (&self.rows(), &AtomicUsize::new(0));
        let all = std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                devices(&mut standing, rows)?;
                tables(standing, rows, next)
            });
            let others = apart.into_iter();
            let others = others.map(|own| scope.spawn(move || tables(own, rows, next)));
            let all: Vec<_> = std::iter::once(first)
                .chain(others.collect::<Vec<_>>())
                .collect();
            // A decoder that gives up on hostile bytes by a panic ends its thread and nothing else.
            let gave_up =
                || StoreError::format(self.dir(), "the decoder gave up on a Parquet file");
            let done = all
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(gave_up().into())));
            done.collect::<Result<Vec<Standing>, AccountError>>()
        })?;
        let mut all = all.into_iter();
        let mut standing = all.next().ok_or(AccountError::Empty)?;
        all.for_each(|own| standing.join(own));
        if let Some(closed) = &self.story().closed {
            standing.push(&Frame::Closed(closed.clone()))?;
        }
        Ok(standing)
    }
}

fn devices(own: &mut Standing, rows: &Rows) -> Result<(), AccountError> {
    let mut folded = Ok(());
    let mut each = |steps: &Steps| {
        folded = own.steps(steps);
        folded.is_ok()
    };
    rows.devices(&mut each, &mut || true)?;
    folded.map_err(AccountError::from)
}

/// Takes tables that nobody else has taken, until there are no more.
fn tables(mut own: Standing, rows: &Rows, next: &AtomicUsize) -> Result<Standing, AccountError> {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= rows.tables() {
            return Ok(own);
        }
        let mut folded = Ok(());
        rows.table(index, &mut |samples| {
            folded = own.samples(&samples);
            folded.is_ok()
        })?;
        folded?;
    }
}
