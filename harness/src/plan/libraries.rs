//! Which of a vendor's libraries a resumed run goes on with, where they are not those that it was begun with.
//!
//! It compares digests: a library that lies elsewhere and is the same is no change. It decides nothing about the run;
//! what changed goes into the record, and the judge weighs it.

use hallmark_kernels::device::DeviceInfo;
use hallmark_results::frame::What;
use hallmark_results::plan::{LIBRARY, Plan};

/// The digest within a library's description; all of it where no file could be read.
fn identity(described: &str) -> &str {
    described
        .rsplit_once("sha256 ")
        .map_or(described, |(_, d)| d)
}

/// Each library that is another now, or is not there any more, as an event of its device.
pub fn changed(plan: &Plan, opened: &[Option<DeviceInfo>]) -> Vec<(Option<u32>, What)> {
    let mut events = Vec::new();
    let devices = plan.devices.iter().zip(opened).enumerate();
    // A device that did not open has no libraries to compare, and is missing anyway.
    for (index, (planned, opened)) in devices.filter_map(|(i, (p, o))| Some((i, (p, o.as_ref()?))))
    {
        let of = |facts: &[(String, String)]| -> Vec<(String, String)> {
            let named = facts.iter().filter(|(key, _)| key.starts_with(LIBRARY));
            named.cloned().collect()
        };
        let (before, now) = (of(&planned.facts), of(&opened.facts));
        let value = |list: &[(String, String)], key: &str| {
            let found = list.iter().find(|(k, _)| k == key);
            found.map(|(_, value)| value.clone())
        };
        let mut keys: Vec<&String> = before.iter().chain(&now).map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let (was, is) = (value(&before, key), value(&now, key));
            if was.as_deref().map(identity) != is.as_deref().map(identity) {
                let value = is.unwrap_or_else(|| "not used any more".to_owned());
                let key = key.clone();
                events.push((Some(index as u32), What::AsFound { key, value }));
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::super::tests::{device, settings, smoke};
    use super::*;

    const DRIVER: &str = "library libcuda";
    const BLAS: &str = "library cublaslt";

    fn with(facts: &[(&str, &str)]) -> DeviceInfo {
        let fact = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        DeviceInfo {
            facts: facts.iter().map(fact).collect(),
            ..device("cpu0")
        }
    }

    fn told(before: &[(&str, &str)], now: &[(&str, &str)]) -> Vec<(String, String)> {
        let plan = super::super::make(&smoke(), &[with(before)], &settings(1e12)).unwrap();
        let events = changed(&plan, &[Some(with(now))]);
        let pair = |(device, what)| match what {
            What::AsFound { key, value } if device == Some(0) => (key, value),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(pair).collect()
    }

    #[test]
    fn a_library_of_another_digest_is_told_and_one_that_merely_moved_is_not() {
        let before = [
            (DRIVER, "12.4, /a/libcuda.so.1, sha256 aa"),
            (BLAS, "12.4, /b, sha256 bb"),
        ];
        let moved = [
            (DRIVER, "12.4, /c/libcuda.so.1, sha256 aa"),
            (BLAS, "12.4, /b, sha256 bb"),
        ];
        assert_eq!(told(&before, &moved), []);
        let newer = [
            (DRIVER, "12.8, /a/libcuda.so.1, sha256 cc"),
            (BLAS, "12.4, /b, sha256 bb"),
        ];
        let changed = told(&before, &newer);
        assert_eq!(changed, [(DRIVER.to_owned(), newer[0].1.to_owned())]);
    }

    #[test]
    fn a_library_that_came_or_went_is_told() {
        let bare = [(DRIVER, "12.4, /a, sha256 aa")];
        let both = [bare[0], (BLAS, "12.4, /b, sha256 bb")];
        assert_eq!(
            told(&bare, &both),
            [(BLAS.to_owned(), both[1].1.to_owned())]
        );
        let gone = told(&both, &bare);
        assert_eq!(gone, [(BLAS.to_owned(), "not used any more".to_owned())]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_compared_by_all_that_is_known_of_it() {
        let was = [(DRIVER, "12.4, /a, its file cannot be read")];
        assert_eq!(told(&was, &was), []);
        assert_eq!(
            told(&was, &[(DRIVER, "12.8, /a, its file cannot be read")]).len(),
            1
        );
    }
}
