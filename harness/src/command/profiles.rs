//! `hallmark profiles`: list, show, check, schema.

use crate::cli::Profiles;
use crate::command::say;
use crate::exit::{Exit, Failure};
use hallmark_profiles::profile;
use hallmark_profiles::units::human_duration;
use std::fmt::Write;

/// # Errors
/// [`Failure`] with exit 2 for a profile that is unknown or wrong.
pub fn profiles(command: &Profiles) -> Result<Exit, Failure> {
    match command {
        Profiles::List => say(&list()),
        Profiles::Show { profile } => say(&profile::load(profile).map_err(Failure::usage)?.text),
        Profiles::Check { profile } => {
            let loaded = profile::load(profile).map_err(Failure::usage)?;
            let criteria = loaded.profile.criteria.len();
            let declare = if loaded.profile.accepts_site && loaded.profile.inventory.is_none() {
                "; it declares no devices, so a run needs --expect-devices N"
            } else {
                ""
            };
            say(&format!(
                "{profile} is sound: {criteria} criteria, digest {}{declare}",
                loaded.digest()
            ));
        }
        Profiles::Schema => {
            let schema =
                serde_json::to_string_pretty(&profile::schema()).map_err(Failure::broken)?;
            say(&schema);
        }
    }
    Ok(Exit::Accepted)
}

fn list() -> String {
    let mut text = String::new();
    for (name, _) in profile::BUILT_IN {
        let Ok(loaded) = profile::load(name) else {
            continue;
        };
        let length = loaded
            .profile
            .load
            .phases
            .iter()
            .map(|p| p.duration.duration())
            .sum();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<16} {:>11}  {}",
            human_duration(length),
            loaded.profile.summary
        );
    }
    text
}
