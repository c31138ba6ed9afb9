//! Everything that notices, as one list: at an instant each looks once, and says when it wants to look next.

use crate::app;
use crate::clock::Clock;
use crate::ground::Ground;
use crate::rule::Rule;
use crate::source::Watch;
use crate::source::file::stepped::SteppedFiles;
use crate::source::schedule::ScheduleSource;
use crate::store::{Store, StoreError};
use jiff::Timestamp;

/// All sources of a setup.
pub struct Sources {
    /// Watched folders.
    pub files: SteppedFiles,
    schedules: ScheduleSource,
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
        let schedules = app::schedules_of(rules);
        Ok(Sources {
            files: SteppedFiles::begin(watches, store, clock, ground).await?,
            schedules: ScheduleSource::new(schedules, store.clone(), clock.clone()).0,
        })
    }

    /// Everything that can be noticed at this instant.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        self.files.look().await?;
        self.schedules.tick().await?;
        Ok(())
    }

    /// When one of them wants to look next.
    pub fn next_due(&self) -> Option<Timestamp> {
        [self.files.next_due(), self.schedules.wake()]
            .into_iter()
            .flatten()
            .min()
    }
}
