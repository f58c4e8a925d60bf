//! Samples of one kind: how they lie, and how far they depend on each other.

use crate::stats::dependence::Dependence;
use crate::stats::distribution::Distribution;
use crate::stats::finite::Finite;

/// A distribution that is made when its first sample arrives, and how far its samples depend on each other.
#[derive(Debug)]
pub struct Gathered {
    resolution: f64,
    inner: Option<Distribution>,
    dependence: Dependence,
}

impl Gathered {
    /// `resolution`: smallest step told apart, in the samples' unit.
    pub fn new(resolution: f64) -> Self {
        Self {
            resolution,
            inner: None,
            dependence: Dependence::default(),
        }
    }

    /// As [`Self::new`], and all samples are kept in order while they are no more than `most`.
    pub fn in_order(resolution: f64, most: usize) -> Self {
        Self {
            dependence: Dependence::keeping(most),
            ..Self::new(resolution)
        }
    }

    pub fn record(&mut self, value: f64) {
        if self.inner.is_none() {
            self.inner = Distribution::new(self.resolution).ok();
        }
        if let Some(inner) = &mut self.inner
            && inner.record(value)
        {
            self.dependence.push(value);
        }
    }

    /// [`Self::record`] for each of the values.
    pub(super) fn record_all(&mut self, finite: &Finite) {
        if self.inner.is_none() {
            self.inner = Distribution::new(self.resolution).ok();
        }
        if let Some(inner) = &mut self.inner
            && inner.record_all(finite)
        {
            self.dependence.push_all(finite);
        } else {
            finite.values().iter().for_each(|v| self.record(*v));
        }
    }

    /// How far its samples depend on each other.
    pub fn dependence(&self) -> &Dependence {
        &self.dependence
    }

    /// `None` before the first sample.
    pub fn get(&self) -> Option<&Distribution> {
        self.inner.as_ref()
    }

    pub fn count(&self) -> u64 {
        self.inner.as_ref().map_or(0, Distribution::count)
    }
}
