//! Full-screen view of a run: the running verdict, progress, devices worst first, gates, events.
//!
//! It takes the terminal while the load is on and gives it back whatever happens: at the end, on a panic,
//! when dropped. Bytes go out through a thread of their own, and a screen that is not taken is not redrawn:
//! a lost connection holds up no run. It reads keys without waiting, and a clock only to see how long judging took.

use super::plain::closing;
use super::plain::outlet::Outlet;
use super::plain::reading::Reading;
use super::plain::words;
use super::{Key, View};
use crate::clock::RunClock;
use crate::run::Run;
use hallmark_results::frame::Frame;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Verdict, judge};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Position, Rect};
use screen::{Page, Scene, Screen};
use std::path::Path;
use std::time::Duration;
use terminal::{Giver, Pen};

mod devices;
mod gates;
mod ink;
mod pages;
mod screen;
mod spark;
mod terminal;

/// Distance of drawings, and of judgements.
const DRAW_NS: u64 = 200_000_000;
const JUDGE_NS: u64 = 1_000_000_000;
/// Judging a hall takes longer than drawing it, and the run waits for it: it gets one part in so many of the run's time.
const JUDGE_SHARE: u64 = 50;
/// Lines of a page that a page key moves by.
const PAGE: isize = 10;

/// A question put before something that cannot be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Stop,
    Cut,
}

/// The view.
pub struct Live {
    terminal: Terminal<CrosstermBackend<Pen>>,
    pen: Pen,
    /// Gives the terminal back when dropped.
    giver: Option<Giver>,
    out: Outlet,
    keys: Keyboard,
    folder: String,
    head: Vec<String>,
    notes: Vec<String>,
    verdict: Option<Verdict>,
    next_draw_ns: u64,
    next_judge_ns: u64,
}

impl Live {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where there is none that can be written to and read keys from.
    pub fn new() -> std::io::Result<Self> {
        let giver = Giver::take()?;
        let pen = Pen::default();
        let terminal = Terminal::new(CrosstermBackend::new(pen.clone()))?;
        let mut live = Self {
            terminal,
            pen,
            giver: Some(giver),
            out: Outlet::stdout(),
            keys: Keyboard::default(),
            folder: String::new(),
            head: Vec::new(),
            notes: Vec::new(),
            verdict: None,
            next_draw_ns: 0,
            next_judge_ns: 0,
        };
        let _ = live.terminal.clear();
        Ok(live)
    }

    /// Draws, and hands over what came of it.
    fn draw(&mut self, what: impl FnOnce(ratatui::layout::Rect, &mut ratatui::buffer::Buffer)) {
        if std::mem::take(&mut self.keys.redraw) {
            // Not `clear`, which asks the terminal where its cursor is and waits for the answer.
            let area = self
                .terminal
                .size()
                .map(|size| Rect::from((Position::ORIGIN, size)));
            let _ = area.map(|area| self.terminal.resize(area));
        }
        // A terminal that cannot be drawn on changes no run.
        let _ = self
            .terminal
            .draw(|frame| what(frame.area(), frame.buffer_mut()));
        let bytes = self.pen.take();
        if !bytes.is_empty() && !self.out.send(bytes) {
            // The difference was lost: what the terminal shows is no longer known.
            self.keys.redraw = true;
        }
    }

    fn draw_preparing(&mut self) {
        if self.giver.is_none() || !self.out.is_idle() {
            return;
        }
        let (head, notes) = (self.head.clone(), self.notes.clone());
        self.draw(|area, buffer| screen::preparing(&head, &notes, area, buffer));
    }

    /// Gives the terminal back.
    fn leave(&mut self) {
        if self.giver.is_some() {
            self.out.finish();
        }
        self.giver = None;
    }
}

impl View for Live {
    fn opened(&mut self, standing: &Standing, folder: &Path) {
        let opened = standing.opened();
        self.folder = folder.display().to_string();
        self.head = vec![
            format!("hallmark  run {}", words::clean(&opened.run_id)),
            format!(
                "profile   {}: {}",
                words::clean(&standing.profile().name),
                words::clean(&standing.profile().summary)
            ),
            format!("plan      {}", words::clean(&opened.plan_digest)),
            format!("folder    {}", words::clean(&self.folder)),
            format!(
                "takes     at most {}",
                words::duration(opened.plan.duration_ns())
            ),
        ];
        let devices = opened.plan.devices.iter().take(8);
        self.head.extend(devices.map(|d| {
            format!(
                "device    {}  {}",
                words::clean(&d.id),
                words::clean(&d.name)
            )
        }));
        self.draw_preparing();
    }

    fn note(&mut self, text: &str) {
        if self.giver.is_none() {
            println!("{}", words::clean(text));
            return;
        }
        self.notes.push(words::clean(text));
        self.draw_preparing();
    }

    fn frame(&mut self, _frame: &Frame, _run: &Run, _now_ns: u64) {}

    fn tick(&mut self, run: &Run, now_ns: u64) {
        let early = now_ns < self.next_draw_ns && !self.keys.pending();
        if self.giver.is_none() || run.current().is_none() || early || !self.out.is_idle() {
            return;
        }
        self.next_draw_ns = now_ns + DRAW_NS;
        if now_ns >= self.next_judge_ns {
            let clock = RunClock::start();
            self.verdict = Some(judge(run.standing()));
            let rest_ns = JUDGE_NS.max(clock.now_ns().saturating_mul(JUDGE_SHARE));
            self.next_judge_ns = now_ns.saturating_add(rest_ns);
        }
        let verdict = self.verdict.take();
        let folder = std::mem::take(&mut self.folder);
        let reading = Reading {
            standing: run.standing(),
            current: run.current(),
            now_ns,
        };
        let scene = Scene::new(reading, verdict.as_ref(), &folder);
        let mut screen = std::mem::take(&mut self.keys.screen);
        for by in self.keys.moves.drain(..) {
            screen.step(&scene, by);
        }
        self.keys.touched = false;
        self.draw(|area, buffer| screen.draw(&scene, area, buffer));
        self.keys.screen = screen;
        self.verdict = verdict;
        self.folder = folder;
    }

    fn pressed(&mut self) -> Option<Key> {
        self.giver.as_ref()?;
        if terminal::is_gone() {
            return None;
        }
        // A keyboard that cannot be read is as good as none.
        while event::poll(Duration::ZERO).unwrap_or(false) {
            let key = match event::read() {
                Ok(Event::Key(key)) => self.keys.press(key),
                Ok(Event::Resize(..)) => {
                    self.keys.touched = true;
                    None
                }
                Ok(_) => None,
                Err(_) => return None,
            };
            if key.is_some() {
                return key;
            }
        }
        None
    }

    fn ended(&mut self) {
        self.leave();
    }

    fn verdict(&mut self, _verdict: &Verdict, summary: &str, _folder: &Path, head: &str) {
        self.leave();
        let mut out = Outlet::stdout();
        out.insist(closing(summary, head).into_bytes());
        out.finish();
    }
}

/// What keys do to the screen and to the run.
#[derive(Default)]
struct Keyboard {
    screen: Screen,
    /// Lines to move by at the next drawing, when the list is at hand.
    moves: Vec<isize>,
    /// Something to show before the next drawing is due.
    touched: bool,
    redraw: bool,
    /// Ctrl-C was pressed before.
    interrupted: bool,
}

impl Keyboard {
    fn pending(&self) -> bool {
        self.touched || self.redraw
    }

    fn press(&mut self, key: KeyEvent) -> Option<Key> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.touched = true;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return self.control(key.code);
        }
        let asked = self.screen.asked.take();
        match key.code {
            KeyCode::Char('q') if asked == Some(Asked::Stop) => return Some(Key::Stop),
            KeyCode::Char('Q') if asked == Some(Asked::Cut) => return Some(Key::Cut),
            KeyCode::Char('q') => self.screen.asked = Some(Asked::Stop),
            KeyCode::Char('Q') => self.screen.asked = Some(Asked::Cut),
            // Any other key answers the question with no, and does nothing else.
            _ if asked.is_some() => {}
            code => self.look(code),
        }
        None
    }

    fn control(&mut self, code: KeyCode) -> Option<Key> {
        match code {
            KeyCode::Char('c') if self.interrupted => Some(Key::Cut),
            KeyCode::Char('c') => {
                self.interrupted = true;
                Some(Key::Stop)
            }
            KeyCode::Char('l') => {
                self.redraw = true;
                None
            }
            _ => None,
        }
    }

    fn look(&mut self, code: KeyCode) {
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.moves.push(-1),
            KeyCode::Down | KeyCode::Char('j') => self.moves.push(1),
            KeyCode::PageUp => self.moves.push(-PAGE),
            KeyCode::PageDown | KeyCode::Char(' ') => self.moves.push(PAGE),
            KeyCode::Home => self.moves.push(isize::MIN),
            KeyCode::End => self.moves.push(isize::MAX),
            KeyCode::Enter if self.screen.page == Page::Overview => self.screen.open(Page::Device),
            KeyCode::Char('g') => self.screen.open(Page::Gates),
            KeyCode::Char('e') => self.screen.open(Page::Events),
            KeyCode::Char('?' | 'h') => self.screen.open(Page::Help),
            KeyCode::Char('s') if self.screen.page == Page::Overview => {
                self.screen.sort = self.screen.sort.next()
            }
            KeyCode::Esc | KeyCode::Backspace if self.screen.page != Page::Overview => {
                self.screen.open(Page::Overview);
            }
            KeyCode::Esc => self.screen.chosen = None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
