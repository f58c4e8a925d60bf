//! Scales a profile's phases to the length that the command line asks for.
//!
//! It keeps their proportions, and refuses a length in which a phase would be too short to show anything.

use super::PlanError;
use hallmark_profiles::profile::Profile;
use hallmark_profiles::quantity::Time;
use hallmark_profiles::units::human_duration;
use std::time::Duration;

/// A phase is never scaled below this.
pub const PHASE_MIN_MS: u64 = 200;

/// How long a profile's schedule lasts at most: ramps, warm-up and phases.
pub fn planned(profile: &Profile) -> Duration {
    let load = &profile.load;
    let levels = load.ramp.levels.len() as u32;
    let phases: Duration = load.phases.iter().map(|p| p.duration.duration()).sum();
    load.ramp.hold.duration() * levels * 2 + load.warmup.limit.duration() + phases
}

/// Scales all phases so that together they last `total`.
///
/// # Errors
/// [`PlanError::TooShort`], which says the shortest length that will do.
pub fn shorten(profile: &mut Profile, total: Time) -> Result<(), PlanError> {
    let phases = &mut profile.load.phases;
    let planned: Duration = phases.iter().map(|p| p.duration.duration()).sum();
    let factor = total.duration().as_secs_f64() / planned.as_secs_f64();
    let least = Duration::from_millis(PHASE_MIN_MS);
    let shortest = phases.iter().min_by_key(|p| p.duration.duration());
    if let Some(phase) = shortest {
        let length = phase.duration.duration();
        if length.mul_f64(factor) < least {
            // Rounded up to what a person would type.
            let needed = planned.mul_f64(least.as_secs_f64() / length.as_secs_f64());
            let unit = match needed.as_secs() {
                0..60 => 0.1,
                60..3_600 => 1.0,
                _ => 60.0,
            };
            let rounded = (needed.as_secs_f64() / unit).ceil() * unit;
            return Err(PlanError::TooShort {
                asked: total,
                phase: phase.name.clone(),
                short: human_duration(length.mul_f64(factor)),
                least: human_duration(Duration::from_secs_f64(rounded)),
            });
        }
    }
    for phase in phases {
        // No share is longer than the whole, whatever rounding says.
        let scaled = Time::new(phase.duration.duration().mul_f64(factor));
        phase.duration = scaled.unwrap_or(total);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::profile::load;

    #[test]
    fn the_length_that_a_refusal_names_is_accepted() {
        for name in ["smoke", "soak", "hall-acceptance"] {
            let profile = load(name).unwrap().profile;
            let asked = "1 s".parse().unwrap();
            let told = shorten(&mut profile.clone(), asked)
                .unwrap_err()
                .to_string();
            let least = told.rsplit_once("use at least ").unwrap().1;
            // People write `35 min 2 s` in one word less.
            let least: Duration = least
                .split('\u{a0}')
                .collect::<Vec<_>>()
                .chunks(2)
                .map(|part| format!("{} {}", part[0], part[1]).parse::<Time>().unwrap())
                .map(Time::duration)
                .sum();
            let mut profile = profile;
            shorten(&mut profile, Time::new(least).unwrap()).unwrap();
            let phases = profile.load.phases.iter();
            assert!(
                phases
                    .map(|p| p.duration.duration())
                    .all(|d| d >= Duration::from_millis(PHASE_MIN_MS)),
                "{told}"
            );
        }
    }
}
