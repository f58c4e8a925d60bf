//! The live view on a real terminal: it draws what it should in any size, hears its keys, and gives the terminal back.
//!
//! The terminal is tmux on a socket of its own; what it shows is read cell by cell.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_tests::component::Component;
use hallmark_tests::program::{RunFolder, binary};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What takes seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A terminal with one run of the program in it.
struct Terminal {
    tmux: PathBuf,
    folder: RunFolder,
}

impl Terminal {
    /// Starts a run in the live view, or nothing where there is no tmux.
    fn start(columns: u32, rows: u32, arguments: &str) -> Option<Self> {
        let tmux = Component::Tmux.or_skip()?;
        let terminal = Self {
            tmux,
            folder: RunFolder::new(),
        };
        let program = binary();
        // The shell outlives the program, so that what it leaves behind can be seen.
        let script = format!(
            "stty -g > before; '{}' run --ui live --devices cpu --out '{}/run' {arguments}; echo \"code $?\"; stty -g > after; exec sleep 600",
            program.display(),
            terminal.folder.path().display()
        );
        let script = terminal.folder.write("start.sh", &script);
        let size = [columns.to_string(), rows.to_string()];
        let script = script.display().to_string();
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            "sh",
            &script,
        ]);
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let socket = self.folder.path().join("tmux");
        let output = Command::new(&self.tmux)
            .arg("-S")
            .arg(socket)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn told(&self, variable: &str) -> String {
        let format = format!("#{{{variable}}}");
        let text = self.tmux(&["display-message", "-p", &format]);
        text.trim().to_owned()
    }

    /// Waits until the terminal shows a text, and returns all of it.
    fn wait_for(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown();
            if shown.contains(text) {
                return shown;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "`{text}` is not shown:\n{shown}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// The run has ended with this code and left the terminal as it found it.
    fn is_given_back(&self, code: i32) {
        self.wait_for(&format!("code {code}"));
        let begun = Instant::now();
        while !self.folder.path().join("after").is_file() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.told("alternate_on"), "0", "the first screen is back");
        assert_eq!(self.told("cursor_flag"), "1", "the cursor is back");
        assert_eq!(
            self.file("before"),
            self.file("after"),
            "so are the terminal's settings"
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A run outlives its terminal by design; not its test.
        let _ = Command::new("pkill")
            .args(["-9", "-f", &self.folder.path().display().to_string()])
            .status();
        // It may have ended by itself.
        let socket = self.folder.path().join("tmux");
        let _ = Command::new(&self.tmux)
            .arg("-S")
            .arg(socket)
            .arg("kill-server")
            .output();
    }
}

/// Fails where a picture holds what no reader should see.
fn is_clean(shown: &str, columns: usize, rows: usize) {
    assert!(shown.lines().count() <= rows, "{shown}");
    for line in shown.lines() {
        assert!(line.chars().count() <= columns, "{line}");
    }
    for garbage in [
        "\u{fffd}",
        "\u{1b}",
        "[?",
        "[0m",
        "NaN",
        "inf ",
        "panicked",
        "not a number",
    ] {
        assert!(!shown.contains(garbage), "{garbage:?} in\n{shown}");
    }
}

#[test]
fn the_view_shows_progress_devices_gates_and_keys_in_every_size() {
    for (columns, rows) in [(80, 24), (120, 40)] {
        let Some(terminal) = Terminal::start(columns, rows, "--duration 60s") else {
            return;
        };
        // The first picture is drawn before a step is done; it too is without garbage.
        is_clean(&terminal.wait_for("cpu1"), columns as usize, rows as usize);
        let shown = terminal.wait_for("rate ");
        is_clean(&shown, columns as usize, rows as usize);
        for wanted in [
            "hallmark",
            "cpu0",
            "cpu1",
            "% ",
            "q stop and seal",
            "? help",
            "self test",
        ] {
            assert!(
                shown.contains(wanted),
                "{wanted} is missing in {columns}×{rows}:\n{shown}"
            );
        }
        assert_eq!(
            (terminal.told("alternate_on"), terminal.told("cursor_flag")),
            ("1".into(), "0".into())
        );
        let last = shown.lines().last().unwrap();
        assert!(
            last.contains("q stop and seal"),
            "keys stand on the last line:\n{shown}"
        );
    }
}

#[test]
fn keys_open_pages_and_an_interrupt_ends_the_run_in_good_order() {
    let Some(terminal) = Terminal::start(100, 30, "--duration 60s") else {
        return;
    };
    terminal.wait_for("rate ");
    for (key, wanted) in [
        ("g", "Esc back"),
        ("Escape", "q stop and seal"),
        ("e", "self-test"),
        ("?", "Ctrl"),
        ("Escape", "choose"),
        ("Enter", "Esc back"),
        ("Escape", "choose"),
        ("q", "stop the load, seal and judge?"),
        // Any other key is a no.
        ("x", "choose"),
    ] {
        terminal.press(key);
        is_clean(&terminal.wait_for(wanted), 100, 30);
    }
    // A window that changes its size is drawn anew.
    terminal.tmux(&["resize-window", "-x", "70", "-y", "20"]);
    std::thread::sleep(Duration::from_millis(600));
    is_clean(&terminal.wait_for("hallmark"), 70, 20);
    terminal.tmux(&["resize-window", "-x", "100", "-y", "50"]);
    // The library that reads keys can overlook one that comes in the same instant as a new size.
    std::thread::sleep(Duration::from_millis(600));
    terminal.press("C-c");
    terminal.is_given_back(3);
    let shown = terminal.shown();
    assert!(
        shown.contains("INCONCLUSIVE"),
        "the verdict stays on the terminal:\n{shown}"
    );
    for file in ["run/seal", "run/report.html", "run/report.json"] {
        assert!(
            terminal.folder.path().join(file).is_file(),
            "{file} is missing"
        );
    }
    let events = terminal.file("run/events.json");
    assert!(events.contains("the operator asked for it"), "{events}");
}

#[test]
fn a_program_that_is_killed_by_a_signal_to_stop_leaves_the_terminal_usable() {
    let Some(terminal) = Terminal::start(80, 24, "--duration 60s") else {
        return;
    };
    terminal.wait_for("FLOP/s");
    let shell = terminal.told("pane_pid");
    let sent = Command::new("sh")
        .args(["-c", "kill -TERM $(cat /proc/$0/task/$0/children)", &shell])
        .status()
        .unwrap();
    assert!(sent.success());
    terminal.is_given_back(3);
}

#[test]
fn a_run_whose_terminal_goes_away_goes_on_and_ends_by_itself() {
    let Some(terminal) = Terminal::start(80, 24, "--duration 8s") else {
        return;
    };
    terminal.wait_for("FLOP/s");
    terminal.tmux(&["kill-server"]);
    let report = terminal.folder.path().join("run/report.json");
    let begun = Instant::now();
    while !report.is_file() {
        assert!(begun.elapsed() < PATIENCE, "the run did not end");
        std::thread::sleep(Duration::from_millis(100));
    }
    let report = std::fs::read_to_string(report).unwrap();
    assert!(!report.contains("\"stop\""), "nobody stopped it");
}
