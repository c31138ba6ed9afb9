//! When a writer is done: a pure state machine, one [`Candidate`] a file that may have arrived.
//!
//! ```text
//!                      heard: renamed into place            looked at once
//!                   +--------------------------> in place ------------------+
//!   nothing known --+  closed after writing           still for 300 ms      v
//!     (found by     +--------------------------> closed ----------------> settled
//!      a scan)      |  opened, written to             still for a minute    ^
//!                   +--------------------------> being written -------------+
//!                   |                                 the same at two looks |
//!                   +-------------------------------------------------------+
//! ```
//!
//! It is told what was heard ([`Candidate::hear`]) and what a look at the file showed
//! ([`Candidate::look`]); it answers with a verdict and the reason. Any difference between two looks
//! starts the wait anew. The age of the mtime is never asked: a file moved in with an old mtime, or
//! copied with `cp -p`, may still be growing.
//!
//! Where notifications work, a file that is known to be open for writing (its creation was followed by
//! an open, or it was written to and not closed since) is not taken for done because its writer pauses:
//! only a whole minute of standing still overrules that. Without notifications nobody can know, and
//! two equal looks have to do.
//!
//! This module opens nothing and asks no clock. Times are durations since the source started.

use crate::source::root::Meta;
use std::time::Duration;

/// How long a file must stand still after it was closed.
pub const QUIET: Duration = Duration::from_millis(300);

/// Time between two looks at a file whose creation was told, but no writer: a hard link.
pub const LOOK: Duration = Duration::from_secs(1);

/// Time between two looks at a file that only a scan found, where notifications work: somebody may have
/// been writing to it since before we listened. A writer that pauses for less does not fool us.
pub const FOUND: Duration = Duration::from_secs(5);

/// How long a file that is held open for writing must stand still to be taken all the same: some
/// programs never close what they write.
pub const HELD_OPEN: Duration = Duration::from_secs(60);

/// What was heard of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A scan found it.
    Seen,
    /// The name came to be: by a writer, or as a hard link.
    Created,
    /// Somebody opened it right after it was created, or wrote to it.
    Written,
    /// Somebody who had it open for writing closed it.
    Closed,
    /// It was renamed to this name.
    Renamed,
}

/// When a writer counts as done, with the paces of the folder the file lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// By what is heard; where nothing was, by two equal looks, this far apart.
    Auto(Duration),
    /// The same for this long.
    Still(Duration),
    /// The marker is there. If it was there before the file: as `Auto` says, with looks this far apart.
    Marker(Duration),
}

/// What a look at the file showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The file, if it is a regular one and there.
    pub file: Option<Meta>,
    /// Its marker is there. Only [`Until::Marker`] asks.
    pub marker: bool,
}

/// What to do with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again then; `None`: only when something is heard or a scan finds it again.
    Wait(Option<Duration>, &'static str),
    /// The writer is done; the file is as it was at this look.
    Settled(&'static str),
    /// No file any more.
    Drop(&'static str),
}

/// What speaks for or against the writer being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Found,
    Created,
    Writing,
    Closed { looked: bool },
    InPlace,
}

/// A file that may have arrived.
#[derive(Clone, Debug)]
pub struct Candidate {
    last: Option<Meta>,
    still_since: Duration,
    sign: Sign,
    marker_awaited: bool,
    restarts: u32,
}

impl Candidate {
    /// A file first heard of at `now`; follow it with [`Candidate::hear`].
    pub fn new(now: Duration) -> Candidate {
        Candidate {
            last: None,
            still_since: now,
            sign: Sign::Found,
            marker_awaited: false,
            restarts: 0,
        }
    }

    /// Takes note of what was heard. Returns whether a look is due at once.
    pub fn hear(&mut self, heard: Heard, now: Duration) -> bool {
        match heard {
            Heard::Seen => self.last.is_none() || self.marker_awaited,
            Heard::Created => {
                self.sign = Sign::Created;
                true
            }
            Heard::Written => {
                self.sign = Sign::Writing;
                self.still_since = now;
                false
            }
            Heard::Closed => {
                self.sign = Sign::Closed { looked: false };
                self.still_since = now;
                true
            }
            Heard::Renamed => {
                self.sign = Sign::InPlace;
                true
            }
        }
    }

    /// How often the file was found changed. Who cannot wait for ever gives up by this.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Judges by a look taken at `now`.
    pub fn look(&mut self, sight: Sight, until: Until, now: Duration) -> Verdict {
        let Some(meta) = sight.file else {
            return Verdict::Drop("it is no longer there");
        };
        let changed = self.last.is_some_and(|last| last != meta);
        if changed {
            self.restarts = self.restarts.saturating_add(1);
        }
        if changed || self.last.is_none() {
            self.still_since = now;
        }
        self.last = Some(meta);
        match until {
            Until::Auto(look) => self.by_signs(changed, look, now),
            Until::Still(quiet) => self.still(quiet, now, "it has to stand still", "it stood still"),
            Until::Marker(_) if !sight.marker => {
                self.marker_awaited = true;
                Verdict::Wait(None, "its marker is not there")
            }
            Until::Marker(_) if self.marker_awaited => Verdict::Settled("its marker came"),
            Until::Marker(look) => self.by_signs(changed, look, now),
        }
    }

    fn by_signs(&mut self, changed: bool, look: Duration, now: Duration) -> Verdict {
        match self.sign {
            Sign::InPlace => Verdict::Settled("it was renamed into place"),
            Sign::Closed { looked: false } => {
                // The first look after the close shows what was closed, whatever an earlier one showed.
                self.sign = Sign::Closed { looked: true };
                self.still(
                    QUIET,
                    now,
                    "it was closed a moment ago",
                    "it was closed and stood still",
                )
            }
            Sign::Closed { looked: true } if changed => {
                // Touched after the close without a word: a time set by its name, or a lost notification.
                self.sign = Sign::Created;
                self.still(LOOK, now, "it changed after it was closed", "it stood still")
            }
            Sign::Closed { looked: true } => self.still(
                QUIET,
                now,
                "it was closed a moment ago",
                "it was closed and stood still",
            ),
            Sign::Writing => self.still(
                HELD_OPEN.max(look),
                now,
                "it is open for writing",
                "it is held open but stood still",
            ),
            Sign::Created => self.still(
                LOOK,
                now,
                "two looks must show the same",
                "two looks showed the same",
            ),
            Sign::Found => self.still(
                look,
                now,
                "two looks must show the same",
                "two looks showed the same",
            ),
        }
    }

    fn still(&self, long: Duration, now: Duration, wait: &'static str, done: &'static str) -> Verdict {
        let due = self.still_since.saturating_add(long);
        if now >= due && (now > self.still_since || long.is_zero()) {
            Verdict::Settled(done)
        } else {
            Verdict::Wait(Some(due), wait)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs one case: `TIME hear WORD`, `TIME look SIZE[@MTIME] [marker] -> VERDICT`, `TIME look gone -> VERDICT`.
    fn run(case: &str) {
        let mut lines = case.lines();
        let name = lines.next().unwrap();
        let rule = lines.next().unwrap();
        let until = match rule.split_whitespace().collect::<Vec<_>>()[..] {
            ["auto", "native"] => Until::Auto(FOUND),
            ["auto", "polled", look] => Until::Auto(time(look)),
            ["still", quiet] => Until::Still(time(quiet)),
            ["marker"] => Until::Marker(FOUND),
            _ => panic!("{name}: no such rule: {rule}"),
        };
        let mut candidate = None;
        for line in lines.filter(|line| !line.trim().is_empty()) {
            let (input, expected) = line.split_once("->").unwrap_or((line, ""));
            let words: Vec<_> = input.split_whitespace().collect();
            let now = time(words[0]);
            let candidate = candidate.get_or_insert_with(|| Candidate::new(now));
            let answer = match words[1] {
                "hear" => {
                    let heard = match words[2] {
                        "seen" => Heard::Seen,
                        "created" => Heard::Created,
                        "written" => Heard::Written,
                        "closed" => Heard::Closed,
                        "renamed" => Heard::Renamed,
                        other => panic!("{name}: heard what: {other}"),
                    };
                    if candidate.hear(heard, now) {
                        "look".to_owned()
                    } else {
                        String::new()
                    }
                }
                "look" => {
                    let file = (words[2] != "gone").then(|| {
                        let (size, mtime) = words[2].split_once('@').unwrap_or((words[2], "0"));
                        let (size, mtime_ns) = (size.parse().unwrap(), mtime.parse().unwrap());
                        Meta {
                            size,
                            mtime_ns,
                            ino: 1,
                        }
                    });
                    let sight = Sight {
                        file,
                        marker: words.contains(&"marker"),
                    };
                    match candidate.look(sight, until, now) {
                        Verdict::Wait(Some(until), why) => format!("wait {}ms: {why}", until.as_millis()),
                        Verdict::Wait(None, why) => format!("wait: {why}"),
                        Verdict::Settled(why) => format!("settled: {why}"),
                        Verdict::Drop(why) => format!("drop: {why}"),
                    }
                }
                other => panic!("{name}: no such input: {other}"),
            };
            assert_eq!(answer, expected.trim(), "{name}: {line}");
        }
    }

    fn time(word: &str) -> Duration {
        Duration::from_millis(word.trim_end_matches("ms").parse().unwrap())
    }

    #[test]
    fn the_cases_hold() {
        let cases: Vec<_> = include_str!("settle_cases.txt").split("\n== ").skip(1).collect();
        assert!(cases.len() > 12, "the file was read");
        cases.into_iter().for_each(run);
    }

    fn anything() -> impl Strategy<Value = Vec<(u64, u8)>> {
        proptest::collection::vec((1..300_u64, 0..5_u8), 1..200)
    }

    proptest! {
        /// Writers that write, close, open again, with looks at any time between: as long as the next
        /// change comes within the quiet time, nothing settles.
        #[test]
        fn nothing_settles_while_changes_come_closer_than_the_quiet_time(
            steps in anything(), still in proptest::bool::ANY,
        ) {
            let until = if still { Until::Still(QUIET) } else { Until::Auto(FOUND) };
            let (mut now, mut size) = (0, 0);
            let mut candidate = Candidate::new(Duration::ZERO);
            candidate.hear(Heard::Created, Duration::ZERO);
            for (gap, action) in steps {
                // Looks happen whenever they like between two changes ...
                for part in 1..=3 {
                    let at = Duration::from_millis(now + gap * part / 4);
                    let sight = Sight { file: Some(Meta { size, mtime_ns: 0, ino: 1 }), marker: false };
                    let verdict = candidate.look(sight, until, at);
                    prop_assert!(!matches!(verdict, Verdict::Settled(_)), "settled at {at:?}");
                }
                // ... and each step changes the file; what is heard of it varies.
                now += gap;
                size += 1;
                let at = Duration::from_millis(now);
                match action {
                    0 => { candidate.hear(Heard::Written, at); }
                    1 | 2 => { candidate.hear(Heard::Closed, at); }
                    3 => { candidate.hear(Heard::Seen, at); }
                    _ => {}
                }
            }
        }

        /// Once the changes end, looking when told to leads to an end.
        #[test]
        fn everything_settles_when_the_changes_end(steps in anything()) {
            let (mut now, mut size) = (0, 0);
            let mut candidate = Candidate::new(Duration::ZERO);
            for (gap, action) in steps {
                now += gap;
                size += 1;
                let at = Duration::from_millis(now);
                let heard = [Heard::Seen, Heard::Created, Heard::Written, Heard::Closed, Heard::Renamed];
                candidate.hear(heard[usize::from(action)], at);
            }
            let mut at = Duration::from_millis(now);
            let sight = Sight { file: Some(Meta { size, mtime_ns: 0, ino: 1 }), marker: false };
            for _ in 0..4 {
                match candidate.look(sight, Until::Auto(FOUND), at) {
                    Verdict::Settled(_) => return Ok(()),
                    Verdict::Wait(Some(until), _) => {
                        prop_assert!(until > at, "a wait must lead on");
                        at = until;
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert!(false, "it never settled");
        }
    }
}
