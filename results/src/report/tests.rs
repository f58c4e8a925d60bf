//! What the writers promise, whatever the record holds.

use super::sample::{Sample, tell};
use super::{FORMATS, Format, Story, find};
use crate::frame::Provenance;
use hallmark_profiles::units::{MINUS, NO_BREAK_SPACE};

fn written(sample: &Sample, name: &str) -> String {
    let format = find(name).unwrap();
    tell(sample, |story| format.write(story))
}

fn faulty() -> Sample {
    Sample {
        fault: true,
        ..Sample::good(2)
    }
}

fn empty() -> Sample {
    Sample {
        empty: true,
        ..Sample::good(2)
    }
}

fn plain(text: &str) -> String {
    text.replace([NO_BREAK_SPACE, '\u{202f}'], " ")
        .replace(MINUS, "-")
}

#[test]
fn an_unknown_format_lists_the_known_ones() {
    let error = find("pdf\u{1b}[2J").err().unwrap().to_string();
    assert_eq!(
        error,
        "unknown report format `pdf`; known: text, json, junit, markdown, html, nccl"
    );
}

#[test]
fn every_format_has_its_own_name_and_file() {
    for (index, format) in FORMATS.iter().enumerate() {
        assert_eq!(find(format.name()).unwrap().file(), format.file());
        assert!(FORMATS[..index].iter().all(|f| f.file() != format.file()));
    }
}

#[test]
fn the_text_ends_with_the_verdict_and_fits_its_columns() {
    for sample in [
        Sample::good(2),
        faulty(),
        empty(),
        Sample {
            text: " 機房".repeat(30),
            ..faulty()
        },
    ] {
        let text = written(&sample, "text");
        let widest = text.lines().map(super::escape::width).max().unwrap();
        assert!(widest <= 100, "{widest}\n{text}");
        assert!(!text.contains('\u{1b}'), "colour only where asked for");
    }
    let text = plain(&written(&faulty(), "text"));
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("✕ REJECTED   gpu1: failures")
            && last.ends_with("2 fail, 2 inconclusive, 5 pass"),
        "{last}"
    );
    let last = plain(&written(&Sample::good(2), "text"));
    assert!(
        last.lines()
            .last()
            .unwrap()
            .starts_with("✓ PASSED   smoke passed: accepts no site"),
        "{last}"
    );
}

#[test]
fn the_text_tells_gates_worst_first_then_cause_next_and_record() {
    let text = plain(&written(&faulty(), "text"));
    let order = [
        "northgate-07",
        "observed",
        "✕ failures",
        "◇ telemetry",
        "✓ pass:",
        "why ",
        "why ",
        "next ",
        "not measured  power of the rack",
        "report ",
        "record ",
    ];
    let mut from = 0;
    for piece in order {
        let at = text[from..]
            .find(piece)
            .unwrap_or_else(|| panic!("`{piece}` is missing or early in\n{text}"));
        from += at;
    }
    assert!(text.contains("integrity not anchored"));
    assert!(
        text.contains("no evidence"),
        "a gate without an estimate says so\n{text}"
    );
}

#[test]
fn colour_only_repeats_what_is_said() {
    let (bare, coloured) = tell(&faulty(), |story| {
        (
            super::text::render(story, false),
            super::text::render(story, true),
        )
    });
    assert!(coloured.contains("\u{1b}["));
    let lines = coloured.lines().map(super::escape::clean);
    let bare: Vec<String> = bare.lines().map(super::escape::clean).collect();
    assert_eq!(lines.collect::<Vec<_>>(), bare);
}

#[test]
fn what_is_not_measured_is_called_so_in_every_title() {
    for (provenance, word) in [
        (Provenance::Simulated, "SIMULATED"),
        (Provenance::StandIn, "STAND-IN"),
        (Provenance::Replayed, "REPLAYED"),
    ] {
        let sample = Sample {
            provenance,
            ..Sample::good(1)
        };
        for name in ["text", "junit", "markdown", "html", "nccl"] {
            assert!(
                written(&sample, name).contains(word),
                "{name} does not say {word}"
            );
            assert!(
                !written(&Sample::good(1), name).contains(word),
                "{name} says {word} of a measured run"
            );
        }
        let json = written(&sample, "json");
        assert!(json.contains(&format!(
            "\"provenance\": \"{}\"",
            serde_json::to_value(provenance).unwrap().as_str().unwrap()
        )));
    }
}

#[test]
fn a_record_without_samples_or_steps_is_told_honestly() {
    for devices in [0, 1, 2] {
        let sample = Sample { devices, ..empty() };
        for format in FORMATS {
            let text = written(&sample, format.name());
            assert!(
                !text.contains("NaN") && !text.contains("not a number"),
                "{}\n{text}",
                format.name()
            );
        }
        let html = written(&sample, "html");
        assert!(
            html.contains("No load ran")
                && html.contains("Inconclusive")
                && html.contains("not closed")
        );
        assert!(written(&sample, "text").contains("nothing judged"));
    }
}

#[test]
fn hostile_text_from_a_record_stays_text() {
    let hostile = "</title></script><script>alert(1)</script><img src=x onerror=alert(2)>\u{1b}[31m\" onload=\"x' ]]>\u{202e}|`@all";
    let sample = Sample {
        text: hostile.to_owned(),
        ..faulty()
    };
    let html = written(&sample, "html");
    assert_eq!(
        html.matches("<script").count(),
        1,
        "only the page's own script"
    );
    assert!(
        !html.contains("<img")
            && !html.contains("\" onload=\"")
            && !html.contains('\u{1b}')
            && !html.contains('\u{202e}')
    );
    let junit = written(&sample, "junit");
    assert!(!junit.contains("<script") && !junit.contains('\u{1b}'));
    let markdown = written(&sample, "markdown");
    assert!(
        !markdown.contains("<script") && !markdown.contains("@all") && !markdown.contains('\u{1b}')
    );
    let text = written(&sample, "text");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'));
    let json: serde_json::Value = serde_json::from_str(&written(&sample, "json")).unwrap();
    assert!(!written(&sample, "json").contains('\u{1b}'));
    assert_eq!(
        json["run"]["host"]["name"].as_str().unwrap(),
        format!("northgate-07{hostile}"),
        "machines get the text as it is"
    );
}

#[test]
fn the_page_asks_for_nothing_and_is_small() {
    for (devices, stretch) in [(2, 1), (8, 1), (1_024, 1)] {
        let sample = Sample {
            stretch,
            fault: true,
            ..Sample::good(devices)
        };
        let html = written(&sample, "html");
        assert!(
            html.len() <= 500_000,
            "{devices} devices: {} bytes",
            html.len()
        );
        for request in [
            "http://", "https://", "src=", "@import", "url(http", "<link", "fetch(", "XMLHttp",
        ] {
            assert!(!html.contains(request), "{request}");
        }
        assert!(html.contains("default-src 'none'"));
    }
}

#[test]
fn every_picture_has_a_title_a_description_and_an_id_of_its_own() {
    let html = written(&faulty(), "html");
    let pictures = html.matches("role=\"img\" aria-labelledby").count();
    assert!(pictures >= 5, "{pictures}");
    assert_eq!(html.matches("<desc ").count(), pictures);
    let ids: Vec<&str> = html
        .split(" id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
}

#[test]
fn every_report_tells_where_and_why_and_the_page_marks_when() {
    let sample = faulty();
    for format in ["text", "json", "markdown", "html"] {
        let told = plain(&written(&sample, format)).to_lowercase();
        let named = told.contains("slow device") || told.contains("slow_silicon");
        assert!(named, "{format} names no cause:\n{told}");
    }
    let html = written(&sample, "html");
    assert!(html.contains("<section id=\"why\">"));
    assert!(
        plain(&html).contains("-19.0 % to"),
        "the sign's bounds stand beside it"
    );
    // The onset is a line through all panels, labelled on top.
    let marks = html.matches("class=\"onset\"").count();
    let without = tell(&sample, |story| {
        let mut verdict = story.verdict.clone();
        verdict.diagnoses.clear();
        let story = Story {
            verdict: &verdict,
            ..*story
        };
        find("html").unwrap().write(&story)
    });
    assert_eq!(marks, 1 + without.matches("class=\"onset\"").count());
    assert!(!without.contains("id=\"why\"") && !without.contains("#why"));
}

#[test]
fn the_page_answers_first_and_says_what_was_not_measured() {
    let html = plain(&written(&faulty(), "html"));
    let order = [
        "<h1>",
        "Rejected",
        "Host",
        "UTC",
        "second try after",
        "What to do",
        "Replace",
        "What decides it",
        "id=\"course\"",
        "id=\"steps\"",
        "Devices, worst first",
        "What was measured",
        "What was not measured",
        "Settings as found",
        "peers differ",
        "Faults and events",
        "Chain’s head",
        "How to read",
    ];
    let mut from = 0;
    for piece in order {
        let at = html[from..]
            .find(piece)
            .unwrap_or_else(|| panic!("`{piece}` is missing or early"));
        from += at;
    }
    assert!(
        html.contains("GPU-6f7e0d4a")
            && html.contains("rack 7")
            && html.contains("clock synchronised, error at most 1.20 ms")
    );
    assert!(html.contains("below EEHPC level 1") && html.contains("ntegrity not anchored"));
}

#[test]
fn a_hole_in_a_series_breaks_the_line_and_is_hatched() {
    let html = written(&faulty(), "html");
    assert!(html.contains("url(#hatch)") && html.contains("GPU is lost"));
    let whole = written(&Sample::good(2), "html");
    assert!(!whole.contains("url(#hatch)"), "a full series has no hatch");
    let line = |page: &str| {
        let at = page.find("data-p=\"Power\"").unwrap();
        let start = page[..at].rfind("d=\"M").unwrap();
        page[start..at].matches('M').count()
    };
    assert_eq!((line(&whole), line(&html)), (1, 2));
}

#[test]
fn junit_counts_what_is_not_shown_as_an_error_never_as_green() {
    let junit = written(&faulty(), "junit");
    assert!(
        junit.contains("tests=\"10\" failures=\"3\" errors=\"2\" skipped=\"0\""),
        "{junit}"
    );
    assert_eq!(junit.matches("<error type=\"inconclusive\"").count(), 2);
    assert!(!junit.contains("<skipped"));
    let junit = written(&empty(), "junit");
    assert!(junit.contains("failures=\"0\" errors=\"10\""), "{junit}");
    let junit = written(&Sample::good(2), "junit");
    assert!(junit.contains("failures=\"0\" errors=\"0\""), "{junit}");
}

#[test]
fn json_has_its_version_first_and_a_stable_order() {
    let json = written(&faulty(), "json");
    let order = [
        "\"report_version\": 1",
        "\"verdict\"",
        "\"run\"",
        "\"profile\"",
        "\"plan\"",
        "\"integrity\"",
        "\"findings\"",
        "\"punch\"",
        "\"devices\"",
        "\"series\"",
        "\"not_measured\"",
        "\"as_found\"",
        "\"events\"",
    ];
    let mut from = 0;
    for piece in order {
        let at = json[from..]
            .find(&format!("\n  {piece}"))
            .unwrap_or_else(|| panic!("`{piece}` is missing or early"));
        from += at + 1;
    }
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["verdict"]["word"], "REJECTED");
    assert_eq!(value["integrity"]["anchored"], false);
    assert_eq!(value["devices"][0]["id"], "gpu1", "worst first");
    assert_eq!(
        json,
        written(&faulty(), "json"),
        "the same record gives the same bytes"
    );
}

#[test]
fn an_anchored_head_is_said_to_be_so() {
    let sample = Sample::good(1);
    let (standing, verdict) = (sample.standing(), sample.verdict());
    let story = Story {
        standing: &standing,
        verdict: &verdict,
        head: Some("ab"),
        anchored: true,
        place: "r",
    };
    for name in ["text", "markdown", "html"] {
        let text = find(name).unwrap().write(&story);
        assert!(
            !text.contains("not anchored") && text.contains("the one expected"),
            "{name}"
        );
    }
    let open = Story {
        head: None,
        anchored: false,
        ..story
    };
    assert!(super::html::Html.write(&open).contains("not sealed"));
}
