//! `hallmark inspect`: what is here, and for each thing that is not: why, and how to get it.

use crate::cli::{Cuda, Inspect};
use crate::command::say;
use crate::exit::{Exit, Failure};
use crate::sensors::{self, Sources};
use crate::topology;
use hallmark_kernels::device::DeviceInfo;
use hallmark_results::frame::What;
use serde_json::json;
use std::fmt::Write;

/// # Errors
/// [`Failure`] never: what is missing is the answer.
pub fn inspect(args: &Inspect) -> Result<Exit, Failure> {
    let found = topology::find(&args.cuda.choice(), args.cuda.patience());
    let sources = Sources {
        nvml: args.nvml.clone(),
        ..Sources::default()
    };
    let mut sensors = sensors::open(&sources).map_err(Failure::usage)?;
    let host = topology::host();
    let absent: Vec<[String; 3]> = found
        .absent
        .iter()
        .map(|a| [a.what.clone(), a.why.clone(), a.remedy.clone()])
        .chain(sensors.absent.iter().filter_map(absent))
        .collect();
    if args.json {
        let facts = std::mem::take(&mut sensors.facts);
        let described: Vec<_> = sensors
            .present
            .iter_mut()
            .map(|(s, _)| (s.describe(), s.as_found()))
            .collect();
        let sensors: Vec<_> = described
            .iter()
            .map(|(d, settings)| {
                let series: Vec<_> = d.series.iter().map(|s| json!({"metric": s.metric, "label": s.label, "unit": s.unit})).collect();
                json!({"name": d.name, "source": d.source, "provenance": d.provenance, "series": series, "as_found": settings})
            })
            .collect();
        let absent: Vec<_> = absent
            .iter()
            .map(|[what, why, remedy]| json!({"what": what, "why": why, "remedy": remedy}))
            .collect();
        let all = json!({"host": host, "devices": found.devices, "sensors": sensors, "as_found": facts, "absent": absent});
        say(&all.to_string());
        return Ok(Exit::Accepted);
    }
    let mut text = format!(
        "{} · {} · {} · {} cores\n\ndevices\n",
        host.name, host.os, host.cpu, host.cores
    );
    for device in &found.devices {
        write_device(&mut text, device);
    }
    text.push_str("\nsensors\n");
    for (sensor, _) in &mut sensors.present {
        let d = sensor.describe();
        let series: Vec<_> = d
            .series
            .iter()
            .map(|s| format!("{} {}", s.metric, s.label).trim().to_owned())
            .collect();
        let _ = writeln!(
            text,
            "  {:<14} {} · {}",
            d.name,
            d.source,
            series.join(", ")
        );
        for (key, value) in sensor.as_found() {
            let _ = writeln!(text, "  {:<14}   {key}: {value}", "");
        }
    }
    for (key, value) in &sensors.facts {
        let _ = writeln!(text, "  {key}: {value}");
    }
    if !absent.is_empty() {
        text.push_str("\nnot here\n");
    }
    for [what, why, remedy] in &absent {
        let _ = writeln!(text, "  {what}: {why}\n      to get it: {remedy}");
    }
    say(&text);
    Ok(Exit::Accepted)
}

/// Says what one engine sees, for the process that started this one.
///
/// # Errors
/// [`Failure`]: exit 2 for an engine that this build does not have.
pub fn probe(engine: &str, cuda: &Cuda) -> Result<Exit, Failure> {
    let listing = topology::apart::listing(engine, &cuda.choice()).map_err(Failure::usage)?;
    say(&json!(listing).to_string());
    Ok(Exit::Accepted)
}

fn absent(what: &What) -> Option<[String; 3]> {
    match what {
        What::Absent { what, why, remedy } => Some([what.clone(), why.clone(), remedy.clone()]),
        _ => None,
    }
}

fn write_device(text: &mut String, device: &DeviceInfo) {
    let dtypes: Vec<_> = device.dtypes.iter().map(|d| d.name()).collect();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "  {:<7} {} · {} · {}",
        device.id,
        device.name,
        dtypes.join(" "),
        device.memory
    );
    for fact in [&device.pci, &device.uuid].into_iter().flatten() {
        let _ = write!(text, " · {fact}");
    }
    if !device.driver.is_empty() {
        let _ = write!(text, " · driver {}", device.driver);
    }
    for (key, value) in &device.facts {
        let _ = write!(text, " · {key}: {value}");
    }
    text.push('\n');
}
