//! Opens a page in a real browser without a screen: what it came to, what it said, what it asked for.
//!
//! Nothing leaves the machine: every name is refused to the browser, whose own errands are told apart from the
//! page's by who began them. A page is looked into by a script that is added to a copy of it.

use crate::component::Component;
use crate::program::{Finished, finish};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A page of a hall takes about a second; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// What overflows, is cut, overlaps, is too faint or has no name: [`Browser::ask`] answers with an object.
pub const MEASURE: &str = include_str!("browser/measure.js");
/// Zooms in by a drag, and out again by a double click and by the Escape key.
pub const ZOOM: &str = include_str!("browser/zoom.js");

/// The browser of this machine.
pub struct Browser(PathBuf);

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Of the window, in CSS pixels; 500 at least.
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

impl Look {
    #[must_use]
    pub const fn light(width: u32) -> Self {
        Self {
            width,
            height: 900,
            dark: false,
        }
    }

    #[must_use]
    pub const fn dark(width: u32) -> Self {
        Self {
            dark: true,
            ..Self::light(width)
        }
    }
}

/// What came of opening a page.
#[derive(Debug)]
pub struct Opened {
    pub dom: String,
    /// Everything that stands in the console.
    pub console: Vec<String>,
    /// Requests that the page began.
    pub requests: Vec<String>,
}

/// A page on paper.
#[derive(Debug, PartialEq, Eq)]
pub struct Printed {
    pub pages: usize,
    /// Figures, by their names, that stand on more than one page.
    pub split: Vec<String>,
    /// All figures.
    pub figures: usize,
}

impl Browser {
    /// The browser, or `None` where there is none and a test may be skipped.
    #[must_use]
    pub fn or_skip() -> Option<Self> {
        Component::Chromium.or_skip().map(Self)
    }

    fn command(&self, profile: &Path, look: Look) -> Command {
        let mut command = Command::new(&self.0);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
        ]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.arg(format!("--window-size={},{}", look.width, look.height));
        // The engine's own number for dark is 0, for light 1.
        let scheme = u8::from(!look.dark);
        command.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
        command
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env("RUST_BACKTRACE", "0");
        command
    }

    fn run(&self, look: Look, page: &Path, more: &[String]) -> Finished {
        let profile = TempDir::new().expect("a temporary folder can be made");
        let mut command = self.command(profile.path(), look);
        command
            .args(more)
            .arg(format!("file://{}", absolute(page).display()));
        finish(command, PATIENCE).expect_code(0)
    }

    /// Opens a file and waits until it is loaded.
    ///
    /// # Panics
    /// The browser fails.
    #[must_use]
    pub fn open(&self, page: &Path, look: Look) -> Opened {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let log = folder.path().join("net.json");
        let more = [
            "--dump-dom".to_owned(),
            format!("--log-net-log={}", log.display()),
        ];
        let finished = self.run(look, page, &more);
        let log = std::fs::read_to_string(&log).expect("the browser keeps a log of its network");
        Opened {
            dom: finished.stdout,
            console: console(&finished.stderr),
            requests: requests(&log),
        }
    }

    /// Adds a script, the body of a function, to a copy of the page, and returns what the function returns.
    ///
    /// # Panics
    /// The script has an error; it is shown.
    #[must_use]
    pub fn ask(&self, html: &str, look: Look, script: &str) -> Value {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let copy = folder.path().join("page.html");
        let asking = format!(
            "<script>{{const answer = (() => {{{script}}})(), place = document.createElement('template');\n\
             place.id = 'answer'; place.content.append(JSON.stringify(answer)); document.body.append(place);}}</script></body>"
        );
        let (head, tail) = html.rsplit_once("</body>").expect("a page has a body");
        std::fs::write(&copy, format!("{head}{asking}{tail}")).expect("a page can be written");
        let opened = self.open(&copy, look);
        let said = opened
            .dom
            .rsplit_once("<template id=\"answer\">")
            .and_then(|(_, rest)| rest.split_once("</template>"));
        let (text, _) = said.unwrap_or_else(|| panic!("no answer: {:?}", opened.console));
        let text = text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&nbsp;", "\u{a0}")
            .replace("&amp;", "&");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
    }

    /// Takes a picture of the window into a PNG file.
    ///
    /// # Panics
    /// The browser fails.
    pub fn picture(&self, page: &Path, look: Look, picture: &Path) {
        let more = [format!("--screenshot={}", absolute(picture).display())];
        let _ = self.run(look, page, &more);
    }

    /// Prints a page to a PDF file.
    ///
    /// # Panics
    /// The browser fails.
    #[must_use]
    pub fn print(&self, page: &Path, pdf: &Path) -> Printed {
        let more = [
            "--no-pdf-header-footer".to_owned(),
            format!("--print-to-pdf={}", absolute(pdf).display()),
        ];
        let _ = self.run(Look::light(1000), page, &more);
        printed(&std::fs::read(pdf).expect("the browser writes a PDF"))
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).expect("a path is absolute below the working folder")
}

fn console(stderr: &str) -> Vec<String> {
    let said = stderr.lines().filter_map(|line| {
        let (_, rest) = line.split_once(":CONSOLE:")?;
        Some(rest.to_owned())
    });
    said.collect()
}

/// Addresses that a page asked for; the browser's own errands have no origin.
fn requests(log: &str) -> Vec<String> {
    // The log is cut off where the browser is ended early, so it is read line by line.
    let events = log.lines().filter_map(|line| {
        let line = line.trim_end_matches(',');
        serde_json::from_str::<Value>(line).ok()
    });
    let asked = events.filter_map(|event| {
        let params = event.get("params")?;
        let initiator = params.get("initiator")?.as_str()?;
        let url = params.get("url")?.as_str()?;
        (initiator != "not an origin").then(|| url.to_owned())
    });
    asked.collect()
}

/// Reads pages and figures from a tagged PDF's plain objects.
fn printed(pdf: &[u8]) -> Printed {
    let text = String::from_utf8_lossy(pdf);
    let objects: Vec<&str> = text.split("\nendobj").collect();
    let pages = objects.iter().filter(|o| o.contains("/Type /Page\n"));
    let figures: Vec<&&str> = objects
        .iter()
        .filter(|o| {
            o.contains("/Type /StructElem") && o.contains("/S /Figure") && o.contains("/Alt")
        })
        .collect();
    let is_split = |object: &&&&str| {
        let on = object.match_indices("/Pg ").map(|(at, _)| {
            let rest = &object[at + 4..];
            rest.split(' ').next().unwrap_or_default()
        });
        on.collect::<std::collections::BTreeSet<_>>().len() > 1
    };
    let name = |object: &&&str| {
        let rest = object.split_once("/Alt (").map_or("", |(_, rest)| rest);
        rest.lines().next().unwrap_or_default().to_owned()
    };
    Printed {
        pages: pages.count(),
        split: figures.iter().filter(is_split).map(name).collect(),
        figures: figures.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browsers_own_errands_are_no_requests_of_the_page() {
        let log = "{\"constants\":1,\n\"events\": [\n\
            {\"params\":{\"initiator\":\"not an origin\",\"url\":\"http://a.invalid/\"},\"type\":1},\n\
            {\"params\":{\"initiator\":\"null\",\"url\":\"http://b.invalid/x\"},\"type\":1},\n\
            {\"params\":{\"initiator\":\"nu";
        assert_eq!(requests(log), ["http://b.invalid/x"]);
    }

    #[test]
    fn a_figure_on_two_pages_is_split() {
        let figure = |pages: &str| {
            format!("7 0 obj\n<</Type /StructElem\n/S /Figure\n/Alt (Map)\n{pages}>>\nendobj\n")
        };
        let page = "1 0 obj\n<</Type /Page\n/Parent 3 0 R>>\nendobj\n";
        let pdf = format!(
            "{page}{page}{}{}",
            figure("/Pg 1 0 R\n/K [1 2]"),
            figure("/Pg 1 0 R\n/K [1 <</Type /MCR\n/Pg 2 0 R\n/MCID 2>>]")
        );
        let wanted = Printed {
            pages: 2,
            split: vec!["Map)".to_owned()],
            figures: 2,
        };
        assert_eq!(printed(pdf.as_bytes()), wanted);
    }
}
