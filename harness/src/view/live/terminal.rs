//! Takes the terminal and gives it back: raw keys, the second screen, no cursor.
//!
//! A panic of the thread that draws gives the terminal back before it is told. What other threads' panics say
//! would be written into the picture and lost with it: it is kept and told when the terminal is given back.

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::ThreadId;

/// Who has the terminal, and what is to be told once it is back.
static HELD: Mutex<Held> = Mutex::new(Held {
    by: None,
    told: Vec::new(),
});
static HOOK: Once = Once::new();

struct Held {
    by: Option<ThreadId>,
    told: Vec<String>,
}

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the terminal until it is dropped.
pub struct Giver(());

impl Giver {
    /// # Errors
    /// Where the terminal has no raw mode or cannot be written to.
    pub fn take() -> std::io::Result<Self> {
        HOOK.call_once(install_hook);
        enable_raw_mode()?;
        held().by = Some(std::thread::current().id());
        let giver = Self(());
        execute!(std::io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(giver)
    }
}

/// Whether the terminal has gone away: its window was closed, or the line to it was lost. Its keys must not be
/// asked for then: the library that reads them would wait at the end of input for ever.
pub fn is_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let input = std::io::stdin();
    let mut asked = [PollFd::new(&input, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let ended = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().intersects(ended)
}

impl Drop for Giver {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    let mut held = held();
    if held.by.take().is_none() {
        return;
    }
    // Nothing can be done about a terminal that is gone.
    let _ = execute!(std::io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    for text in held.told.drain(..) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn install_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let by = held().by;
        match by {
            Some(owner) if owner != std::thread::current().id() => {
                held().told.push(info.to_string())
            }
            _ => {
                give_back();
                before(info);
            }
        }
    }));
}

/// Collects what a drawing writes, so that it goes out as one piece; clones write into the same.
#[derive(Clone, Default)]
pub struct Pen(Arc<Mutex<Vec<u8>>>);

/// A terminal that knows these shows a whole picture at once; any other ignores them.
const BEGIN_PICTURE: &[u8] = b"\x1b[?2026h";
const END_PICTURE: &[u8] = b"\x1b[?2026l";

impl Pen {
    /// What was drawn since this was last asked.
    pub fn take(&self) -> Vec<u8> {
        let drawn = std::mem::take(&mut *self.lock());
        if drawn.is_empty() {
            return drawn;
        }
        [BEGIN_PICTURE, &drawn, END_PICTURE].concat()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Pen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
