//! Which file the management library was really loaded from, and its digest: who tests a machine must be able to tell
//! the driver's own library from one that was put in its place.
//!
//! Decides: the file that the loader mapped, whatever name it was asked for by. Refuses to guess: where the system does
//! not say, the setting says so.

use nvml_wrapper::Nvml;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The file and its SHA-256 as settings found.
pub(super) fn as_found(nvml: &Nvml) -> Vec<(String, String)> {
    let place = nvml
        .lib()
        .nvmlDeviceGetCount_v2
        .as_ref()
        .map_err(|_| "the library lacks the function to find it by".to_owned())
        .and_then(|function| mapped_at(*function as usize));
    let digest = place.clone().and_then(|file| digest(Path::new(&file)));
    let told =
        |found: Result<String, String>| found.unwrap_or_else(|why| format!("unreadable: {why}"));
    vec![
        ("nvml_library".to_owned(), told(place)),
        ("nvml_library_sha256".to_owned(), told(digest)),
    ]
}

/// The file mapped at an address of this process.
#[cfg(target_os = "linux")]
fn mapped_at(address: usize) -> Result<String, String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| e.to_string())?;
    let holds = |line: &&str| {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let bound = |text: &str| usize::from_str_radix(text, 16).ok();
        range.is_some_and(|(from, to)| {
            bound(from).is_some_and(|f| f <= address) && bound(to).is_some_and(|t| address < t)
        })
    };
    let line = maps.lines().find(holds);
    let file = line.and_then(|l| l.find('/').map(|at| l[at..].to_owned()));
    file.ok_or_else(|| "it is mapped from no file".to_owned())
}

#[cfg(not(target_os = "linux"))]
fn mapped_at(_: usize) -> Result<String, String> {
    Err("this system does not say which file was loaded".to_owned())
}

fn digest(file: &Path) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
    Ok(hallmark_results::plan::hex(&Sha256::digest(bytes)))
}
