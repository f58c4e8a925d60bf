//! The one catalogue of what is measured: id, unit, which way is better, how it is computed, where the definition is from.
//!
//! A producer names an entry, a criterion judges an entry; a name that is not here is an error that lists those that are.
//! It decides no limit: limits are a profile's.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::units::Unit;

/// Which way a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
    /// A state, not an achievement: judged by a band, or not at all.
    Neutral,
}

/// One entry of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MetricSpec {
    /// The name in profiles, records and reports.
    pub id: &'static str,
    /// The unit of every sample and limit.
    pub unit: Unit,
    pub better: Better,
    /// How it is computed.
    pub definition: &'static str,
    /// Where the definition or the figure comes from.
    pub source: &'static str,
    /// The kinds of place that it is measured at or rolled up to.
    pub scope: &'static [&'static str],
}

/// A name that is not in the catalogue.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown metric `{name}`{hint}; known: {known}")]
pub struct UnknownMetric {
    pub name: String,
    pub hint: String,
    pub known: String,
}

macro_rules! catalogue {
    ($($variant:ident $id:literal, $unit:ident, $better:ident, [$($scope:literal),+], $definition:literal, $source:literal;)+) => {
        /// What is measured. Written as its id: `matmul_rate`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $definition] $variant,)+
        }

        impl Metric {
            /// Every metric, in the catalogue's order.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),+];

            /// The entry of the catalogue.
            #[must_use]
            pub const fn spec(self) -> &'static MetricSpec {
                match self {
                    $(Metric::$variant => &MetricSpec {
                        id: $id,
                        unit: Unit::$unit,
                        better: Better::$better,
                        definition: $definition,
                        source: $source,
                        scope: &[$($scope),+],
                    },)+
                }
            }
        }
    };
}

catalogue! {
    // Load.
    MatmulRate "matmul_rate", FlopPerSecond, Higher, ["gpu", "node", "rack", "site"],
        "2·m·n·k of the GEMMs completed in a 10 s block / the block's length on the run clock, stalls included; in FLOP/s", "hallmark";
    KernelRate "kernel_rate", FlopPerSecond, Higher, ["gpu"],
        "2·m·n·k of GEMMs / their time on the device clock, in FLOP/s; diagnostic: it hides every stall, so it is never judged", "hallmark";
    MatmulEfficiency "matmul_efficiency", One, Higher, ["gpu", "node", "rack", "site"],
        "matmul_rate / the SKU's reference rate for the same dtype", "ml-engineering, maximum achievable matmul FLOPS";
    SustainRatio "sustain_ratio", One, Higher, ["gpu", "rack", "site"],
        "median of the last tenth of the steady blocks / median of the first tenth, each of at least 60 blocks", "hallmark (proposed)";
    Drift "drift", PercentPerDay, Neutral, ["gpu", "rack", "site"],
        "Theil–Sen slope of matmul_rate over 1 h blocks, in % of its median a day; only from 24 h on", "hallmark";
    HbmRate "hbm_rate", BytePerSecond, Higher, ["gpu"],
        "bytes read + bytes written / time of the device copy and triad on the device clock, in B/s", "BabelStream's counting";
    StepTime "step_time", Second, Lower, ["gpu", "group"],
        "from due to the end on the slowest rank, in s; closed loop: due when the predecessor ends; open loop: the plan's time, which never moves",
        "coordinated omission (Tene)";
    StepsCompleted "steps_completed", Count, Higher, ["gpu", "group", "site"],
        "steps that every rank completed on its device clock, warm-up included", "hallmark";
    StepSkew "step_skew", One, Lower, ["group"],
        "maximum / median over the ranks of the compute time of one step", "hallmark";
    ExposedComm "exposed_comm", One, Lower, ["gpu", "group"],
        "(overlapped step − compute-only step) / overlapped step, of the medians", "hallmark";
    ScalingEfficiency "scaling_efficiency", One, Higher, ["group"],
        "rate of steps of all ranks together / the sum of what the nodes reach each by itself, of the medians", "hallmark";
    IdleGap "idle_gap", One, Lower, ["gpu"],
        "device time between two operations that the load driver left empty / window; closed loop only", "hallmark";
    Duty "duty", One, Higher, ["gpu", "group", "site"],
        "time under load / planned time under load; the gap of a resumed run counts as lost", "hallmark";
    // Collectives.
    AllreduceAlgbw "allreduce_algbw", BytePerSecond, Higher, ["group"],
        "buffer of each rank / time until the slowest rank ends, per message size, in B/s", "nccl-tests PERFORMANCE.md";
    AllreduceBusbw "allreduce_busbw", BytePerSecond, Higher, ["group"],
        "allreduce_algbw · 2(n − 1)/n over n ranks, in B/s; judged on the plateau of sizes, never on their mean", "nccl-tests PERFORMANCE.md";
    AllreduceLatency "allreduce_latency", Second, Lower, ["group"],
        "from due to the end on the slowest rank, in s; the skew of arrivals is logged apart from the transfer", "hallmark";
    // Power and energy.
    PowerDraw "power_draw", Watt, Neutral, ["gpu", "node", "rack", "feeder", "site"],
        "power averaged over the window that its series states, in W", "EE HPC WG power measurement methodology, NVML";
    PowerInstant "power_instant", Watt, Neutral, ["gpu", "node", "rack", "feeder"],
        "power at the instant of the reading, in W", "NVML field NVML_FI_DEV_POWER_INSTANT";
    PowerLimit "power_limit", Watt, Neutral, ["gpu"],
        "power limit that the driver enforces, in W", "NVML enforced power limit";
    Energy "energy", Joule, Neutral, ["gpu", "node", "rack", "feeder", "site"],
        "difference of the energy counter over the window, in J, wraps resolved; integral of power where there is no counter, and the series says so",
        "EE HPC WG, NVML, RAPL";
    PowerRecon "power_recon", Percent, Neutral, ["rack", "site"],
        "(sum of the node powers − PDU power) / PDU power, or PDU against feeder, in %", "hallmark";
    RackDensity "rack_density", Watt, Higher, ["rack"],
        "mean of rack power over each loaded minute, in W", "contract of the hall";
    PowerSwing "power_swing", Watt, Lower, ["rack", "feeder"],
        "peak − trough of power within one cycle, in W", "arXiv 2508.14318";
    Ramp "ramp", WattPerSecond, Lower, ["rack", "feeder"],
        "largest |ΔP/Δt| at Δt = 1 s, in W/s", "arXiv 2508.14318";
    BandEnergy "band_energy", One, Lower, ["rack", "feeder"],
        "share of the variance of power between 0.1 and 20 Hz", "arXiv 2508.14318";
    FlopPerJoule "flop_per_joule", FlopPerJoule, Higher, ["gpu", "node", "site"],
        "verified FLOP / energy at the outermost meter present, which the series names, in FLOP/J", "hallmark";
    // Heat.
    TempCore "temp_core", Celsius, Lower, ["gpu", "node"],
        "temperature of the processor's core sensor, in °C", "NVML, hwmon";
    TempMemory "temp_memory", Celsius, Lower, ["gpu"],
        "temperature of the device memory's sensor, in °C", "NVML, hwmon";
    ThermalMargin "thermal_margin", Kelvin, Higher, ["gpu"],
        "distance from the temperature to the device's own slowdown limit, in K", "NVML";
    RTh "r_th", KelvinPerWatt, Lower, ["gpu"],
        "ΔT/ΔP between two power levels, T relative to the coolant's inlet so that sensor offsets cancel, in K/W", "hallmark";
    Tau "tau", Second, Neutral, ["gpu"],
        "time constant of the slow pole of a two-pole fit to a step of power, in s", "hallmark";
    FanDuty "fan_duty", Percent, Neutral, ["gpu", "node"],
        "commanded share of the fan's full speed, in %", "NVML";
    FanSpeed "fan_speed", RevolutionPerMinute, Neutral, ["gpu", "node"],
        "measured fan speed, in rpm", "hwmon";
    PumpSpeed "pump_speed", RevolutionPerMinute, Neutral, ["cdu"],
        "measured pump speed, in rpm", "CDU";
    CoolantSupply "coolant_supply", Celsius, Neutral, ["cdu", "rack"],
        "temperature of the coolant to the racks as measured by the CDU, in °C", "ASHRAE TC 9.9, OCP";
    CoolantReturn "coolant_return", Celsius, Neutral, ["cdu", "rack"],
        "temperature of the coolant from the racks as measured by the CDU, in °C", "ASHRAE TC 9.9, OCP";
    CoolantRise "coolant_rise", Kelvin, Lower, ["cdu", "rack"],
        "coolant_return − coolant_supply, in K", "ASHRAE TC 9.9, OCP";
    Flow "flow", LitrePerMinute, Higher, ["cdu", "rack"],
        "volume flow of the coolant, in L/min", "ASHRAE TC 9.9, OCP";
    FlowPerKw "flow_per_kw", LitrePerMinutePerKilowatt, Higher, ["cdu", "rack"],
        "flow / liquid-cooled power, in L/min per kW", "ASHRAE TC 9.9, OCP";
    Approach "approach", Kelvin, Lower, ["cdu"],
        "coolant_supply − temperature of the facility water to the CDU, in K", "ASHRAE TC 9.9, OCP";
    DewMargin "dew_margin", Kelvin, Higher, ["cdu", "rack"],
        "coolant_supply − dew point of the air at the racks, in K", "ASHRAE TC 9.9, OCP";
    HeatBalance "heat_balance", Percent, Neutral, ["cdu", "rack"],
        "ρ·c_p·flow·ΔT / liquid-cooled power − 1, in %", "hallmark";
    InterimPue "interim_pue", One, Lower, ["site"],
        "energy of the data center / energy of the IT over the run, stamped with wet bulb and load", "ISO/IEC 30134-2";
    CoolingPpue "cooling_ppue", One, Lower, ["site"],
        "(energy of the IT + energy of the cooling) / energy of the IT", "ISO/IEC 30134-2";
    Itue "itue", One, Lower, ["site"],
        "energy into the IT / energy into its computing parts, without fans, pumps and power supplies", "Patterson et al., ISC 2013";
    Tue "tue", One, Lower, ["site"],
        "itue × interim_pue", "Patterson et al., ISC 2013";
    Wue "wue", LitrePerKilowattHour, Lower, ["site"],
        "water used / energy of the IT, in L/kWh", "ISO/IEC 30134-9";
    // Device state.
    ClockSm "clock_sm", Hertz, Higher, ["gpu"],
        "clock of the compute units, in Hz", "NVML, hwmon";
    ClockMemory "clock_memory", Hertz, Higher, ["gpu"],
        "clock of the device memory, in Hz", "NVML, hwmon";
    Utilisation "utilisation", Percent, Neutral, ["gpu"],
        "share of the driver's sampling window with a kernel resident, in %; says nothing of how busy it was", "NVML";
    MemoryUsed "memory_used", Byte, Neutral, ["gpu", "node"],
        "memory in use, in bytes", "NVML, /proc/meminfo";
    CpuFrequency "cpu_frequency", Hertz, Higher, ["node"],
        "mean over the cores of their current frequency, in Hz", "Linux cpufreq, /proc/cpuinfo";
    CpuLoad "cpu_load", Percent, Neutral, ["node"],
        "busy time of all cores / elapsed time × cores, in %", "/proc/stat";
    ThrottleFrac "throttle_frac", One, Lower, ["gpu"],
        "Δ(time a reason was active)/Δt, one series per reason of thermal, hardware slowdown, power brake; reasons are a mask, several hold at once",
        "NVML clocks-event reasons and violation counters";
    PowerCapFrac "power_cap_frac", One, Neutral, ["gpu"],
        "Δ(time the software power cap was active)/Δt; normal at full load, so reported and not failed", "NVML clocks-event reasons";
    // Faults.
    Xid "xid", Count, Lower, ["gpu"],
        "Xid events inside the window", "NVML events";
    Ecc "ecc", Count, Lower, ["gpu"],
        "increase of the uncorrected ECC error counter inside the window", "NVML";
    EccCorrected "ecc_corrected", Count, Lower, ["gpu"],
        "increase of the corrected ECC error counter inside the window", "NVML";
    RowRemap "row_remap", Count, Lower, ["gpu"],
        "increase of the remapped rows inside the window; beside it states that are 1 while a remap waits for a reset or has failed", "NVML";
    NvlinkErr "nvlink_err", Count, Lower, ["gpu", "port"],
        "increase of the NVLink replay, recovery and CRC counters inside the window", "NVML";
    PcieReplay "pcie_replay", Count, Lower, ["gpu"],
        "increase of the PCIe replay counter inside the window", "NVML";
    PcieWidth "pcie_width", Count, Higher, ["gpu"],
        "lanes that the PCIe link runs at", "NVML, Linux sysfs";
    PcieGeneration "pcie_generation", Count, Higher, ["gpu"],
        "generation that the PCIe link runs at; idle devices lower it, so only loaded samples are judged", "NVML, Linux sysfs";
    LinkFlaps "link_flaps", Count, Lower, ["gpu", "port"],
        "times that a link went down or changed its width or speed inside the window", "NVML, Linux sysfs";
    Inventory "inventory", Count, Lower, ["node", "rack", "site"],
        "declared devices that were missing at the start", "hallmark";
    Failures "failures", Count, Lower, ["gpu", "node", "site"],
        "faults after the start: devices lost, workers killed, operations that never ended", "hallmark";
    // Integrity.
    AuditErrors "audit_errors", Count, Lower, ["gpu", "site"],
        "audited results that were not bit-identical to what exact arithmetic gives; self-tests not counted", "hallmark";
    AuditExposure "audit_exposure", Flop, Higher, ["gpu", "site"],
        "FLOP of the GEMMs whose result was audited; self-tests not counted", "hallmark";
    AuditShare "audit_share", One, Higher, ["gpu", "site"],
        "audited GEMMs / completed GEMMs", "hallmark";
    SdcUcl "sdc_ucl", PerFlop, Lower, ["gpu", "site"],
        "upper 95 % bound of silent errors per FLOP: 3 / audit_exposure when none was seen, the exact Poisson bound otherwise", "rule of three";
    SelfTest "self_test", One, Higher, ["gpu"],
        "1 when the bit that was flipped in a result on purpose was caught, 0 when it was missed", "hallmark";
    // The measurement itself.
    TelemetryCoverage "telemetry_coverage", Percent, Higher, ["series"],
        "samples received / samples expected inside the window, in %", "EE HPC WG";
    TelemetryAge "telemetry_age", Second, Lower, ["series"],
        "now − time at the source of the newest sample, in s", "hallmark";
    TelemetryGap "telemetry_gap", Second, Lower, ["series"],
        "longest time between two neighbouring samples, in s, less the period of a meter that is slower than 1 Hz; ends of the window included", "hallmark";
    ClockOffset "clock_offset", Second, Neutral, ["node"],
        "clock of the node − clock of the controller, in s, with its uncertainty", "NTP's exchange";
}

impl Metric {
    /// The name in profiles, records and reports.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.spec().id
    }

    /// Every id, comma separated, for errors.
    #[must_use]
    pub fn known() -> String {
        Metric::ALL
            .iter()
            .map(|metric| metric.id())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Metric, UnknownMetric> {
        let found = Metric::ALL
            .iter()
            .copied()
            .find(|metric| metric.id() == name);
        found.ok_or_else(|| UnknownMetric {
            name: shortened(name),
            hint: hint(name),
            known: Metric::known(),
        })
    }
}

/// One clear line, whatever the file holds.
fn shortened(name: &str) -> String {
    name.chars()
        .take(40)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The known id that is at most three edits away, if there is one.
fn hint(name: &str) -> String {
    if name.len() > 40 {
        return String::new();
    }
    let nearest = Metric::ALL
        .iter()
        .map(|metric| (edits(name, metric.id()), metric.id()))
        .min();
    match nearest {
        Some((distance, id)) if distance <= 3 => format!(" (did you mean `{id}`?)"),
        _ => String::new(),
    }
}

/// Levenshtein distance, in characters.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, to) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Metric, D::Error> {
        struct Id;
        impl Visitor<'_> for Id {
            type Value = Metric;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the id of a metric, such as \"matmul_rate\"")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Metric, E> {
                name.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Id)
    }
}

impl JsonSchema for Metric {
    fn schema_name() -> Cow<'static, str> {
        "Metric".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Metric").into()
    }

    /// One alternative per metric, so that an editor shows its definition beside its name.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let entry = |metric: &Metric| json_schema!({ "const": metric.id(), "description": metric.spec().definition });
        let entries: Vec<Schema> = Metric::ALL.iter().map(entry).collect();
        json_schema!({ "description": "What is measured.", "type": "string", "oneOf": entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_reads_back_by_its_own_name() {
        for metric in Metric::ALL {
            assert_eq!(metric.id().parse::<Metric>(), Ok(*metric));
            assert!(
                metric
                    .id()
                    .bytes()
                    .all(|b| b == b'_' || b.is_ascii_lowercase()),
                "{metric} is not snake_case"
            );
        }
    }

    #[test]
    fn an_id_is_the_snake_case_of_its_variant() {
        for metric in Metric::ALL {
            let mut expected = String::new();
            for c in format!("{metric:?}").chars() {
                if c.is_uppercase() && !expected.is_empty() {
                    expected.push('_');
                }
                expected.extend(c.to_lowercase());
            }
            assert_eq!(metric.id(), expected);
        }
    }

    #[test]
    fn an_unknown_name_lists_every_known_one_and_the_nearest() {
        let error = "matmul_rte".parse::<Metric>().unwrap_err().to_string();
        assert!(error.starts_with(
            "unknown metric `matmul_rte` (did you mean `matmul_rate`?); known: matmul_rate, "
        ));
        for metric in Metric::ALL {
            assert!(error.contains(metric.id()), "{metric} is not listed");
        }
        let error = "\u{1b}[31mnonsense".parse::<Metric>().unwrap_err();
        assert_eq!(
            (error.name.as_str(), error.hint.as_str()),
            ("?[31mnonsense", "")
        );
    }

    #[test]
    fn every_definition_names_a_unit_that_is_not_a_ratio_or_a_count() {
        for metric in Metric::ALL {
            let spec = metric.spec();
            assert!(
                !spec.definition.is_empty() && !spec.source.is_empty() && !spec.scope.is_empty(),
                "{metric}"
            );
            let symbol = spec.unit.symbol();
            let named = match spec.unit {
                Unit::One | Unit::Count => true,
                Unit::Byte => spec.definition.contains("bytes"),
                Unit::PerFlop => spec.definition.contains("per FLOP"),
                Unit::PercentPerDay => spec.definition.contains("% of its median a day"),
                Unit::LitrePerMinutePerKilowatt => spec.definition.contains("L/min per kW"),
                _ => spec.definition.contains(symbol),
            };
            assert!(
                named,
                "{metric}: `{}` does not say {symbol}",
                spec.definition
            );
        }
    }
}
