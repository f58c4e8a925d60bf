//! `hallmark seal`, `judge` and `report`, and the end of every run: from frames on disk to a verdict.

use crate::cli::{Judge, Report};
use crate::clock;
use crate::command::publish::Source;
use crate::command::say;
use crate::exit::{Exit, Failure};
use crate::shell::pen::Pen;
use crate::view::View;
use hallmark_results::frame::{Closed, Ending, Frame};
use hallmark_results::report::{self, FORMATS, Story, text::Text};
use hallmark_results::standing::Standing;
use hallmark_results::store::error::StoreError;
use hallmark_results::store::journal::JournalWriter;
use hallmark_results::store::read;
use hallmark_results::store::seal::{CELLS_HELD, Sealed, seal_telling};
use hallmark_results::verdict::{self, Verdict};
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

/// Time that a disk has at the end of a run for what it has not taken yet.
const LAST_WRITES: Duration = Duration::from_secs(60);

/// Between two lines about how far a long seal is.
const TOLD_NS: u64 = 10_000_000_000;

/// A record that has been read and judged.
pub(super) struct Judged {
    standing: Standing,
    verdict: Verdict,
    head: Option<String>,
    anchored: bool,
}

/// Seals a finished run, judges it from its sealed files, writes all reports, shows the verdict.
///
/// # Errors
/// [`Failure`] with exit 4 where the record cannot be sealed; the verdict is shown all the same.
pub fn conclude(
    folder: &Path,
    standing: Standing,
    pen: Pen,
    view: &mut dyn View,
) -> Result<Exit, Failure> {
    // The screen is given back last: a terminal that takes nothing must not keep the record from being sealed.
    view.note("sealing the record");
    let closed = match pen.finish(LAST_WRITES) {
        Ok(written) if written.lost == 0 => written.journal.close().map_err(|e| e.to_string()),
        Ok(written) => Err(format!("{} frames never reached the disk", written.lost)),
        Err(why) => Err(why),
    };
    let sealed = closed.and_then(|_| {
        let sealed = seal_files(folder, &mut |text| view.note(text));
        sealed.map_err(|e| e.to_string())
    });
    if let Err(why) = sealed {
        let verdict = verdict::judge(&standing);
        let story = Story {
            standing: &standing,
            verdict: &verdict,
            head: None,
            anchored: false,
            place: &folder.display().to_string(),
        };
        view.ended();
        view.verdict(&verdict, &summary(&story), folder, "");
        return Err(Failure::broken(format!(
            "the record could not be sealed: {why}; make room and run `hallmark seal {}`",
            folder.display()
        )));
    }
    // A hall's account is large, and the sealed record's is the same.
    drop(standing);
    let judged = open(folder, None)?;
    let story = judged.story(folder);
    write_all(folder, &story.as_story())?;
    let summary = summary(&story.as_story());
    view.ended();
    view.verdict(
        &judged.verdict,
        &summary,
        folder,
        judged.head.as_deref().unwrap_or(""),
    );
    Ok(Exit::from(&judged.verdict))
}

/// Seals, and tells from time to time how far it is, where that takes long.
fn seal_files(folder: &Path, tell: &mut dyn FnMut(&str)) -> Result<Sealed, StoreError> {
    let mut next_ns = clock::monotonic_ns() + TOLD_NS;
    let mut long = false;
    let sealed = seal_telling(folder, CELLS_HELD, &mut |progress| {
        let now_ns = clock::monotonic_ns();
        if now_ns >= next_ns {
            next_ns = now_ns + TOLD_NS;
            long = true;
            tell(&format!("sealing the record: {progress}"));
        }
    });
    if long && sealed.is_ok() {
        tell("sealed; reading the record again to judge it");
    }
    sealed
}

/// A story's owner: holds the text that it borrows.
pub(super) struct Told<'a> {
    judged: &'a Judged,
    place: String,
}

impl Judged {
    /// What the record comes to, where it was sealed.
    pub(super) fn sealed(&self) -> Option<Exit> {
        self.head.as_ref().map(|_| Exit::from(&self.verdict))
    }

    pub(super) fn story(&self, folder: &Path) -> Told<'_> {
        Told {
            judged: self,
            place: folder.display().to_string(),
        }
    }
}

impl Told<'_> {
    pub(super) fn as_story(&self) -> Story<'_> {
        Story {
            standing: &self.judged.standing,
            verdict: &self.judged.verdict,
            head: self.judged.head.as_deref(),
            anchored: self.judged.anchored,
            place: &self.place,
        }
    }
}

fn summary(story: &Story) -> String {
    use hallmark_results::report::Format;
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Text { colour }.write(story)
}

fn write_all(folder: &Path, story: &Story) -> Result<(), Failure> {
    for format in FORMATS.into_iter().filter(|f| f.kept()) {
        let path = folder.join(format.file());
        std::fs::write(&path, format.write(story))
            .map_err(|e| Failure::broken(format!("cannot write {}: {e}", path.display())))?;
    }
    Ok(())
}

/// Closes a run that was cut off and judges it.
///
/// # Errors
/// [`Failure`]: exit 2 where there is nothing to seal, 4 where it cannot be written.
pub fn seal(folder: &Path) -> Result<Exit, Failure> {
    let (mut journal, tail) = JournalWriter::recover(folder).map_err(Failure::usage)?;
    let standing = super::load::fold(folder)?;
    if standing.closed().is_none() {
        let closed = Frame::Closed(Closed {
            at_ns: standing.last_ns(),
            utc_end: clock::utc_now(),
            clock: clock::clock_state(),
            ending: Ending::SealedAfterCrash,
        });
        journal.append(&closed).map_err(Failure::broken)?;
    }
    journal.close().map_err(Failure::broken)?;
    let tell = &mut |text: &str| eprintln!("hallmark: {text}");
    seal_files(folder, tell).map_err(Failure::broken)?;
    let judged = open(folder, None)?;
    let told = judged.story(folder);
    write_all(folder, &told.as_story())?;
    if let hallmark_results::store::journal::Tail::Torn { bytes, .. } = tail {
        say(&format!(
            "{bytes} bytes of a frame that was never finished were left out"
        ));
    }
    say(&summary(&told.as_story()));
    Ok(Exit::from(&judged.verdict))
}

/// Judges a record from its files alone.
///
/// # Errors
/// [`Failure`]: exit 3 where the record does not verify, 2 for an unknown format.
pub fn judge(args: &Judge) -> Result<Exit, Failure> {
    let format = report::find(&args.format).map_err(Failure::usage)?;
    let source = Source::of(&args.record)?;
    let judged = open(&source.folder, args.expect_head.as_deref())?;
    let told = judged.story(&args.record);
    let story = told.as_story();
    let text = if args.format == "text" {
        summary(&story)
    } else {
        format.write(&story)
    };
    say(&text);
    Ok(Exit::from(&judged.verdict))
}

/// Writes a report of a record.
///
/// # Errors
/// [`Failure`]: exit 3 where the record does not verify, 2 for an unknown format, 4 where it cannot be written.
pub fn report(args: &Report) -> Result<Exit, Failure> {
    let format = report::find(&args.format).map_err(Failure::usage)?;
    let source = Source::of(&args.record)?;
    let judged = open(&source.folder, args.expect_head.as_deref())?;
    let text = format.write(&judged.story(&args.record).as_story());
    match &args.output {
        Some(path) => std::fs::write(path, text)
            .map_err(|e| Failure::broken(format!("cannot write {}: {e}", path.display())))?,
        None => say(&text),
    }
    Ok(Exit::Accepted)
}

fn unproven(error: &dyn std::fmt::Display) -> Failure {
    Failure::inconclusive(format!("INCONCLUSIVE: {error}"))
}

/// The account of a record, sealed or as far as it is on disk.
///
/// # Errors
/// [`Failure`]: exit 2 where there is no run, 3 where the record does not verify.
pub(super) fn account(folder: &Path) -> Result<Standing, Failure> {
    let record = read::open_any(folder).map_err(|e| match e {
        StoreError::NoRun(_) | StoreError::Empty { .. } => Failure::usage(e),
        e => unproven(&e),
    })?;
    record.account().map_err(|e| unproven(&e))
}

pub(super) fn open(folder: &Path, expect: Option<&str>) -> Result<Judged, Failure> {
    let record = read::open_any(folder).map_err(|e| unproven(&e))?;
    // Only a seal fixes what the record is; a journal's head still moves.
    let head = record.record().map(|r| r.head().to_owned());
    let anchored = match expect {
        Some(expect) if !record.verify_head(expect) => {
            return Err(unproven(&format!(
                "the record's head is {}, not {expect}",
                record.head()
            )));
        }
        other => other.is_some(),
    };
    let standing = record.account().map_err(|e| unproven(&e))?;
    let verdict = verdict::judge(&standing);
    Ok(Judged {
        standing,
        verdict,
        head,
        anchored,
    })
}
