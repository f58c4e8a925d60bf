//! What a sensor or meter shows where its criterion does not hold.

use hallmark_profiles::metric::Metric;

/// How a series goes wrong.
pub enum Bad {
    /// It reads this all the time, in the metric's unit.
    Reads(f64),
    /// The counter jumps by this in the middle of the phase.
    Jumps(f64),
}

impl Bad {
    /// The value at a share of the judged phase (`here`), or outside of it.
    pub fn at(&self, progress: f64, here: bool) -> f64 {
        match self {
            Self::Reads(value) => *value,
            Self::Jumps(by) if here && progress > 0.5 => 7.0 + by,
            Self::Jumps(_) => 7.0,
        }
    }
}

/// `None` for a metric that nobody has thought of.
pub fn bad(metric: Metric) -> Option<Bad> {
    Some(match metric {
        Metric::ThrottleFrac => Bad::Reads(0.2),
        Metric::PowerDraw => Bad::Reads(620.0),
        Metric::Ecc | Metric::Xid | Metric::RowRemap => Bad::Jumps(1.0),
        Metric::NvlinkErr => Bad::Jumps(40.0),
        Metric::PcieReplay => Bad::Jumps(300.0),
        Metric::LinkFlaps => Bad::Jumps(2.0),
        Metric::PowerRecon => Bad::Reads(-5.0),
        Metric::HeatBalance => Bad::Reads(12.0),
        Metric::RackDensity => Bad::Reads(28.0e3),
        Metric::FlowPerKw => Bad::Reads(0.9),
        Metric::CoolantSupply => Bad::Jumps(4.0),
        Metric::CoolantRise => Bad::Reads(16.0),
        Metric::Approach => Bad::Reads(8.0),
        Metric::DewMargin => Bad::Reads(0.5),
        Metric::RTh => Bad::Reads(0.030),
        Metric::BandEnergy => Bad::Reads(0.3),
        _ => return None,
    })
}
