//! The HTML report in a real browser: it opens alone, fits, reads, prints, and obeys nothing that a record says.
//!
//! Pages, pictures and prints stay in `target/tmp/browser`, to be looked at: a test sees what is cut or faint, not
//! what is ugly.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_tests::browser::{Browser, Look, MEASURE, Printed, ZOOM};
use hallmark_tests::program::{finish, hallmark};
use hallmark_tests::staged::{Invented, Tale};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most that a page of a hall may weigh.
const PAGE_BYTES_MAX: usize = 500_000;
/// Between the margins of an A4 page, in CSS pixels (96 to the inch): 190 mm × 273 mm.
const A4: (u32, f64) = (718, 1031.0);

const TALES: [(&str, Tale); 3] = [
    ("passed", Tale::Good),
    ("rejected", Tale::Broken),
    ("inconclusive", Tale::Unshown),
];

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn page(name: &str, invented: &Invented) -> (String, PathBuf) {
    let html = invented.report("html");
    let path = folder().join(format!("{name}.html"));
    fs::write(&path, &html).unwrap();
    (html, path)
}

fn node(tale: Tale) -> Invented {
    Invented::new(8, tale)
}

/// Fails with what stands in one of the answer's lists.
fn none(answer: &Value, list: &str, of: &str) {
    let found = answer[list].as_array().unwrap();
    assert!(found.is_empty(), "{of}, {list}: {found:#?}");
}

/// Figures that are split; the scale in the head of the gates' table is repeated with it on every sheet.
fn split(printed: &Printed) -> Vec<&String> {
    let repeated = |name: &&String| !name.starts_with("Scale Margin to the limit");
    printed.split.iter().filter(repeated).collect()
}

fn is_in_order(answer: &Value, of: &str) {
    for list in [
        "overflow", "cut", "sideways", "clipped", "overlaps", "faint", "unnamed", "silent",
    ] {
        none(answer, list, of);
    }
    let (wide, needs) = (answer["wide"].as_u64(), answer["needs"].as_u64());
    assert!(needs <= wide, "{of}: {needs:?} px of {wide:?}");
}

#[test]
fn a_page_opens_from_a_file_asks_for_nothing_and_says_nothing_to_the_console() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    for (name, tale) in TALES {
        let (_, path) = page(name, &node(tale));
        let opened = browser.open(&path, Look::light(1000));
        assert!(opened.dom.contains("</html>"), "{name}");
        assert_eq!(opened.console, [""; 0], "{name}");
        assert_eq!(opened.requests, [""; 0], "{name}");
    }
    // What would be seen if there were something to see.
    let bad = folder().join("bad.html");
    fs::write(&bad, "<!doctype html><body><img src=http://hall.invalid/x.png><script>console.warn('a')</script>").unwrap();
    let opened = browser.open(&bad, Look::light(1000));
    assert!(
        opened
            .requests
            .contains(&"http://hall.invalid/x.png".to_owned()),
        "{opened:?}"
    );
    assert!(
        opened.console.iter().any(|line| line.contains("\"a\"")),
        "{opened:?}"
    );
}

#[test]
fn a_page_fits_narrow_and_wide_windows_with_every_label_legible_and_apart() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    for (name, tale) in TALES {
        for devices in [1, 2, 8] {
            let (html, _) = page(&format!("{name}-{devices}"), &Invented::new(devices, tale));
            let looks = [
                Look::light(500),
                Look::light(1000),
                Look::dark(1000),
                Look::light(1600),
            ];
            // Fewer devices change what is drawn, not how it is dressed.
            let count = if devices == 8 { 4 } else { 2 };
            for look in looks.into_iter().take(count) {
                let of = format!("{name}, {devices} devices, {look:?}");
                let answer = browser.ask(&html, look, MEASURE);
                assert_eq!(answer["wide"], look.width, "{of}");
                is_in_order(&answer, &of);
                assert!(
                    answer["smallest"].as_f64().unwrap() >= 9.0,
                    "{of}: {}",
                    answer["smallest"]
                );
            }
        }
    }
}

#[test]
fn dark_and_light_follow_the_readers_wish() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let (html, _) = page("rejected", &node(Tale::Broken));
    let paper = |look| {
        let answer = browser.ask(&html, look, MEASURE);
        let parts = answer["paper"].as_array().unwrap().iter();
        parts.map(|c| c.as_u64().unwrap()).max().unwrap()
    };
    let (light, dark) = (paper(Look::light(1000)), paper(Look::dark(1000)));
    assert!(light > 240 && dark < 40, "{light} {dark}");
}

#[test]
fn without_its_script_the_page_tells_verdict_place_cause_and_what_to_do() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let (html, _) = page("rejected", &node(Tale::Broken));
    let (head, rest) = html.rsplit_once("<script>").unwrap();
    let (_, tail) = rest.split_once("</script>").unwrap();
    let answer = browser.ask(&format!("{head}{tail}"), Look::light(1000), MEASURE);
    assert_eq!(answer["scripts"], 0);
    let text = answer["text"].as_str().unwrap();
    let first: String = text.lines().take(12).collect::<Vec<_>>().join("\n");
    for wanted in ["Rejected", "gpu7", "worker died"] {
        assert!(
            first.contains(wanted),
            "{wanted} does not stand on top:\n{first}"
        );
    }
    for wanted in [
        "What to do",
        "Replace",
        "gpu7",
        "Not measured",
        "rack 7",
        "slot 7",
    ] {
        assert!(
            text.to_lowercase().contains(&wanted.to_lowercase()),
            "{wanted}:\n{text}"
        );
    }
    assert!(
        !text.contains("Drag to look closer"),
        "what needs the script is said by the script"
    );
}

#[test]
fn a_printed_page_has_few_sheets_and_splits_no_figure() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    for (name, tale) in TALES {
        let (html, path) = page(name, &node(tale));
        let printed = browser.print(&path, &folder().join(format!("{name}.pdf")));
        assert_eq!(split(&printed), [""; 0], "{name}");
        assert!(printed.figures >= 10, "{name}: {printed:?}");
        assert!((3..=5).contains(&printed.pages), "{name}: {printed:?}");
        // On screen with the rules of print, every part that must stay whole fits a sheet.
        let as_screen = html
            .replace("@media print", "@media screen")
            .replace("@media screen and (max-width:820px)", "@media not all");
        let answer = browser.ask(&as_screen, Look::light(A4.0), MEASURE);
        for part in answer["heights"].as_array().unwrap() {
            assert!(
                part[1].as_f64().unwrap() <= A4.1 && part[2] == "avoid",
                "{name}: {part}"
            );
        }
        for list in ["overflow", "clipped", "overlaps", "faint"] {
            none(&answer, list, name);
        }
    }
}

#[test]
fn a_figure_that_is_split_in_print_is_seen() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let path = folder().join("tall.html");
    let tall = "<!doctype html><body><svg role=img aria-label=Tower width=100 height=3000><text y=20>a</text><text y=2900>b</text></svg>";
    fs::write(&path, tall).unwrap();
    let printed = browser.print(&path, &folder().join("tall.pdf"));
    assert!(printed.pages > 1 && printed.figures == 1, "{printed:?}");
    assert_eq!(printed.split.len(), 1, "{printed:?}");
}

#[test]
fn hostile_text_of_a_record_runs_nothing_and_stays_text() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let hostile = "</title></style></script><script>marked=1</script><img src=x onerror=marked=2>\" onload=\"marked=3\" x='--><svg onload=marked=4>]]>\u{202e}";
    let invented = Invented {
        text: hostile.to_owned(),
        ..node(Tale::Broken)
    };
    let (html, path) = page("hostile", &invented);
    for look in [Look::light(500), Look::light(1000)] {
        let answer = browser.ask(&html, look, MEASURE);
        assert_eq!(
            answer["marked"],
            Value::Null,
            "a text of the record was run"
        );
        assert_eq!(answer["scripts"], 1, "only the page's own");
        assert_eq!(answer["foreign"], 0);
        assert!(
            answer["text"]
                .as_str()
                .unwrap()
                .contains("<script>marked=1</script>"),
            "text stays text"
        );
        none(&answer, "overflow", "hostile");
        assert!(
            answer["needs"].as_u64() <= answer["wide"].as_u64(),
            "{}",
            answer["needs"]
        );
    }
    let opened = browser.open(&path, Look::light(1000));
    assert_eq!((opened.console, opened.requests), (vec![], vec![]));
}

#[test]
fn a_hall_of_a_thousand_devices_is_a_page_that_renders() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let (html, path) = page("hall", &Invented::new(1_024, Tale::Broken));
    assert!(html.len() <= PAGE_BYTES_MAX, "{} bytes", html.len());
    for look in [Look::light(500), Look::light(1000)] {
        is_in_order(&browser.ask(&html, look, MEASURE), "hall");
    }
    let printed = browser.print(&path, &folder().join("hall.pdf"));
    assert_eq!(split(&printed), [""; 0]);
    assert!(printed.pages <= 8, "{printed:?}");
}

#[test]
fn a_drag_zooms_the_time_axis_and_a_double_click_or_escape_returns() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let (html, _) = page("rejected", &node(Tale::Broken));
    let answer = browser.ask(&html, Look::light(1000), ZOOM);
    let (before, zoomed) = (&answer["before"], &answer["zoomed"]);
    assert_ne!(before["ticks"], zoomed["ticks"]);
    let scales = zoomed["scales"].as_array().unwrap();
    assert!(
        !scales.is_empty()
            && scales
                .iter()
                .all(|s| s.as_str().unwrap().contains("scale(5,1)")),
        "{scales:?}"
    );
    assert!(
        zoomed["shown"].as_u64() < before["shown"].as_u64(),
        "labels outside are put away"
    );
    // 58 s in all: a fifth from the second fifth on.
    let ticks: Vec<&str> = zoomed["ticks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    assert_eq!(
        (ticks[0], ticks[ticks.len() - 1]),
        ("11.6\u{a0}s", "23.2\u{a0}s")
    );
    assert_eq!(&answer["back"], before, "a double click returns");
    assert_eq!(&answer["escaped"], before, "so does Escape");
    assert_eq!(answer["read"]["hidden"], false);
    let read = answer["read"]["text"].as_str().unwrap();
    assert!(
        read.contains("29.0\u{a0}s") && read.contains("gpu7"),
        "{read}"
    );
    assert_eq!(answer["hidden"], true, "the reading goes with the pointer");
    assert!(
        answer["note"]
            .as_str()
            .unwrap()
            .contains("Drag to look closer")
    );
}

#[test]
fn the_program_writes_the_same_page_from_a_sealed_record() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let record = tempfile::tempdir().unwrap();
    let head = node(Tale::Broken).record(record.path());
    let path = folder().join("program.html");
    let mut command = hallmark([
        "report",
        "--format",
        "html",
        "--expect-head",
        &head,
        "--output",
    ]);
    command.arg(&path).arg(record.path());
    let finished = finish(command, Duration::from_secs(120)).expect_code(0);
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str()),
        ("", "")
    );
    let html = fs::read_to_string(&path).unwrap();
    let answer = browser.ask(&html, Look::light(1000), MEASURE);
    is_in_order(&answer, "the program's page");
    let text = answer["text"].as_str().unwrap();
    assert!(
        text.starts_with("hallmark")
            && text.contains("Rejected")
            && text.contains("head is the one expected"),
        "{text}"
    );
    let opened = browser.open(&path, Look::light(1000));
    assert_eq!((opened.console, opened.requests), (vec![], vec![]));
}

#[test]
fn pictures_of_every_verdict_are_taken_in_the_size_of_the_window() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    for (name, tale) in TALES {
        let (_, path) = page(name, &node(tale));
        for (kind, look) in [
            ("light", Look::light(1000)),
            ("dark", Look::dark(1000)),
            ("narrow", Look::light(500)),
        ] {
            let tall = Look {
                height: 5200,
                ..look
            };
            let picture = folder().join(format!("{name}-{kind}.png"));
            browser.picture(&path, tall, &picture);
            let bytes = fs::read(&picture).unwrap();
            let size = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!((size(16), size(20)), (look.width, 5200), "{name} {kind}");
            assert!(
                bytes.len() > 50_000,
                "{name} {kind}: {} bytes are hardly a report",
                bytes.len()
            );
        }
    }
}

#[test]
fn a_print_has_as_many_sheets_as_its_page_needs() {
    let Some(browser) = Browser::or_skip() else {
        return;
    };
    let path = folder().join("short.html");
    fs::write(&path, "<!doctype html><body><p>one</p>").unwrap();
    let printed = browser.print(&path, &folder().join("short.pdf"));
    let one = Printed {
        pages: 1,
        split: vec![],
        figures: 0,
    };
    assert_eq!(printed, one);
}
