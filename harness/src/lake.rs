//! Many runs side by side: sealed records in hive partitions, in a folder or in an S3-compatible store.
//!
//! Decides where what lies: `record/site=S/date=D/run=R/node=N/` holds the record's files byte for byte, so that it is
//! judged from there as from anywhere; `verdicts/`, `findings/`, `devices/` and `windows/` with the same partitions hold
//! JSON lines that queries join. A record is there when its `seal` is, which is written last; it is never replaced by
//! another. It refuses names that would have to be escaped in a path, as engines disagree on how.

mod store;

pub use store::{Lake, LakeError};

use hallmark_results::frame::Opened;

/// The folder of the records themselves.
pub const RECORDS: &str = "record";
/// Characters of a partition's name at most.
const NAME_MAX: usize = 128;

/// Where one record belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    site: String,
    date: String,
    run: String,
    node: String,
}

impl Partition {
    /// Of a record opened at `site`; the date is that of its start in UTC, the node the host that wrote it.
    ///
    /// # Errors
    /// [`LakeError::Name`] for a name that is empty, long, or holds more than letters, digits, `-`, `_` and `.`.
    pub fn new(site: &str, opened: &Opened) -> Result<Self, LakeError> {
        let date = opened.utc_start.split('T').next().unwrap_or_default();
        Ok(Self {
            site: name("site", site)?,
            date: name("date", date)?,
            run: name("run", &opened.run_id)?,
            node: name("node", &opened.host.name)?,
        })
    }

    /// Path of its folder in one of the lake's tables.
    pub fn folder(&self, table: &str) -> String {
        let Self {
            site,
            date,
            run,
            node,
        } = self;
        format!("{table}/site={site}/date={date}/run={run}/node={node}")
    }
}

fn name(what: &'static str, text: &str) -> Result<String, LakeError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let dots = text.chars().all(|c| c == '.');
    if dots || text.len() > NAME_MAX || !text.chars().all(plain) {
        return Err(LakeError::Name {
            what,
            name: text.chars().take(NAME_MAX).collect(),
        });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_its_folder_or_need_escaping_is_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a=b",
            "São-Paulo",
            "a b",
            "%2e",
            "a\0",
        ] {
            let told = name("site", bad).unwrap_err().to_string();
            assert!(told.contains("letters, digits"), "{told}");
        }
        assert!(name("site", &"x".repeat(NAME_MAX + 1)).is_err());
        assert_eq!(name("node", "gpu-07.hall_1").unwrap(), "gpu-07.hall_1");
    }
}
