//! Decides what a SKU file may say: its keys, its units, and that its figures can be believed.
//!
//! Refuses unknown keys, figures in another unit, entries given twice, and references that their datasheet contradicts;
//! each with file and line.

use serde::Deserialize;
use toml::Spanned;

use super::{
    Algorithm, BAND, Better, Datasheet, Dtype, Fact, Limit, Metric, Of, Quantity, Reference, Sku,
    SkuError, Unit, Vendor,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    vendor: Vendor,
    matches: Vec<String>,
    #[serde(default)]
    excludes: Vec<String>,
    datasheet: Vec<DatasheetEntry>,
    #[serde(default)]
    reference: Vec<ReferenceEntry>,
    #[serde(default)]
    limit: Vec<LimitEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatasheetEntry {
    metric: Metric,
    dtype: Option<Dtype>,
    ranks: Option<u32>,
    algorithm: Option<Algorithm>,
    value: Spanned<Quantity>,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceEntry {
    metric: Metric,
    dtype: Option<Dtype>,
    shape: Option<[u64; 3]>,
    ranks: Option<u32>,
    algorithm: Option<Algorithm>,
    value: Spanned<Quantity>,
    floor: Option<Spanned<Quantity>>,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitEntry {
    fact: Fact,
    value: Spanned<Quantity>,
    source: String,
}

/// Where an error is: the file's name, and its text to count lines in.
struct Place<'a> {
    file: &'a str,
    text: &'a str,
}

impl Place<'_> {
    fn file(&self) -> String {
        self.file.to_owned()
    }

    /// Line of a byte offset, from 1.
    fn line(&self, offset: usize) -> usize {
        let before = self
            .text
            .as_bytes()
            .get(..offset)
            .unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// The value in the unit it must have, above zero.
    fn figure(&self, what: &str, value: &Spanned<Quantity>, wanted: Unit) -> Result<f64, SkuError> {
        let (line, quantity) = (self.line(value.span().start), *value.get_ref());
        if quantity.unit != wanted {
            let (file, what) = (self.file(), what.to_owned());
            return Err(SkuError::Unit {
                file,
                line,
                what,
                found: quantity.unit,
                wanted,
            });
        }
        if quantity.value <= 0.0 {
            return Err(SkuError::NotPositive {
                file: self.file(),
                line,
                what: what.to_owned(),
                value: quantity,
            });
        }
        Ok(quantity.value)
    }

    fn source(&self, source: String) -> Result<String, SkuError> {
        if source.trim().is_empty() {
            let remedy = "a figure without its source cannot be checked";
            return Err(SkuError::Empty {
                file: self.file(),
                key: "source",
                remedy,
            });
        }
        Ok(source)
    }

    /// Refuses the second of two entries of the same thing.
    fn once<T: PartialEq>(
        &self,
        seen: &mut Vec<(T, usize)>,
        thing: T,
        what: &str,
        line: usize,
    ) -> Result<(), SkuError> {
        if let Some((_, first)) = seen.iter().find(|(known, _)| *known == thing) {
            return Err(SkuError::Twice {
                file: self.file(),
                line,
                what: what.to_owned(),
                first: *first,
            });
        }
        seen.push((thing, line));
        Ok(())
    }

    /// Holds a figure against the datasheet.
    fn believable(
        &self,
        what: &str,
        value: &Spanned<Quantity>,
        sheet: &Datasheet,
    ) -> Result<(), SkuError> {
        let quantity = *value.get_ref();
        let share = quantity.value / sheet.value;
        if BAND.contains(&share) {
            return Ok(());
        }
        Err(SkuError::OutsideBand {
            file: self.file(),
            line: self.line(value.span().start),
            what: what.to_owned(),
            value: quantity,
            percent: percent(share),
            datasheet: Quantity::new(sheet.value, quantity.unit),
        })
    }
}

/// Two significant digits are enough to see a prefix that is wrong.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 1.0 {
        format!("{percent:.2}")
    } else {
        format!("{percent:.1}")
    }
}

pub(super) fn parse(file: &str, text: &str) -> Result<Sku, SkuError> {
    let place = Place { file, text };
    let raw: File = toml::from_str(text).map_err(|error| SkuError::Syntax {
        file: place.file(),
        line: error.span().map_or(1, |span| place.line(span.start)),
        what: error.message().lines().collect::<Vec<_>>().join("; "),
    })?;
    if raw.name.trim().is_empty() {
        return Err(SkuError::Empty {
            file: place.file(),
            key: "name",
            remedy: "name the model",
        });
    }
    if raw.matches.is_empty()
        || raw
            .matches
            .iter()
            .chain(&raw.excludes)
            .any(|words| words.trim().is_empty())
    {
        let remedy = "write what the driver calls the device, such as `H100 80GB HBM3`";
        return Err(SkuError::Empty {
            file: place.file(),
            key: "matches",
            remedy,
        });
    }
    let datasheet = datasheets(&place, raw.datasheet)?;
    let reference = references(&place, raw.reference, &datasheet)?;
    let limit = limits(&place, raw.limit)?;
    let (name, vendor, matches, excludes) = (raw.name, raw.vendor, raw.matches, raw.excludes);
    Ok(Sku {
        name,
        vendor,
        matches,
        excludes,
        datasheet,
        reference,
        limit,
    })
}

fn datasheets(place: &Place<'_>, entries: Vec<DatasheetEntry>) -> Result<Vec<Datasheet>, SkuError> {
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for entry in entries {
        let DatasheetEntry {
            metric,
            dtype,
            ranks,
            algorithm,
            value,
            source,
        } = entry;
        let of = Of {
            metric,
            dtype,
            shape: None,
            ranks,
            algorithm,
        };
        let what = format!("datasheet figure `{of}`");
        place.once(&mut seen, of, &what, place.line(value.span().start))?;
        let value = place.figure(&what, &value, metric.spec().unit)?;
        out.push(Datasheet {
            of,
            value,
            source: place.source(source)?,
        });
    }
    Ok(out)
}

fn references(
    place: &Place<'_>,
    entries: Vec<ReferenceEntry>,
    sheets: &[Datasheet],
) -> Result<Vec<Reference>, SkuError> {
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for entry in entries {
        let ReferenceEntry {
            metric,
            dtype,
            shape,
            ranks,
            algorithm,
            value,
            floor,
            source,
        } = entry;
        let of = Of {
            metric,
            dtype,
            shape,
            ranks,
            algorithm,
        };
        let what = format!("reference `{of}`");
        let line = place.line(value.span().start);
        place.once(&mut seen, of, &what, line)?;
        let figure = place.figure(&what, &value, metric.spec().unit)?;
        if metric.spec().better != Better::Higher {
            return Err(SkuError::NotARate {
                file: place.file(),
                line,
                what,
            });
        }
        let Some(sheet) = super::closest(sheets, &of, |sheet| &sheet.of) else {
            return Err(SkuError::NoDatasheet {
                file: place.file(),
                line,
                what,
            });
        };
        place.believable(&what, &value, sheet)?;
        let floor = match floor {
            None => None,
            Some(floor) => {
                let what = format!("floor of {what}");
                let least = place.figure(&what, &floor, metric.spec().unit)?;
                place.believable(&what, &floor, sheet)?;
                // A floor above its own reference would fail the very device that the reference is from.
                place.believable(
                    &what,
                    &floor,
                    &Datasheet {
                        of,
                        value: figure,
                        source: String::new(),
                    },
                )?;
                Some(least)
            }
        };
        out.push(Reference {
            of,
            value: figure,
            floor,
            source: place.source(source)?,
        });
    }
    Ok(out)
}

fn limits(place: &Place<'_>, entries: Vec<LimitEntry>) -> Result<Vec<Limit>, SkuError> {
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for LimitEntry {
        fact,
        value,
        source,
    } in entries
    {
        let what = format!("limit `{fact}`");
        place.once(&mut seen, fact, &what, place.line(value.span().start))?;
        let value = place.figure(&what, &value, fact.unit())?;
        out.push(Limit {
            fact,
            value,
            source: place.source(source)?,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: &str = include_str!("../../skus/h100.toml");

    fn refused(from: &str, to: &str) -> String {
        assert!(H100.contains(from), "the file no longer says {from}");
        parse("h100.toml", &H100.replacen(from, to, 1))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_limit_mistyped_950_times_too_low_is_refused() {
        let line = 1 + H100[..H100.find("\"480 GB/s\"").unwrap()]
            .matches('\n')
            .count();
        let error = refused("\"480 GB/s\"", "\"505 MB/s\"").replace('\u{a0}', " ");
        assert_eq!(
            error,
            format!(
                "h100.toml:{line}: reference `allreduce_busbw on 8 ranks` is 505 MB/s, 0.06 % of its datasheet figure \
                 787.5 GB/s; 40 to 100 % is believable: check the unit's prefix, and dense against sparse"
            )
        );
    }

    #[test]
    fn a_sparse_figure_or_a_prefix_too_high_is_refused() {
        assert!(
            refused("\"798 TFLOP/s\"", "\"1596 TFLOP/s\"")
                .contains("161.3 % of its datasheet figure")
        );
        assert!(refused("\"3 TB/s\"", "\"3 PB/s\"").contains("40 to 100 % is believable"));
        assert!(
            refused("\"460 GB/s\"", "\"481 GB/s\"").contains("floor of reference"),
            "a floor above its reference"
        );
        assert!(refused("\"460 GB/s\"", "\"460 MB/s\"").contains("floor of reference"));
    }

    #[test]
    fn a_reference_without_a_datasheet_is_refused() {
        assert!(
            refused(
                "ranks = 8\nvalue = \"480 GB/s\"",
                "ranks = 4\nvalue = \"480 GB/s\""
            )
            .contains("no datasheet figure")
        );
    }

    #[test]
    fn what_a_file_cannot_mean_is_refused_with_its_line() {
        for (from, to, says) in [
            (
                "name = \"H100 SXM\"",
                "name = \"H100 SXM\"\ncolour = \"green\"",
                "h100.toml:3: unknown field `colour`",
            ),
            (
                "\"700 W\"",
                "\"700 K\"",
                "limit `board_power` is given in K, its unit is W",
            ),
            ("\"700 W\"", "\"-700 W\"", "a figure is above zero"),
            ("\"3.35 TB/s\"", "\"3.35 TBps\"", "unknown unit `TBps`"),
            (
                "\"operating_memory_max\"",
                "\"operating_core_max\"",
                "limit `operating_core_max` is given twice, first at line",
            ),
            (
                "metric = \"hbm_rate\"",
                "metric = \"hbm_rat\"",
                "unknown metric `hbm_rat` (did you mean `hbm_rate`?)",
            ),
            (
                "source = \"NVIDIA H100 datasheet, SXM\"",
                "source = \" \"",
                "`source` is empty",
            ),
            (
                "matches = [\"H100 80GB HBM3\"]",
                "matches = []",
                "`matches` is empty",
            ),
            (
                "matches = [\"H100 80GB HBM3\"]",
                "matches = [\"\"]",
                "`matches` is empty",
            ),
            ("dtype = \"bf16\"", "dtype = \"bf17\"", "bf17"),
        ] {
            let error = refused(from, to);
            assert!(
                error.starts_with("h100.toml:") && error.contains(says),
                "{error}"
            );
            assert!(!error.contains('\n'), "one line: {error}");
        }
        let step = "metric = \"step_time\"\nvalue = \"1 s\"\nsource = \"s\"\n\n";
        let text = H100.replacen(
            "[[reference]]",
            &format!("[[reference]]\n{step}[[reference]]"),
            1,
        );
        assert!(matches!(
            parse("h100.toml", &text),
            Err(SkuError::NotARate { .. })
        ));
    }

    #[test]
    fn a_broken_file_never_panics() {
        for cut in (0..H100.len())
            .filter(|cut| H100.is_char_boundary(*cut))
            .step_by(37)
        {
            let _ = parse("cut.toml", &H100[..cut]);
            let _ = parse("tail.toml", &H100[cut..]);
            let _ = parse(
                "joined.toml",
                &format!("{}\"{}", &H100[..cut], &H100[cut..]),
            );
        }
    }
}
