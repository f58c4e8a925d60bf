//! One series of a device: which call gives it, in which unit, and whether the device has it.
//!
//! Decides: the list of series and their order, unit conversion at the border, and which of two
//! sources of one quantity is used (the label says which). Refuses: a series that the device said
//! it does not have; it is asked once, when the sensor is opened, and never again.

use super::event::XidEvents;
use super::links::{Flaps, LinkErrors, active_links};
use super::raw::{self, FieldAsk};
use super::reasons::{ActiveTime, WATCHED};
use super::{Group, NvmlDevice};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Series, SeriesKind};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id;

/// NVML's averaging window where it states one.
const ONE_SECOND_NS: u64 = 1_000_000_000;
const MILLIWATT_PER_WATT: f64 = 1e3;
const MILLIJOULE_PER_JOULE: f64 = 1e3;
const HERTZ_PER_MEGAHERTZ: f64 = 1e6;
/// A mask is carried as a float: its lowest 53 bits exactly.
const MASK_BITS: u64 = (1 << 53) - 1;

/// Which remapped-rows figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remap {
    Correctable,
    Uncorrectable,
    Pending,
    Failed,
}

/// The call that gives a series.
pub enum Source {
    /// A field value and how many of its units make one of the series'.
    Field(FieldAsk, f64),
    PowerUsage,
    Energy,
    TempCore,
    ThermalMargin,
    /// The slowdown threshold, °C, less the core's temperature.
    BelowSlowdown(f64),
    Clock(Clock),
    Utilisation,
    MemoryUsed,
    ReasonMask,
    /// 1 while this bit of the mask holds.
    ReasonBit(u64),
    /// A field that counts the nanoseconds that a reason was active.
    ReasonTime(FieldAsk, ActiveTime),
    PowerLimit,
    Ecc(MemoryError, EccCounter),
    Rows(Remap),
    PcieReplays,
    PcieWidth,
    PcieGeneration,
    Link(LinkErrors),
    LinkFlaps(Flaps),
    /// Xid errors seen by this sensor.
    Xids(XidEvents, u64),
}

/// What one read of a group finds once and shares between its channels.
pub struct Shared {
    pub now_ns: u64,
    /// Outcomes of the fields asked for, in the order of the channels that asked.
    pub fields: std::vec::IntoIter<Result<f64, NvmlError>>,
    /// The mask, or NVML's error code, once a channel asked for it.
    pub reasons: Option<Result<u64, u32>>,
    /// Numbers of the Xid errors taken in this read.
    pub xids: Vec<u64>,
}

impl Shared {
    /// Asks for all `asks` in one call; if the call fails, each of them failed with its error.
    pub fn begin(device: &Device<'_>, asks: &[FieldAsk], now_ns: u64) -> Self {
        let fields = raw::field_values(device, asks).unwrap_or_else(|error| {
            let code = code_of(error);
            asks.iter().map(|_| Err(NvmlError::from(code))).collect()
        });
        Self {
            now_ns,
            fields: fields.into_iter(),
            reasons: None,
            xids: Vec::new(),
        }
    }
}

/// One series and where it comes from.
pub struct Channel {
    pub series: Series,
    pub source: Source,
}

impl Channel {
    fn new(metric: Metric, label: &str, kind: SeriesKind, source: Source) -> Self {
        let series = Series {
            metric,
            label: label.to_owned(),
            unit: metric.spec().unit,
            kind,
            averaging_ns: None,
            accuracy: None,
        };
        Self { series, source }
    }

    fn averaged(mut self, window_ns: u64) -> Self {
        self.series.averaging_ns = Some(window_ns);
        self
    }

    /// Drops what a probe left behind, so that the first read begins anew.
    pub fn forget(&mut self) {
        if let Source::ReasonTime(_, active) = &mut self.source {
            *active = ActiveTime::default();
        }
    }

    /// The field that this channel needs in the group's one call for fields.
    pub fn field(&self) -> Option<FieldAsk> {
        match &self.source {
            Source::Field(ask, _) | Source::ReasonTime(ask, _) => Some(*ask),
            _ => None,
        }
    }

    /// Reads the value in the series' unit; `None` where there is none yet and nothing is wrong.
    ///
    /// # Errors
    /// NVML's own.
    pub fn read(
        &mut self,
        device: &Device<'_>,
        shared: &mut Shared,
    ) -> Result<Option<f64>, NvmlError> {
        let value = match &mut self.source {
            Source::Field(_, per_unit) => next_field(shared)? / *per_unit,
            Source::ReasonTime(_, active) => {
                let active_ns = next_field(shared)?;
                return Ok(active.share(shared.now_ns, active_ns));
            }
            Source::PowerUsage => f64::from(device.power_usage()?) / MILLIWATT_PER_WATT,
            Source::Energy => device.total_energy_consumption()? as f64 / MILLIJOULE_PER_JOULE,
            Source::TempCore => core_c(device)?,
            Source::ThermalMargin => raw::thermal_margin_k(device)?,
            Source::BelowSlowdown(slowdown_c) => *slowdown_c - core_c(device)?,
            Source::Clock(clock) => f64::from(device.clock_info(*clock)?) * HERTZ_PER_MEGAHERTZ,
            Source::Utilisation => f64::from(device.utilization_rates()?.gpu),
            Source::MemoryUsed => device.memory_info()?.used as f64,
            Source::ReasonMask => (reasons(device, shared)? & MASK_BITS) as f64,
            Source::ReasonBit(bit) => f64::from(u8::from(reasons(device, shared)? & *bit != 0)),
            Source::PowerLimit => f64::from(device.enforced_power_limit()?) / MILLIWATT_PER_WATT,
            Source::Ecc(error, counter) => device.total_ecc_errors(*error, *counter)? as f64,
            Source::Rows(which) => rows(device, *which)?,
            Source::PcieReplays => f64::from(device.pcie_replay_counter()?),
            Source::PcieWidth => f64::from(device.current_pcie_link_width()?),
            Source::PcieGeneration => f64::from(device.current_pcie_link_gen()?),
            Source::Link(errors) => errors.total(device)?,
            Source::LinkFlaps(flaps) => flaps.count(active_links(device)?),
            Source::Xids(events, seen) => {
                let codes = events.take()?;
                *seen += codes.len() as u64;
                shared.xids.extend(codes);
                *seen as f64
            }
        };
        Ok(Some(value))
    }
}

fn next_field(shared: &mut Shared) -> Result<f64, NvmlError> {
    shared.fields.next().unwrap_or(Err(NvmlError::NoData))
}

fn core_c(device: &Device<'_>) -> Result<f64, NvmlError> {
    device.temperature(TemperatureSensor::Gpu).map(f64::from)
}

/// NVML's code for an error; a symbol that the library lacks has that of a missing function.
fn code_of(error: NvmlError) -> u32 {
    match error {
        NvmlError::FailedToLoadSymbol(_) => u32::from(NvmlError::FunctionNotFound),
        other => u32::from(other),
    }
}

/// The mask of reasons, asked for once in each read of the group.
fn reasons(device: &Device<'_>, shared: &mut Shared) -> Result<u64, NvmlError> {
    let ask = || raw::clocks_event_reasons(device).map_err(code_of);
    (*shared.reasons.get_or_insert_with(ask)).map_err(NvmlError::from)
}

fn rows(device: &Device<'_>, which: Remap) -> Result<f64, NvmlError> {
    let rows = raw::remapped_rows(device)?;
    Ok(match which {
        Remap::Correctable => f64::from(rows.correctable),
        Remap::Uncorrectable => f64::from(rows.uncorrectable),
        Remap::Pending => f64::from(u8::from(rows.pending)),
        Remap::Failed => f64::from(u8::from(rows.failed)),
    })
}

/// Alternatives for one quantity: the first that the device has becomes the series.
pub type Choice = Vec<Channel>;

/// All quantities of a group, best source first.
pub fn choices(device: &NvmlDevice, group: Group) -> Vec<Choice> {
    match group {
        Group::Load => load(&device.device),
        Group::Health => health(device),
    }
}

fn field(id: u32) -> FieldAsk {
    FieldAsk { id, scope: 0 }
}

fn load(device: &Device<'_>) -> Vec<Choice> {
    use SeriesKind::{Counter, Gauge, Mask};
    let instant = Source::Field(
        field(field_id::NVML_FI_DEV_POWER_INSTANT),
        MILLIWATT_PER_WATT,
    );
    let average = Source::Field(
        field(field_id::NVML_FI_DEV_POWER_AVERAGE),
        MILLIWATT_PER_WATT,
    );
    let memory = Source::Field(field(field_id::NVML_FI_DEV_MEMORY_TEMP), 1.0);
    let mut margin = vec![Channel::new(
        Metric::ThermalMargin,
        "",
        Gauge,
        Source::ThermalMargin,
    )];
    if let Ok(slowdown_c) = device.temperature_threshold(TemperatureThreshold::Slowdown) {
        let source = Source::BelowSlowdown(f64::from(slowdown_c));
        margin.push(Channel::new(
            Metric::ThermalMargin,
            "slowdown less core",
            Gauge,
            source,
        ));
    }
    let mut choices = vec![
        vec![Channel::new(Metric::PowerInstant, "", Gauge, instant)],
        vec![
            Channel::new(Metric::PowerDraw, "average", Gauge, average).averaged(ONE_SECOND_NS),
            // `nvml.h` gives a window of 1 s for some parts and none for others: not stated.
            Channel::new(Metric::PowerDraw, "usage", Gauge, Source::PowerUsage),
        ],
        vec![Channel::new(Metric::Energy, "", Counter, Source::Energy)],
        vec![Channel::new(Metric::TempCore, "", Gauge, Source::TempCore)],
        vec![Channel::new(Metric::TempMemory, "", Gauge, memory)],
        margin,
        vec![Channel::new(
            Metric::ClockSm,
            "",
            Gauge,
            Source::Clock(Clock::SM),
        )],
        vec![Channel::new(
            Metric::ClockMemory,
            "",
            Gauge,
            Source::Clock(Clock::Memory),
        )],
        vec![Channel::new(
            Metric::Utilisation,
            "",
            Gauge,
            Source::Utilisation,
        )],
        vec![Channel::new(
            Metric::MemoryUsed,
            "",
            Gauge,
            Source::MemoryUsed,
        )],
        vec![Channel::new(
            Metric::ThrottleFrac,
            "reasons",
            Mask,
            Source::ReasonMask,
        )],
    ];
    for reason in WATCHED {
        let timed = reason.counter.map(|id| {
            let source = Source::ReasonTime(field(id), ActiveTime::default());
            Channel::new(reason.metric, reason.label, Gauge, source)
        });
        let masked = Source::ReasonBit(reason.bit);
        let masked = Channel::new(reason.metric, reason.label, Gauge, masked);
        choices.push(timed.into_iter().chain([masked]).collect());
    }
    choices
}

fn health(device: &NvmlDevice) -> Vec<Choice> {
    use SeriesKind::{Counter, Gauge};
    let mut choices = Vec::new();
    let mut push = |metric, label: &str, kind, source| {
        choices.push(vec![Channel::new(metric, label, kind, source)]);
    };
    push(Metric::PowerLimit, "", Gauge, Source::PowerLimit);
    for (metric, error) in [
        (Metric::Ecc, MemoryError::Uncorrected),
        (Metric::EccCorrected, MemoryError::Corrected),
    ] {
        for (label, counter) in [
            ("volatile", EccCounter::Volatile),
            ("aggregate", EccCounter::Aggregate),
        ] {
            push(metric, label, Counter, Source::Ecc(error, counter));
        }
    }
    // A remap that waits or has failed is a state: one that held before the window began is seen too.
    for (label, kind, which) in [
        ("correctable", Counter, Remap::Correctable),
        ("uncorrectable", Counter, Remap::Uncorrectable),
        ("pending", Gauge, Remap::Pending),
        ("failed", Gauge, Remap::Failed),
    ] {
        push(Metric::RowRemap, label, kind, Source::Rows(which));
    }
    push(Metric::PcieReplay, "", Counter, Source::PcieReplays);
    push(Metric::PcieWidth, "", Gauge, Source::PcieWidth);
    push(Metric::PcieGeneration, "", Gauge, Source::PcieGeneration);
    if let Ok(links) = active_links(&device.device) {
        for link in &links {
            if let Some(errors) = LinkErrors::probe(&device.device, *link) {
                push(
                    Metric::NvlinkErr,
                    &format!("link{link}"),
                    Counter,
                    Source::Link(errors),
                );
            }
        }
        push(
            Metric::LinkFlaps,
            "nvlink",
            Counter,
            Source::LinkFlaps(Flaps::new(links)),
        );
    }
    choices
}
