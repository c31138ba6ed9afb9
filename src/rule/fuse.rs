//! The fuse: how many mails of a rule went out in the last hour, and whether there is room for more. Pure.
//!
//! It counts by minutes, so that it costs the same however many there are; a mail is forgotten between 59
//! and 60 minutes after it went. It stops nothing by itself: what is past it is held or summed up, by whoever
//! asks.

use jiff::Timestamp;

/// An hour, in minutes: what is counted.
const MINUTES: usize = 60;

/// The mails of one rule in the last hour.
#[derive(Clone, Debug)]
pub struct Fuse {
    /// Which minute since 1970, and how many: each minute has the place of its remainder.
    minutes: [(i64, u32); MINUTES],
    /// What comes before this joins a summary.
    summing: Option<Timestamp>,
}

impl Default for Fuse {
    fn default() -> Fuse {
        Fuse {
            minutes: [(i64::MIN, 0); MINUTES],
            summing: None,
        }
    }
}

impl Fuse {
    /// How many there were in the hour that ends with `now`.
    pub fn count(&self, now: Timestamp) -> u32 {
        let minute = minute(now);
        let within = |then: i64| then <= minute && minute.saturating_sub(then) < MINUTES as i64;
        self.minutes
            .iter()
            .filter(|(then, _)| within(*then))
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether `mails` more may go; then they are counted. A rule that asks for more at once than the limit
    /// allows at all may do so once in an hour.
    pub fn pass(&mut self, now: Timestamp, most: u32, mails: u32) -> bool {
        if self.summing.is_some_and(|until| now < until) {
            return false;
        }
        let gone = self.count(now);
        if gone > 0 && gone.saturating_add(mails) > most {
            return false;
        }
        self.add(now, mails);
        true
    }

    /// Counts mails that went at that time.
    pub fn add(&mut self, at: Timestamp, mails: u32) {
        let minute = minute(at);
        let place = &mut self.minutes[usize::try_from(minute.rem_euclid(MINUTES as i64)).unwrap_or_default()];
        match minute.cmp(&place.0) {
            std::cmp::Ordering::Equal => place.1 = place.1.saturating_add(mails),
            std::cmp::Ordering::Greater => *place = (minute, mails),
            // Older than what is counted there: over an hour ago.
            std::cmp::Ordering::Less => {}
        }
    }

    /// Takes back what was counted and did not go after all.
    pub fn take_back(&mut self, at: Timestamp, mails: u32) {
        let minute = minute(at);
        for place in &mut self.minutes {
            if place.0 == minute {
                place.1 = place.1.saturating_sub(mails);
            }
        }
    }

    /// What comes before `until` joins a summary; `None`: no more.
    pub fn sum_until(&mut self, until: Option<Timestamp>) {
        self.summing = until;
    }
}

fn minute(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    fn start() -> Timestamp {
        "2026-03-02T08:00:00Z".parse().unwrap()
    }

    fn after(minutes: i64) -> Timestamp {
        start() + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn it_lets_through_what_is_allowed_and_an_hour_later_again() {
        let mut fuse = Fuse::default();
        for _ in 0..3 {
            assert!(fuse.pass(start(), 3, 1));
        }
        assert!(!fuse.pass(start(), 3, 1));
        assert!(!fuse.pass(after(59), 3, 1));
        assert!(fuse.pass(after(60), 3, 1));
        assert_eq!(fuse.count(after(60)), 1);
    }

    #[test]
    fn what_is_refused_is_not_counted() {
        let mut fuse = Fuse::default();
        assert!(fuse.pass(start(), 1, 1));
        for minute in 0..60 {
            assert!(!fuse.pass(after(minute), 1, 1));
        }
        assert!(fuse.pass(after(60), 1, 1));
    }

    #[test]
    fn a_rule_with_more_mails_than_the_limit_still_speaks_once_an_hour() {
        let mut fuse = Fuse::default();
        assert!(fuse.pass(start(), 1, 3));
        assert!(!fuse.pass(after(1), 1, 3));
        assert!(fuse.pass(after(60), 1, 3));
    }

    #[test]
    fn while_a_summary_is_gathered_nothing_overtakes_it() {
        let mut fuse = Fuse::default();
        fuse.sum_until(Some(after(60)));
        assert!(!fuse.pass(after(59), 10, 1));
        assert!(fuse.pass(after(60), 10, 1));
    }

    #[test]
    fn a_clock_that_went_back_does_not_count_the_future() {
        let mut fuse = Fuse::default();
        assert!(fuse.pass(after(30), 1, 1));
        assert!(fuse.pass(start(), 1, 1));
        assert!(!fuse.pass(after(1), 1, 1));
    }

    #[test]
    fn what_did_not_go_is_taken_back() {
        let mut fuse = Fuse::default();
        assert!(fuse.pass(start(), 2, 2));
        fuse.take_back(start(), 1);
        assert_eq!(fuse.count(start()), 1);
        assert!(fuse.pass(start(), 2, 1));
    }

    proptest! {
        #[test]
        fn never_more_than_allowed_in_any_hour(
            most in 1_u32..20,
            steps in prop::collection::vec(0_i64..1800, 1..200),
        ) {
            let mut fuse = Fuse::default();
            let mut now = start();
            let mut went: Vec<Timestamp> = Vec::new();
            for step in steps {
                now += SignedDuration::from_secs(step);
                if fuse.pass(now, most, 1) {
                    went.push(now);
                }
                // Minutes are whole: what went 59 minutes ago may be forgotten, nothing younger.
                let lately = went.iter().filter(|then| now.duration_since(**then).as_secs() <= 59 * 60);
                prop_assert!(lately.count() <= most as usize);
            }
        }
    }
}
