//! What makes a run another one than its profile promises, one sentence each. A changed run accepts no site.
//!
//! It decides what counts as a change: whatever lets somebody choose what is measured, or by what. It changes nothing.

use super::Settings;
use hallmark_profiles::profile::{Loaded, namesake};
use std::path::Path;

/// The name under which all accelerators, or else the processor, take part.
pub const EVERY_DEVICE: &str = "auto";

/// All changes but those of the load itself, which [`super::make`] carries out.
pub(super) fn of(loaded: &Loaded, settings: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    if let Some((name, built_in)) = namesake(loaded) {
        changes.push(format!(
            "profile {} is called `{name}` and is not the built-in one: its digest is {}, not {}; give a changed profile \
             a name of its own",
            loaded.origin,
            short(&loaded.digest()),
            short(&built_in)
        ));
    }
    if settings.devices.iter().any(|d| d != EVERY_DEVICE) {
        changes.push(format!(
            "--devices {}: devices were chosen by name, and others were left out",
            settings.devices.join(",")
        ));
    }
    changes.extend(settings.nvml.as_deref().map(nvml));
    changes.extend(settings.worker.as_deref().map(worker));
    changes
}

/// NVML from a file that was given by hand; a resumed run must not bring in one that its plan does not name.
pub fn nvml(path: &Path) -> String {
    format!(
        "--nvml {}: telemetry came from a library that was given by hand, not from the driver's usual place",
        path.display()
    )
}

/// Devices driven by another program; they are stand-ins then.
pub fn worker(path: &Path) -> String {
    format!(
        "{} {}: devices were driven by another program than this one",
        crate::shell::fleet::WORKER_BINARY,
        path.display()
    )
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
