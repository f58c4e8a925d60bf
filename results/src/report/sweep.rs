//! The figures of a sweep of all-reduces, as every format tells them.
//!
//! Bandwidths are of the mean operation, from the first rank's start to the last one's end; latencies count from the
//! due time. Refuses a bus bandwidth where one rank moves nothing over a link, and a percentile that the number of
//! operations cannot support.

use super::{Story, facts, words};
use crate::plan::SegmentKind;
use crate::standing::sweep::SizeTrials;
use crate::standing::window::Window;
use crate::stats::distribution::Distribution;
use hallmark_profiles::units::{Bytes, Unit, human};

/// Time and bandwidth of one size.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Of the mean operation, s.
    pub time_s: f64,
    /// B/s.
    pub algbw: f64,
    /// B/s; `None` for one rank.
    pub busbw: Option<f64>,
}

impl Figures {
    /// `None` where no time passed.
    ///
    /// Source: nccl-tests, `doc/PERFORMANCE.md`.
    pub fn new(bytes: u64, times: &Distribution, ranks: usize) -> Option<Self> {
        let time_s = times.mean().filter(|mean| *mean > 0.0)?;
        let algbw = bytes as f64 / time_s;
        let factor = 2.0 * (ranks as f64 - 1.0) / ranks.max(1) as f64;
        Some(Self {
            time_s,
            algbw,
            busbw: (ranks > 1).then_some(algbw * factor),
        })
    }
}

/// One size of a sweep on both ways.
pub struct Size<'a> {
    pub bytes: u64,
    pub out: Option<Way<'a>>,
    pub within: Option<Way<'a>>,
}

/// One size on one way.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub trials: &'a SizeTrials,
    /// `None` where only the warm-up ran.
    pub figures: Option<Figures>,
}

/// The windows of phases that swept.
pub fn windows<'a>(story: &Story<'a>) -> impl Iterator<Item = &'a Window> {
    let windows = story.standing.windows().iter();
    windows.filter(|w| matches!(w.kind, SegmentKind::Phase(_)) && !w.group.sweep.sizes.is_empty())
}

/// The sizes of a window's sweep, ascending.
pub fn sizes<'a>(window: &'a Window, ranks: usize) -> Vec<Size<'a>> {
    let found = &window.group.sweep.sizes;
    let mut sizes: Vec<u64> = found.keys().map(|(bytes, _)| *bytes).collect();
    sizes.dedup();
    let way = |bytes: u64, in_place: bool| {
        let trials = found.get(&(bytes, in_place))?;
        let times = trials.whole.get();
        let figures = times.and_then(|times| Figures::new(bytes, times, ranks));
        Some(Way { trials, figures })
    };
    let both = |bytes: &u64| Size {
        bytes: *bytes,
        out: way(*bytes, false),
        within: way(*bytes, true),
    };
    sizes.iter().map(both).collect()
}

/// A payload as people say it: whole bytes below a KiB.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}\u{a0}B");
    }
    Bytes(bytes).to_string()
}

/// The quantile `name` of times in s, where there are enough of them.
pub fn quantile(times: &Distribution, name: &str) -> Option<f64> {
    let known = words::supported(times.count());
    let (at, _) = known.into_iter().find(|(_, known)| *known == name)?;
    times.quantile(at)
}

/// What a sweep came to, in one sentence.
pub fn sentence(story: &Story<'_>, window: &Window) -> Option<String> {
    let ranks = facts::ranks(story, window);
    let sizes = sizes(window, ranks);
    let (first, last) = (sizes.first()?, sizes.last()?);
    let wrong: u64 = window.group.sweep.sizes.values().map(|s| s.wrong).sum();
    let mut said = format!(
        "all-reduces of {} to {} over {}",
        size(first.bytes),
        size(last.bytes),
        words::counted(ranks, "rank", "ranks"),
    );
    if let Some(busbw) = last.out.and_then(|o| o.figures?.busbw) {
        let busbw = human(busbw, Unit::BytePerSecond);
        said.push_str(&format!(": plateau {busbw} of bus bandwidth"));
    }
    let latency = first
        .out
        .and_then(|o| quantile(o.trials.latency.get()?, "p50"));
    if let Some(latency) = latency {
        let latency = human(latency, Unit::Second);
        said.push_str(&format!(
            ", {} in {latency} at the median",
            size(first.bytes)
        ));
    }
    said.push_str(&match wrong {
        0 => "; every total was checked and right".to_owned(),
        wrong => format!("; {wrong} elements were wrong"),
    });
    Some(said)
}
