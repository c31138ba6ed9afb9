//! Why nothing came of a file. Pure.

use super::Sight;
use super::found::{Below, Found, There};
use super::story::{Lines, long};
use crate::cli::show;
use crate::source::file::status::Mode;
use crate::source::{Existing, Settle};
use jiff::{SignedDuration, Timestamp};

/// Why nothing came of it; empty where something did, and what lies there is what came.
#[derive(Debug, Default)]
pub struct Silence {
    /// In one clause.
    pub short: String,
    /// In full, with what mends it.
    pub lines: Lines,
}

impl Silence {
    fn because(&mut self, short: impl Into<String>) {
        if self.short.is_empty() {
            self.short = short.into();
        }
    }
}

/// Works it out.
pub fn why(found: &Found, sight: &Sight) -> Silence {
    let mut silence = Silence::default();
    if let There::Other(what) = &found.there {
        silence.because(format!("what lies there is {what}"));
        silence.lines.say(
            0,
            format!("What lies there is {what}. Only regular files arrive; links are not followed."),
        );
        return silence;
    }
    if found.below.is_empty() {
        if found.came.is_empty() {
            unwatched(found, &mut silence);
        }
        return silence;
    }
    for below in &found.below {
        let told_already = !found.came.is_empty();
        if told_already && !is_another(found, below) {
            continue;
        }
        if told_already {
            silence.because("what lies there now is another version");
            silence.lines.say(
                0,
                "What lies there now is another version than the one that was told of last.",
            );
        }
        one(found, below, sight, &mut silence);
    }
    silence
}

/// Whether what lies there is not what the watch knows.
fn is_another(found: &Found, below: &Below) -> bool {
    match (&found.there, &below.known) {
        (There::File(size, mtime_ns), Some(known)) => {
            known.gone || (known.size, known.mtime_ns) != (*size, *mtime_ns)
        }
        _ => false,
    }
}

fn unwatched(found: &Found, silence: &mut Silence) {
    silence.because("it does not lie below a watched folder");
    if let Some(root) = &found.former {
        silence.lines.say(
            0,
            format!(
                "{} was watched once, and no rule of the setup looks there now.",
                root.display()
            ),
        );
    }
    if found.watched.is_empty() {
        silence.lines.say(
            0,
            "It lies in no watched folder: no rule of the setup watches any.",
        );
        return;
    }
    silence
        .lines
        .say(0, "No rule watches that folder; the watched folders are:");
    for root in &found.watched {
        silence.lines.say(1, root.display().to_string());
    }
}

/// One watch the file lies below.
fn one(found: &Found, below: &Below, sight: &Sight, silence: &mut Silence) {
    let times = &sight.times;
    let root = below.watch.root.display();
    let wanted = below.unwanted.iter().any(|(_, why)| why.is_none());
    if !wanted {
        match below.unwanted.as_slice() {
            [(rule, Some(why))] => silence.because(format!("rule {rule} does not look for it: {why}")),
            _ => silence.because("no rule looks for such a file"),
        }
        for (rule, why) in &below.unwanted {
            let why = why.as_deref().unwrap_or_default();
            silence
                .lines
                .say(0, format!("rule {rule} does not look for it: {why}."));
        }
        return;
    }
    if let Some(link) = &below.link {
        silence.because("a folder on the way is a symbolic link");
        silence.lines.say(
            0,
            format!(
                "{} is a symbolic link, and links are not followed. Watch the folder it points to.",
                link.display()
            ),
        );
        return;
    }
    let Some(status) = &below.status else {
        silence.because("nobody has looked into that folder yet");
        silence.lines.say(
            0,
            format!(
                "{root} is to be watched, and nobody has looked into it yet: start `tidings run`. What lies there \
                 at the first look {}.",
                match below.watch.existing {
                    Existing::Ignore => "counts as known and is not told (`existing: ignore`)",
                    Existing::Process => "is told (`existing: process`)",
                }
            ),
        );
        return;
    };
    if status.mode == Mode::Away {
        silence.because("the watched folder cannot be looked at");
        let since = status
            .away_since
            .map(|since| format!(" since {}", times.at(since)));
        silence.lines.say(
            0,
            format!(
                "{root} cannot be looked at{}: {}",
                since.unwrap_or_default(),
                status.why.as_deref().unwrap_or("it is away")
            ),
        );
        silence.lines.say(
            0,
            "What lies in it is told when it is back; nothing is lost meanwhile.",
        );
        return;
    }
    let same = !is_another(found, below);
    if let Some(known) = below.known.as_ref().filter(|_| same) {
        remembered(found, known.arrivals, known.gone, below, sight, silence);
        return;
    }
    if found.there == There::Nothing {
        silence.because("nothing lies there, and nothing did when the folder was looked at");
        let scan = status
            .last_scan
            .map(|time| format!(" The last complete look at {root} ended {}.", times.at(time)));
        silence.lines.say(
            0,
            format!(
                "Nothing lies there, and no look at the folder found such a file.{} A file that is taken away again \
                 before it was written to its end is not noticed.",
                scan.unwrap_or_default()
            ),
        );
        not_running(sight, silence);
        return;
    }
    unsettled(found, below, sight, silence);
}

/// The watch knows the file, and the journal has no event.
fn remembered(found: &Found, arrivals: u32, gone: bool, below: &Below, sight: &Sight, silence: &mut Silence) {
    if !found.came.is_empty() {
        return;
    }
    if arrivals > 0 {
        silence.because("the journal has forgotten it by now");
        let keep = SignedDuration::try_from(sight.settings.outbox.keep).unwrap_or_default();
        silence.lines.say(
            0,
            format!(
                "It arrived here {}; the journal keeps events for {} (`keep` of the outbox) and has forgotten them by \
                 now. The log of the daemon may know more.",
                match arrivals {
                    1 => "once".to_owned(),
                    2 => "twice".to_owned(),
                    more => format!("{more} times"),
                },
                long(keep)
            ),
        );
        return;
    }
    silence.because("it counts as known since the first look at the folder");
    silence.lines.say(
        0,
        format!(
            "It lay in {} already when the folder was first looked at, or when no rule looked for such a file. What \
             lies there then is no news ({}).",
            below.watch.root.display(),
            match below.watch.existing {
                Existing::Ignore => "`existing: ignore`",
                Existing::Process => "`existing: process` is about the first look only",
            }
        ),
    );
    silence.lines.say(
        0,
        if gone {
            "It is gone since. If it comes again, it arrives."
        } else {
            "To have it told after all, take it away and put it there again, or change it."
        },
    );
}

/// It lies there and has not arrived.
fn unsettled(found: &Found, below: &Below, sight: &Sight, silence: &mut Silence) {
    let times = &sight.times;
    let Some(status) = &below.status else { return };
    if let Some(marker) = &below.marker {
        silence.because("its marker is not there");
        silence.lines.say(
            0,
            format!(
                "It arrives when its marker {} is there, and that is not there yet.",
                marker.display()
            ),
        );
    }
    if !sight.running {
        not_running(sight, silence);
        return;
    }
    let modified = match found.there {
        There::File(_, mtime_ns) => Timestamp::from_nanosecond(i128::from(mtime_ns)).ok(),
        _ => None,
    };
    if status.candidates > 0 {
        silence.because("it has not settled yet");
        let quiet = match &below.watch.settle {
            Settle::Auto => "its writer closes it, or its size and time stand still for some seconds",
            Settle::After(_) => {
                "its size and time have stood still for the time the rule asks for (`settle`)"
            }
            Settle::Marker(_) => "its marker is there",
        };
        let changed = modified.map(|time| format!(" It was last written {}.", times.at(time)));
        silence.lines.say(
            0,
            format!(
                "{} in {} may have arrived and {} waited for. A file arrives when {quiet}.{}",
                show::count(status.candidates, "file"),
                below.watch.root.display(),
                if status.candidates == 1 { "is" } else { "are" },
                changed.unwrap_or_default()
            ),
        );
    } else if below.marker.is_none() {
        silence.because("it has not been noticed yet");
        let every = SignedDuration::try_from(below.watch.scan_every).unwrap_or_default();
        let scan = status
            .last_scan
            .map(|time| format!(" The last complete look ended {}.", times.at(time)));
        silence.lines.say(
            0,
            format!(
                "It has not been noticed yet.{} The folder is looked through every {} at least.",
                scan.unwrap_or_default(),
                long(every)
            ),
        );
    }
    if status.unreadable > 0 {
        silence.lines.say(
            0,
            format!(
                "{} below {} could not be read at the last look: see `tidings status`.",
                show::count(status.unreadable, "folder"),
                below.watch.root.display()
            ),
        );
    }
}

fn not_running(sight: &Sight, silence: &mut Silence) {
    if !sight.running {
        silence.because("tidings is not running");
        silence.lines.say(
            0,
            "Tidings is not running: nobody looks at the folder. Start `tidings run`; what has come meanwhile arrives \
             then.",
        );
    }
}
