//! Pace: how many messages a mailbox may still send, by minute and by day. Pure.
//!
//! Providers count over a sliding window (Exchange Online: 30 messages a minute, 10,000 recipients a
//! day), so this does too. What it knows of the past comes from the store, so a restart, or a worker
//! started every minute, does not begin with a full purse.

use crate::config::settings::Pace;
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

const MINUTE: SignedDuration = SignedDuration::from_secs(60);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Counts the sends of one mailbox.
#[derive(Clone, Debug)]
pub struct Pacer {
    pace: Pace,
    sent: VecDeque<Timestamp>,
}

impl Pacer {
    /// Starts with what was sent before: times in any order.
    pub fn new(pace: Pace, mut recent: Vec<Timestamp>) -> Pacer {
        recent.sort_unstable();
        Pacer {
            pace,
            sent: recent.into(),
        }
    }

    /// How far back it must know.
    pub fn memory(pace: Pace) -> Option<SignedDuration> {
        match pace {
            Pace { per_day: Some(_), .. } => Some(DAY),
            Pace {
                per_minute: Some(_), ..
            } => Some(MINUTE),
            _ => None,
        }
    }

    /// How many may go now; if none, when the next may.
    pub fn free(&mut self, now: Timestamp) -> Result<usize, Timestamp> {
        let Some(memory) = Pacer::memory(self.pace) else {
            return Ok(usize::MAX);
        };
        while self.sent.front().is_some_and(|&first| first + memory <= now) {
            self.sent.pop_front();
        }
        let minute = self.left(MINUTE, self.pace.per_minute, now)?;
        let day = self.left(DAY, self.pace.per_day, now)?;
        Ok(minute.min(day))
    }

    fn left(&self, window: SignedDuration, limit: Option<u32>, now: Timestamp) -> Result<usize, Timestamp> {
        let Some(limit) = limit.map(|limit| limit as usize) else {
            return Ok(usize::MAX);
        };
        let start = self.sent.partition_point(|&sent| sent + window <= now);
        let used = self.sent.len() - start;
        if used < limit {
            return Ok(limit - used);
        }
        // The one whose leaving the window makes room.
        let leaving = start + used - limit.max(1);
        Err(self.sent.get(leaving).map_or(now + window, |&sent| sent + window))
    }

    /// One more was begun.
    pub fn note(&mut self, now: Timestamp) {
        if Pacer::memory(self.pace).is_some() {
            self.sent.push_back(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn pace(per_minute: Option<u32>, per_day: Option<u32>) -> Pace {
        Pace {
            connections: 1,
            per_minute,
            per_day,
        }
    }

    #[test]
    fn a_mailbox_without_limits_is_always_free() {
        let mut pacer = Pacer::new(pace(None, None), vec![at(0); 10]);
        pacer.note(at(1));
        assert_eq!(pacer.free(at(1)), Ok(usize::MAX));
    }

    #[test]
    fn the_minute_slides() {
        let mut pacer = Pacer::new(pace(Some(3), None), Vec::new());
        for second in [0, 10, 20] {
            assert!(pacer.free(at(second)).is_ok());
            pacer.note(at(second));
        }
        assert_eq!(pacer.free(at(30)), Err(at(60)));
        assert_eq!(pacer.free(at(60)), Ok(1));
        assert_eq!(pacer.free(at(71)), Ok(2));
    }

    #[test]
    fn the_day_counts_what_was_sent_before_a_restart() {
        let mut pacer = Pacer::new(pace(Some(30), Some(2)), vec![at(5), at(0)]);
        assert_eq!(pacer.free(at(100)), Err(at(86_400)));
        assert_eq!(pacer.free(at(86_400)), Ok(1));
    }

    proptest::proptest! {
        #[test]
        fn no_window_ever_holds_more_than_its_limit(gaps in proptest::collection::vec(0_i64..40, 1..200)) {
            let mut pacer = Pacer::new(pace(Some(4), None), Vec::new());
            let (mut now, mut sent) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                if pacer.free(at(now)).is_ok() {
                    pacer.note(at(now));
                    sent.push(now);
                }
            }
            for &first in &sent {
                proptest::prop_assert!(sent.iter().filter(|&&s| s >= first && s < first + 60).count() <= 4);
            }
        }

        #[test]
        fn when_it_says_later_then_it_is_free(limit in 1_u32..5, times in proptest::collection::vec(0_i64..60, 0..12)) {
            let mut pacer = Pacer::new(pace(Some(limit), None), times.into_iter().map(at).collect());
            if let Err(then) = pacer.free(at(60)) {
                proptest::prop_assert!(pacer.clone().free(then).is_ok());
            }
        }
    }
}
