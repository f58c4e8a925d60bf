//! `hallmark site`: check, schema.

use crate::cli::Site;
use crate::command::say;
use crate::exit::{Exit, Failure};
use hallmark_profiles::site::{self, LoadedSite};
use hallmark_profiles::units::{Unit, human};

/// # Errors
/// [`Failure`] with exit 2 for a site file that is wrong.
pub fn site(command: &Site) -> Result<Exit, Failure> {
    match command {
        Site::Check { site } => {
            let loaded = site::load(&site.to_string_lossy()).map_err(Failure::usage)?;
            say(&sound(&loaded));
        }
        Site::Schema => {
            let schema = serde_json::to_string_pretty(&site::schema()).map_err(Failure::broken)?;
            say(&schema);
        }
    }
    Ok(Exit::Accepted)
}

fn sound(loaded: &LoadedSite) -> String {
    let racks = &loaded.site.racks;
    let power = racks.iter().map(|r| r.contract_power.value).sum();
    format!(
        "{} is sound: hall {} of {} ({}), {} racks under {}, {} nodes, {} devices, digest {}",
        loaded.origin,
        loaded.site.hall,
        loaded.site.name,
        loaded.site.country,
        racks.len(),
        human(power, Unit::Watt),
        loaded.nodes().count(),
        loaded.inventory().devices,
        loaded.digest()
    )
}
