//! What is expected by a deadline, and what became of it. Pure: arrivals and times in, steps of cases out.
//!
//! ```text
//!   by:     ----|-------- window --------|= grace =|----     in the window, or in the grace if it still lacks
//!             from                     deadline               something: in time; else the case opens
//!   every:  --*----------- so long ----------|= grace =|--    from the last one on
//!            last                         deadline
//! ```
//!
//! Nothing is decided before it is certain: [`Look::certain`] says up to when all that came is known (a scan
//! that began then has ended, and what it found was read from the journal). What comes meanwhile waits.
//!
//! An arrival after the deadline closes the oldest open case and does not count for the next window; but
//! from the middle of that window on it counts there as well, so that a day that was left out does not make
//! every day after it late.

use crate::event::{EventId, FileRef};
use crate::source::absence::deadline::{Daily, Every};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most open cases of one expectation, and most deadlines that are made up for.
pub const MOST: usize = 60;

/// Most files that `every` can count.
pub const COUNT: u32 = 1_000;

/// When it is expected.
#[derive(Clone, Debug)]
pub enum Rhythm {
    /// By a time of the day.
    By(Daily),
    /// So long after the last one.
    Every(Every),
}

/// What is expected by a deadline.
#[derive(Clone, Debug)]
pub struct Expected {
    /// When.
    pub rhythm: Rhythm,
    /// The rhythm as people say it: `07:00, mon-fri except holidays`.
    pub by: String,
    /// How long after the deadline it still counts as in time.
    pub grace: Duration,
    /// How many.
    pub count: u32,
    /// Deadlines that passed while nobody looked are judged all the same.
    pub tell_missed: bool,
}

/// How an expectation stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Since when it is expected at all.
    pub since: Timestamp,
    /// What lay there before was taken in.
    pub primed: bool,
    /// Up to which event the journal was read for it.
    pub after: i64,
    /// The deadline judged last, where the window begins.
    pub from: Timestamp,
    /// How many came in the window.
    pub found: u64,
    /// How many came for the one after it.
    pub ahead: u64,
    /// With `every`: the newest, the oldest of them first.
    pub recent: Vec<Timestamp>,
    /// What came before the deadline before it was judged.
    pub pending: Vec<Arrival>,
    /// What is missing, the oldest first.
    pub open: Vec<Open>,
}

/// Something that came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Arrival {
    /// When it came, as well as we know.
    pub at: Timestamp,
    /// When we knew.
    pub known: Timestamp,
    /// The event that told.
    pub event: Option<i64>,
}

impl Arrival {
    /// A job's end.
    pub fn of_job(at: Timestamp, event: EventId) -> Arrival {
        Arrival {
            at,
            known: at,
            event: Some(event.0),
        }
    }

    /// A file's arrival. What came while nobody looked is found later, and its time of change tells when:
    /// but no earlier than `looked`, when it was certainly not there.
    pub fn of_file(
        file: &FileRef,
        told: Timestamp,
        looked: Option<Timestamp>,
        event: Option<EventId>,
    ) -> Arrival {
        let changed = Timestamp::from_nanosecond(i128::from(file.mtime_ns)).unwrap_or(told);
        Arrival {
            at: changed.max(looked.unwrap_or(told)).min(told),
            known: told,
            event: event.map(|event| event.0),
        }
    }
}

/// A deadline that passed in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The deadline.
    pub deadline: Timestamp,
    /// How many have come.
    pub found: u64,
    /// Since when there was none: the deadline itself, or with `every` the last one.
    pub since: Timestamp,
}

/// Up to when and how it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// All that came until then is known. `None`: nothing is.
    pub certain: Option<Timestamp>,
    /// Since when somebody looks.
    pub up_since: Timestamp,
    /// A deadline that passed longer before that was missed.
    pub late: Duration,
}

/// What happens to a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It did not come.
    Opens(Open),
    /// It came late.
    Closes {
        /// What was missing.
        open: Open,
        /// How it came.
        arrival: Arrival,
        /// How late, seconds.
        late: i64,
    },
    /// So many are missing that the oldest is not waited for any longer.
    GivenUp(Open),
}

impl Progress {
    /// An expectation that begins now.
    pub fn begin(expected: &Expected, now: Timestamp) -> Progress {
        let from = match &expected.rhythm {
            Rhythm::By(daily) => daily.last(now).unwrap_or(now),
            Rhythm::Every(_) => now,
        };
        let recent = match expected.rhythm {
            Rhythm::By(_) => Vec::new(),
            Rhythm::Every(_) => vec![now; expected.count as usize],
        };
        Progress {
            since: now,
            primed: false,
            after: 0,
            from,
            found: 0,
            ahead: 0,
            recent,
            pending: Vec::new(),
            open: Vec::new(),
        }
    }
}

impl Expected {
    /// When the next deadline and its grace are over: then it wants to be looked at.
    pub fn wake(&self, progress: &Progress) -> Option<Timestamp> {
        match &self.rhythm {
            Rhythm::By(daily) => self.limit(daily.next(progress.from)?),
            Rhythm::Every(_) if !progress.open.is_empty() => None,
            Rhythm::Every(every) => self.limit(every.over(*progress.recent.first()?)?),
        }
    }

    fn limit(&self, deadline: Timestamp) -> Option<Timestamp> {
        deadline
            .checked_add(SignedDuration::try_from(self.grace).ok()?)
            .ok()
    }

    /// The earliest time at which something still counts that lay there at the very first look.
    pub fn reaches_back(&self, progress: &Progress) -> Timestamp {
        match &self.rhythm {
            Rhythm::By(_) => progress.from,
            Rhythm::Every(every) => {
                let span = SignedDuration::try_from(every.every).unwrap_or(SignedDuration::MAX);
                // Days that take no time make it longer; too much is sorted out by `prime`.
                progress
                    .since
                    .checked_sub(span.saturating_mul(8))
                    .unwrap_or(Timestamp::MIN)
            }
        }
    }

    /// Takes in what came before it was expected at all: it counts, as far as it is not too old.
    pub fn prime(&self, progress: &mut Progress, arrivals: Vec<Arrival>, look: &Look) -> Vec<Step> {
        progress.primed = true;
        let back = self.reaches_back(progress);
        let mut arrivals: Vec<Arrival> = arrivals.into_iter().filter(|arrival| arrival.at > back).collect();
        if let Rhythm::Every(every) = &self.rhythm {
            let since = progress.since;
            let (before, after): (Vec<Arrival>, Vec<Arrival>) =
                arrivals.into_iter().partition(|arrival| arrival.at <= since);
            let mut known: Vec<Timestamp> = before
                .iter()
                .map(|arrival| arrival.at)
                .filter(|at| every.over(*at).is_some_and(|over| over > since))
                .collect();
            known.sort_unstable();
            // Where too few lay there, its time begins now.
            if let Some(spare) = known.len().checked_sub(self.count as usize) {
                progress.recent = known.split_off(spare);
            }
            arrivals = after;
        }
        self.step(progress, arrivals, look)
    }

    /// Takes in what came since, and judges every deadline that can be judged.
    pub fn step(&self, progress: &mut Progress, arrivals: Vec<Arrival>, look: &Look) -> Vec<Step> {
        let mut queue = std::mem::take(&mut progress.pending);
        queue.extend(arrivals);
        queue.sort();
        let mut steps = Vec::new();
        match &self.rhythm {
            Rhythm::By(daily) => self.by(daily, progress, queue, look, &mut steps),
            Rhythm::Every(every) => self.every(every, progress, queue, look, &mut steps),
        }
        while progress.open.len() > MOST {
            steps.push(Step::GivenUp(progress.open.remove(0)));
        }
        steps
    }

    fn by(
        &self,
        daily: &Daily,
        progress: &mut Progress,
        queue: Vec<Arrival>,
        look: &Look,
        steps: &mut Vec<Step>,
    ) {
        let certain = look.certain.unwrap_or(Timestamp::MIN);
        self.leap(daily, progress, certain);
        for arrival in queue {
            loop {
                let due = daily.next(progress.from);
                let limit = due.and_then(|due| self.limit(due)).unwrap_or(Timestamp::MAX);
                if arrival.at > limit {
                    if certain < limit {
                        wait(progress, arrival);
                        break;
                    }
                    self.judge(due.unwrap_or(limit), progress, look, steps);
                    continue;
                }
                self.take(arrival, due.unwrap_or(Timestamp::MAX), progress, steps);
                break;
            }
        }
        while let Some(due) = daily.next(progress.from)
            && self.limit(due).is_some_and(|limit| limit <= certain)
        {
            self.judge(due, progress, look, steps);
        }
    }

    /// Where years of deadlines have passed, only the newest are made up for.
    fn leap(&self, daily: &Daily, progress: &mut Progress, certain: Timestamp) {
        let mut first = certain;
        for _ in 0..MOST {
            let Some(last) = daily.last(first).filter(|last| *last > progress.from) else {
                return;
            };
            first = last.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(last);
        }
        if let Some(last) = daily.last(first).filter(|last| *last > progress.from) {
            (progress.from, progress.found, progress.ahead) = (last, 0, 0);
        }
    }

    fn judge(&self, due: Timestamp, progress: &mut Progress, look: &Look, steps: &mut Vec<Step>) {
        let limit = self.limit(due).unwrap_or(due);
        if progress.found < u64::from(self.count) && !self.skips(limit, look) {
            let open = Open {
                deadline: due,
                found: progress.found,
                since: due,
            };
            progress.open.push(open.clone());
            steps.push(Step::Opens(open));
        }
        progress.from = due;
        progress.found = std::mem::take(&mut progress.ahead);
    }

    fn skips(&self, limit: Timestamp, look: &Look) -> bool {
        let late = SignedDuration::try_from(look.late).unwrap_or(SignedDuration::MAX);
        !self.tell_missed && look.up_since.duration_since(limit) > late
    }

    fn take(&self, arrival: Arrival, due: Timestamp, progress: &mut Progress, steps: &mut Vec<Step>) {
        let at = arrival.at;
        if let Some(first) = progress.open.first_mut() {
            first.found += 1;
            if first.found >= u64::from(self.count) {
                let open = progress.open.remove(0);
                steps.push(closes(open, arrival));
            }
            if at.duration_since(progress.from) < due.duration_since(at) {
                return;
            }
        }
        if at <= due || progress.found < u64::from(self.count) {
            progress.found += 1;
        } else {
            progress.ahead += 1;
        }
    }

    fn every(
        &self,
        every: &Every,
        progress: &mut Progress,
        queue: Vec<Arrival>,
        look: &Look,
        steps: &mut Vec<Step>,
    ) {
        let certain = look.certain.unwrap_or(Timestamp::MIN);
        for arrival in queue {
            if let Some((_, limit)) = self.overdue(every, progress)
                && arrival.at > limit
            {
                if certain < limit {
                    wait(progress, arrival);
                    continue;
                }
                self.lack(every, progress, look, steps);
            }
            let at = arrival.at;
            progress.recent.push(at);
            progress.recent.sort_unstable();
            progress.recent.remove(0);
            let fits = progress
                .recent
                .first()
                .is_none_or(|first| every.over(*first).is_none_or(|over| over >= at));
            if let Some(open) = progress.open.first_mut() {
                open.found += 1;
                if fits {
                    let open = progress.open.remove(0);
                    steps.push(closes(open, arrival));
                }
            }
        }
        if self
            .overdue(every, progress)
            .is_some_and(|(_, limit)| limit <= certain)
        {
            self.lack(every, progress, look, steps);
        }
    }

    /// The deadline and the end of its grace, while no case is open.
    fn overdue(&self, every: &Every, progress: &Progress) -> Option<(Timestamp, Timestamp)> {
        if !progress.open.is_empty() {
            return None;
        }
        let due = every.over(*progress.recent.first()?)?;
        Some((due, self.limit(due)?))
    }

    fn lack(&self, every: &Every, progress: &mut Progress, look: &Look, steps: &mut Vec<Step>) {
        let Some((deadline, limit)) = self.overdue(every, progress) else {
            return;
        };
        if self.skips(limit, look) {
            progress.recent.fill(look.up_since);
            return;
        }
        let in_time =
            |at: &&Timestamp| every.over(**at).is_some_and(|over| over > deadline) && **at > progress.since;
        let open = Open {
            deadline,
            found: progress.recent.iter().filter(in_time).count() as u64,
            since: progress.recent.last().copied().unwrap_or(deadline),
        };
        progress.open.push(open.clone());
        steps.push(Step::Opens(open));
    }
}

/// Kept until its deadline can be judged. More than anybody counts are not kept.
fn wait(progress: &mut Progress, arrival: Arrival) {
    if progress.pending.len() < 10_000 {
        progress.pending.push(arrival);
    }
}

fn closes(open: Open, arrival: Arrival) -> Step {
    let late = |at: Timestamp| at.duration_since(open.deadline).as_secs();
    // Found only after the deadline was judged, though it may have been there.
    let late = match late(arrival.at) {
        late if late > 0 => late,
        // Within the second it is a second, so that who asks `if late` is answered right.
        _ => late(arrival.known).max(1),
    };
    Step::Closes { open, arrival, late }
}

#[cfg(test)]
mod tests;
