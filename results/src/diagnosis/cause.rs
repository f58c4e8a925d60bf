//! The closed list of causes: what each is called, whose side it is, how it shows, what to do.
//!
//! One entry for each physical fault that a hall can have and that a record can show. A diagnosis names
//! an entry of this list or says [`Cause::Unknown`]; nothing invents another. It decides no outcome, and
//! it holds no threshold: those stand beside the rules that read the series.

use hallmark_profiles::criterion::Side;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// One entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseSpec {
    /// The name in records, reports and scores.
    pub id: &'static str,
    /// As people call it.
    pub name: &'static str,
    /// Who has to act.
    pub side: Side,
    /// Which series move, and which way.
    pub moves: &'static str,
    /// Which series stay as they were: what tells it from its neighbours.
    pub stays: &'static str,
    /// What to do, as an instruction.
    pub remedy: &'static str,
}

/// A name that is not on the list.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown cause `{name}`; known: {known}")]
pub struct UnknownCause {
    pub name: String,
    pub known: String,
}

macro_rules! causes {
    ($($variant:ident $id:literal, $side:ident, $name:literal, $moves:literal, $stays:literal, $remedy:literal;)+) => {
        /// Why something is as it is. Written as its id: `cold_plate`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause {
            $(#[doc = $name] $variant,)+
        }

        impl Cause {
            /// Every cause, in the list's order.
            pub const ALL: &'static [Cause] = &[$(Cause::$variant),+];

            /// The entry of the list.
            #[must_use]
            pub const fn spec(self) -> &'static CauseSpec {
                match self {
                    $(Cause::$variant => &CauseSpec {
                        id: $id,
                        name: $name,
                        side: Side::$side,
                        moves: $moves,
                        stays: $stays,
                        remedy: $remedy,
                    },)+
                }
            }
        }
    };
}

causes! {
    // The device's own work.
    SlowSilicon "slow_silicon", It, "slow device",
        "rate while computing below its peers' from the start, and by more than temperature, clock and cap explain",
        "temperature, clock, power limit and thermal resistance like its peers'",
        "Retest the device alone; replace it if it stays slow.";
    SlowDrift "slow_drift", It, "slow drift",
        "rate falls steadily over hours while its peers' does not",
        "no step; temperature, clock and cap explain none of the fall",
        "Retest the device after a cold start; replace it if the fall goes on.";
    ThermalThrottle "thermal_throttle", Hall, "thermal throttling",
        "core temperature up, then clock down and time under a thermal reason up, rate with it",
        "power limit; no power brake",
        "Look at coolant supply, flow and cold plates of the place named.";
    MemoryThrottle "memory_throttle", It, "memory throttling",
        "memory rate or memory clock down, memory temperature up",
        "core temperature, core clock and matmul rate",
        "Look at the memory's cooling (pads, back plate) of the device named.";
    // Heat, from the chip outwards.
    ColdPlate "cold_plate", Hall, "cold plate badly seated",
        "thermal resistance of one device up from the start or by a step, its temperature with it",
        "power, flow, supply, and the resistance of its neighbours on the same branch",
        "Reseat the cold plate of the device named and renew its paste.";
    PumpOut "pump_out", Hall, "thermal paste pumped out",
        "thermal resistance of one device climbs over hours",
        "no step; power, flow, supply, and the resistance of its neighbours",
        "Renew the thermal paste of the device named.";
    BranchFlow "branch_flow", Hall, "branch flow low",
        "temperature over the common reference up on a whole tray, node or rack, its flow down and coolant rise up",
        "the devices of other branches, supply, power",
        "Look at valve, filter, quick coupling and air lock of the branch named.";
    SupplyWarm "supply_warm", Hall, "coolant supply too warm",
        "coolant supply up, all temperatures of its loop up by as much",
        "thermal resistance, flow, power",
        "Correct the set point of the CDU or its facility water.";
    Hunting "hunting", Hall, "CDU control hunting",
        "supply and all temperatures of its loop swing with one period between 30 and 300 s",
        "the load, which does not swing with that period; the mean",
        "Retune the CDU's supply control.";
    PumpTrip "pump_trip", Hall, "pump trip",
        "flow and pump speed fall by a step, coolant rise and temperatures follow",
        "supply at first; the load",
        "Find why the pump stopped, and whether its twin took over.";
    DewPoint "dew_point", Hall, "supply below the dew point",
        "margin to the dew point below its limit",
        "temperatures and rates, which look well",
        "Raise the coolant supply or dry the air at once: water condenses.";
    // Power.
    PowerBrake "power_brake", Hall, "power supply lost, power brake",
        "clock falls by a step to about half, the brake's reason is active, power with it",
        "temperature falls rather than rises; power limit",
        "Replace the power supply of the node named and look at its feed.";
    PowerCap "power_cap", It, "power limit lowered",
        "power at a ceiling below its peers', time under the power cap up, clock down",
        "temperature and thermal reasons; power limit of other nodes",
        "Set the power limit of the place named back to the rated one.";
    RackCap "rack_cap", Hall, "rack capped",
        "rack power flat at a ceiling while the load asks for more, clocks of the whole rack down",
        "other racks; thermal reasons",
        "Find what caps the rack: PDU, breaker or a management limit.";
    FeedLoss "feed_loss", Hall, "feed lost",
        "all devices of a node or rack are gone at one instant, its meter reads zero",
        "everything elsewhere",
        "Find which feed, breaker or transfer switch opened.";
    PowerSwing "power_swing", Hall, "power swings",
        "feeder or rack power swings with a line in its spectrum between 0.1 and 20 Hz",
        "its mean",
        "Smooth the load or stiffen the feed; compare with what the utility allows.";
    // Links and hosts.
    LinkDown "link_down", Link, "link flaps",
        "flap counter up, single operations as long as the outage",
        "operations in between; rates while computing",
        "Reseat or replace the cable, module or port named.";
    LinkSlow "link_slow", Link, "link at a reduced rate",
        "every all-reduce longer from one instant on, link errors, width or generation may tell which",
        "rates while computing; temperatures",
        "Reseat or replace the link named, or find it by pairs.";
    Congestion "congestion", Link, "congested rail",
        "few operations many times as long (p99.9)",
        "median and p50 to p95 of operations; counters of flaps and errors",
        "Look at the fabric's routing, buffers and other tenants.";
    HostJitter "host_jitter", It, "host jitter",
        "few steps of one node late by milliseconds, time outside kernels up there",
        "rates while computing, temperatures, clocks",
        "Find what runs on the host named: daemons, interrupts, power states.";
    // Wrong results and broken parts.
    DataCorruption "data_corruption", It, "wrong results",
        "audits find wrong bits on a device",
        "the time of the wrong results has nothing to do with temperature",
        "Replace the device: it returned wrong results.";
    HotCorruption "hot_corruption", It, "wrong results when hot",
        "audits find wrong bits on a device, nearly all while it is among its hottest",
        "none found while it is cool",
        "Replace the device: it returned wrong results; its cooling may hide it.";
    ReduceCorruption "reduce_corruption", Link, "all-reduce corrupts",
        "reduced sums or digests differ between ranks",
        "matmul audits, which are right",
        "Isolate the link or switch by pairs; do not train over it.";
    EccBurst "ecc_burst", It, "memory errors",
        "uncorrected or corrected ECC errors or remapped rows grow",
        "rates, temperatures",
        "Replace the device or its memory.";
    DeviceLost "device_lost", It, "device lost",
        "a device's steps and readings end, an Xid or a dead worker with them",
        "its neighbours, who form the group anew",
        "Look the error up, reset or replace the device.";
    Missing "missing", It, "missing at the start",
        "a declared device, node or series is not there when the run begins",
        "what is there",
        "Bring what is missing back, or declare the hall without it.";
    Settings "settings", It, "set up out of line",
        "a setting as found differs from the peers', or from what the site's file promises",
        "nothing need move",
        "Bring the setting into line with the other devices' and the site's file.";
    ShortcutWork "shortcut_work", It, "less work than asked",
        "work per joule or rate beyond what the part can do, or audits that miss bits",
        "power lower than the work needs",
        "Find what answered in the device's place: zeros, lower precision, a stand-in.";
    // The measurement itself.
    SensorStuck "sensor_stuck", Harness, "sensor stuck",
        "a reading stops moving and stays at one value while its peers move",
        "the load and all other readings of the device",
        "Reset or replace the sensor named.";
    SensorScaled "sensor_scaled", Harness, "sensor scaled",
        "a reading is off by one factor; sums of parts and meters do not agree",
        "rate, clock and temperature, which belong to the true value",
        "Calibrate the sensor or meter named.";
    SensorStale "sensor_stale", Harness, "sensor stale",
        "a reading follows the load and its peers late, or is told again and again before it moves",
        "its size and shape",
        "Find what buffers the sensor's readings.";
    SensorReplayed "sensor_replayed", Harness, "sensor replayed",
        "a stretch of readings comes again, digit for digit",
        "its peers do not repeat theirs",
        "Find who feeds old readings in; trust nothing of this source.";
    ClockSkew "clock_skew", Harness, "clock skew",
        "all readings of a node come before or after the load by one lag, or its clock is off",
        "their sizes and shapes",
        "Run a time daemon (chrony, PTP) on the node named.";
    AgentRestart "agent_restart", Harness, "agent interrupted",
        "a gap in everything that a node tells, then it goes on",
        "what it tells before and after",
        "Find why the agent or its network stopped.";
    RecordTampered "record_tampered", Harness, "record edited",
        "the chain of digests breaks: a frame was changed, cut or moved",
        "–",
        "Take nothing from this record; find who could write it.";
    ThresholdsChanged "thresholds_changed", Harness, "limits changed after the run",
        "the profile or plan is not the one whose digest the record names",
        "the readings",
        "Judge by the profile that was fixed before the run.";
    Unknown "unknown", It, "cause unknown",
        "none of the patterns on this list fits what was seen",
        "–",
        "Retest the place named and look at its pictures.";
}

impl Cause {
    /// The name in records, reports and scores.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.spec().id
    }

    /// As people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.spec().name
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl FromStr for Cause {
    type Err = UnknownCause;

    fn from_str(name: &str) -> Result<Self, UnknownCause> {
        let found = Self::ALL.iter().copied().find(|c| c.id() == name);
        found.ok_or_else(|| UnknownCause {
            name: name
                .chars()
                .take(40)
                .map(|c| if c.is_control() { '?' } else { c })
                .collect(),
            known: Self::ALL
                .iter()
                .map(|c| c.id())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.id())
    }
}

impl<'de> Deserialize<'de> for Cause {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_reads_back_by_its_own_name_and_no_two_share_one() {
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(cause.id().parse::<Cause>(), Ok(*cause));
            let spec = cause.spec();
            assert!(!spec.name.is_empty() && !spec.moves.is_empty() && !spec.stays.is_empty());
            assert!(spec.remedy.ends_with('.'), "{cause}");
            let others = &Cause::ALL[index + 1..];
            assert!(
                others
                    .iter()
                    .all(|o| o.id() != cause.id() && o.name() != cause.name())
            );
        }
    }

    #[test]
    fn an_unknown_cause_is_one_line_that_lists_every_known_one() {
        let error = "gremlins\n".parse::<Cause>().unwrap_err().to_string();
        assert!(error.starts_with("unknown cause `gremlins?`; known: slow_silicon, "));
        assert!(Cause::ALL.iter().all(|c| error.contains(c.id())));
        assert_eq!(error.lines().count(), 1);
    }
}
