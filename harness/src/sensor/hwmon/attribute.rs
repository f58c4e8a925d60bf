//! What a file of a hwmon chip measures: kind, number and item of its name, and the chip it is on.
//!
//! Decides: metric, kind and unit of each known file. Refuses: names of another shape, and files
//! whose meaning is not in the catalogue of metrics (voltages, limits of temperature, disks).

use hallmark_profiles::metric::Metric;
use hallmark_results::frame::SeriesKind;

const MILLI: f64 = 1e3;
const MICRO: f64 = 1e6;
/// `pwm` counts from 0 to 255 for full speed; the metric is in %.
const PWM_PER_PERCENT: f64 = 2.55;

/// Drivers of GPUs: their temperatures, clocks and power are a device's.
const GPUS: [&str; 4] = ["amdgpu", "i915", "xe", "nouveau"];
/// Drivers of processors' own temperature sensors.
const PROCESSORS: [&str; 6] = [
    "coretemp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "scmi_sensors",
    "fam15h_power",
];

pub fn is_gpu(chip: &str) -> bool {
    GPUS.contains(&chip)
}

/// Watts of a limit in microwatts, as settings are told.
pub fn watts(microwatts: String) -> Option<String> {
    let value: f64 = microwatts.parse().ok()?;
    Some(format!("{} W", value / MICRO))
}

/// The PCIe generation of a link by its speed, e.g. `32.0 GT/s PCIe`.
pub fn generation(speed: String) -> Option<String> {
    let speeds = ["2.5", "5.0", "8.0", "16.0", "32.0", "64.0"];
    let speed = speed.split(' ').next()?;
    let place = speeds.iter().position(|s| *s == speed)?;
    Some((place + 1).to_string())
}

/// A file name of the shape `temp3_input`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub kind: String,
    pub number: u16,
    /// `input`, `average`, `label` …; empty for `pwm1`.
    pub what: String,
}

impl Attribute {
    pub fn parse(file: &str) -> Option<Self> {
        let (stem, what) = file.split_once('_').unwrap_or((file, ""));
        let digits = stem.find(|c: char| c.is_ascii_digit())?;
        let (kind, number) = stem.split_at(digits);
        let plain = number.chars().all(|c| c.is_ascii_digit());
        Some(Self {
            kind: (plain && !kind.is_empty()).then(|| kind.to_owned())?,
            number: number.parse().ok()?,
            what: what.to_owned(),
        })
    }

    /// `temp3`: the name of a channel that has no label.
    pub fn channel(&self) -> String {
        format!("{}{}", self.kind, self.number)
    }

    /// Another file of the same channel, e.g. `temp3_label`.
    pub fn file(&self, what: &str) -> String {
        format!("{}_{what}", self.channel())
    }
}

/// How a file becomes a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub metric: Metric,
    pub kind: SeriesKind,
    /// How many of the file's units make one of the metric's.
    pub per_unit: f64,
}

const fn gauge(metric: Metric, per_unit: f64) -> Rule {
    Rule {
        metric,
        kind: SeriesKind::Gauge,
        per_unit,
    }
}

/// Files of the GPU's device folder. Source: the kernel's amdgpu and PCI documentation.
pub const DEVICE_FILES: [(&str, Rule); 3] = [
    ("gpu_busy_percent", gauge(Metric::Utilisation, 1.0)),
    ("mem_info_vram_used", gauge(Metric::MemoryUsed, 1.0)),
    ("current_link_width", gauge(Metric::PcieWidth, 1.0)),
];

/// What `attribute` of `chip` measures; `label` is the channel's own, possibly empty.
pub fn rule_for(chip: &str, attribute: &Attribute, label: &str) -> Option<Rule> {
    let of_gpu = is_gpu(chip);
    let rule = match (attribute.kind.as_str(), attribute.what.as_str()) {
        ("temp", "input") if of_gpu && label.starts_with("mem") => gauge(Metric::TempMemory, MILLI),
        ("temp", "input") if of_gpu || PROCESSORS.contains(&chip) => gauge(Metric::TempCore, MILLI),
        ("power", "average") => gauge(Metric::PowerDraw, MICRO),
        ("power", "input") => gauge(Metric::PowerInstant, MICRO),
        ("power", "cap") if of_gpu => gauge(Metric::PowerLimit, MICRO),
        ("energy", "input") => Rule {
            metric: Metric::Energy,
            kind: SeriesKind::Counter,
            per_unit: MICRO,
        },
        ("freq", "input") if of_gpu && label == "sclk" => gauge(Metric::ClockSm, 1.0),
        ("freq", "input") if of_gpu && label == "mclk" => gauge(Metric::ClockMemory, 1.0),
        ("fan", "input") => gauge(Metric::FanSpeed, 1.0),
        ("pwm", "") => gauge(Metric::FanDuty, PWM_PER_PERCENT),
        _ => return None,
    };
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_another_shape_are_refused() {
        let parsed = Attribute::parse("temp3_input").unwrap();
        assert_eq!((parsed.kind.as_str(), parsed.number), ("temp", 3));
        assert_eq!(parsed.file("label"), "temp3_label");
        assert_eq!(Attribute::parse("pwm1").unwrap().what, "");
        for file in [
            "",
            "name",
            "temp_input",
            "3_input",
            "temp3x_input",
            "temp70000_input",
            "_",
        ] {
            assert_eq!(Attribute::parse(file), None, "{file:?}");
        }
    }

    #[test]
    fn a_meter_of_the_whole_node_gives_power_but_no_temperature() {
        let attribute = |file| Attribute::parse(file).unwrap();
        let power = rule_for("power_meter", &attribute("power1_average"), "").unwrap();
        assert_eq!(power.metric, Metric::PowerDraw);
        assert_eq!(rule_for("power_meter", &attribute("temp1_input"), ""), None);
        assert_eq!(rule_for("amdgpu", &attribute("temp1_crit"), ""), None);
    }
}
