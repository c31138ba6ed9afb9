//! Everything that notices, as one list: at an instant each looks once, and says when it wants to look next.

use crate::app;
use crate::clock::Clock;
use crate::ground::Ground;
use crate::rule::Rule;
use crate::source::Watch;
use crate::source::absence::AbsenceSource;
use crate::source::file::stepped::SteppedFiles;
use crate::source::schedule::ScheduleSource;
use crate::store::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};

/// When an absence that waits for a look at its folder looks again.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// All sources of a setup.
pub struct Sources {
    /// Watched folders.
    pub files: SteppedFiles,
    schedules: ScheduleSource,
    absence: AbsenceSource,
    clock: Clock,
    /// The last instant at which an absence asked for a look at the folders.
    asked: Option<Timestamp>,
}

impl Sources {
    /// Makes them; they go on where the store says they were.
    pub async fn begin(
        rules: &[Rule],
        watches: Vec<Watch>,
        store: &Store,
        clock: &Clock,
        ground: &Ground,
    ) -> Result<Sources, StoreError> {
        let (schedules, absences) = (app::schedules_of(rules), app::expectations_of(rules));
        Ok(Sources {
            files: SteppedFiles::begin(watches, store, clock, ground).await?,
            schedules: ScheduleSource::new(schedules, store.clone(), clock.clone()).0,
            absence: AbsenceSource::new(absences, store.clone(), clock.clone(), None).0,
            clock: clock.clone(),
            asked: None,
        })
    }

    /// Everything that can be noticed at this instant.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let due = self.absence.waits() || self.absence.next().is_some_and(|due| due <= now);
        if due && self.asked.replace(now) != Some(now) {
            // Only a look that begins now can say what is not there now.
            self.files.told(None);
        }
        self.files.look().await?;
        self.schedules.tick().await?;
        self.absence.tick().await?;
        Ok(())
    }

    /// When one of them wants to look next.
    pub fn next_due(&self) -> Option<Timestamp> {
        let soon = self.clock.now().saturating_add(SOON).ok();
        [
            self.files.next_due(),
            self.schedules.wake(),
            self.absence.next(),
            soon.filter(|_| self.absence.waits()),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
