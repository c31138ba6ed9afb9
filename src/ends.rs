//! When it is told that something will end, or does not work: 30, 14, 7 and 1 days ahead, then at the end, and after
//! that at growing intervals, a day, two, four, eight. Each once, whatever restarts in between. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Days ahead.
const AHEAD: [i64; 4] = [30, 14, 7, 1];
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Which word is due: days after the end, negative ahead of it. Later words are greater.
pub type Stage = i64;

/// What was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Of which end. Once that has moved, nothing was told.
    pub end: Timestamp,
    /// How far it was.
    pub stage: Stage,
}

/// How far it is. `None`: too early for a word. `life`: how long the whole lasts, where that is known; what lives a
/// week is not warned of a month ahead.
pub fn stage(end: Timestamp, life: Option<SignedDuration>, now: Timestamp) -> Option<Stage> {
    let left = end.duration_since(now);
    if left.is_positive() {
        let ahead = AHEAD.iter().rev().find(|days| left <= DAY * (**days as i32));
        let days = ahead.copied()?;
        return life
            .is_none_or(|life| DAY * (days as i32) < life)
            .then_some(-days);
    }
    let days = left.abs().as_hours() / 24;
    Some(match days {
        0 => 0,
        days => 1 << days.ilog2(),
    })
}

/// What is to be told now: a stage that was not told of this end yet.
pub fn due(
    end: Timestamp,
    life: Option<SignedDuration>,
    now: Timestamp,
    told: Option<&Told>,
) -> Option<Stage> {
    let stage = stage(end, life, now)?;
    let last = told.filter(|told| told.end == end).map(|told| told.stage);
    last.is_none_or(|last| stage > last).then_some(stage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end() -> Timestamp {
        "2027-05-01T00:00:00Z".parse().unwrap()
    }

    fn at(hours: i64) -> Timestamp {
        end() + SignedDuration::from_hours(hours)
    }

    /// Every word of a run that looks every `step` hours and forgets nothing.
    fn words(life: Option<SignedDuration>, from: i64, to: i64, step: usize) -> Vec<Stage> {
        let mut told = None;
        let mut words = Vec::new();
        for hour in (from..to).step_by(step) {
            if let Some(stage) = due(end(), life, at(hour), told.as_ref()) {
                words.push(stage);
                told = Some(Told { end: end(), stage });
            }
        }
        words
    }

    #[test]
    fn each_threshold_is_told_once_and_then_at_growing_intervals() {
        let (month, later) = (-24 * 60, 24 * 40);
        assert_eq!(
            words(None, month, later, 1),
            [-30, -14, -7, -1, 0, 1, 2, 4, 8, 16, 32]
        );
        assert_eq!(
            words(None, month, later, 24),
            [-30, -14, -7, -1, 0, 1, 2, 4, 8, 16, 32]
        );
        assert_eq!(
            words(None, -24 * 10, 0, 1),
            [-14, -7, -1],
            "a late start begins where it is"
        );
    }

    #[test]
    fn what_lives_a_week_is_told_of_a_day_ahead() {
        let week = Some(SignedDuration::from_hours(7 * 24));
        assert_eq!(words(week, -24 * 7, 30, 1), [-1, 0, 1]);
    }

    #[test]
    fn an_end_that_has_moved_is_a_new_one() {
        let told = Told {
            end: at(-5),
            stage: -1,
        };
        assert_eq!(due(end(), None, at(-24 * 13), Some(&told)), Some(-14));
        assert_eq!(due(end(), None, at(-24 * 31), Some(&told)), None);
    }

    proptest! {
        #[test]
        fn words_only_ever_go_forward(hours in proptest::collection::vec(-2000_i64..2000, 1..80)) {
            let mut hours = hours;
            hours.sort_unstable();
            let mut told: Option<Told> = None;
            for hour in hours {
                if let Some(stage) = due(end(), None, at(hour), told.as_ref()) {
                    prop_assert!(told.is_none_or(|told| stage > told.stage));
                    told = Some(Told { end: end(), stage });
                }
                prop_assert_eq!(due(end(), None, at(hour), told.as_ref()), None);
            }
        }
    }
}
