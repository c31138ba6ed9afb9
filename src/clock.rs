//! What time it is: the machine's, or a test's.
//!
//! Decisions take a `Timestamp`; only the rims ask a [`Clock`]. Waiting goes through
//! [`Clock::sleep_until`], which looks at the wall clock again at least every 30 s, so that a clock
//! that steps, or a machine that slept, is noticed.

use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest time between two looks at the wall clock.
const LOOK: Duration = Duration::from_secs(30);

/// A source of wall-clock time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    /// Wall time that moves with tokio's (pausable) time.
    Runtime {
        start: Timestamp,
        since: Instant,
    },
    /// It stands still until its [`Hand`] moves it.
    ByHand(Hand),
}

/// What moves a clock that is moved by hand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hand(Arc<Moved>);

#[derive(Debug)]
struct Moved {
    now: watch::Sender<Timestamp>,
    /// Who sleeps, and until when.
    sleepers: Mutex<BTreeMap<u64, Timestamp>>,
    /// Counts who lay down or rose.
    stirred: watch::Sender<u64>,
}

/// Somebody who sleeps; dropped, he does not any more.
struct Sleeping<'a>(&'a Moved, u64);

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        self.0.sleepers().remove(&self.1);
        self.0.stirred.send_modify(|count| *count += 1);
    }
}

impl Moved {
    fn sleepers(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Timestamp>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lie_down(&self, until: Timestamp) -> Sleeping<'_> {
        let number = {
            let mut sleepers = self.sleepers();
            let number = sleepers.last_key_value().map_or(0, |(last, _)| last + 1);
            sleepers.insert(number, until);
            number
        };
        self.stirred.send_modify(|count| *count += 1);
        Sleeping(self, number)
    }

    async fn sleep_until(&self, time: Timestamp) {
        let mut now = self.now.subscribe();
        let _sleeping = self.lie_down(time);
        // It lives as long as the clock that is asked.
        let _ = now.wait_for(|now| *now >= time).await;
    }
}

impl Hand {
    /// Moves the clock to `time`, forward or back.
    pub fn set(&self, time: Timestamp) {
        self.0.now.send_replace(time);
    }

    /// How many sleep until later than now.
    pub fn asleep(&self) -> usize {
        let now = *self.0.now.borrow();
        self.0.sleepers().values().filter(|until| **until > now).count()
    }

    /// When the first of them rises.
    pub fn next(&self) -> Option<Timestamp> {
        let now = *self.0.now.borrow();
        self.0
            .sleepers()
            .values()
            .filter(|until| **until > now)
            .min()
            .copied()
    }

    /// Tells whenever somebody lies down or rises.
    pub fn stirred(&self) -> watch::Receiver<u64> {
        self.0.stirred.subscribe()
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Kind::System)
    }

    /// Starts at `start` and moves with the runtime's time: under `tokio::time::pause` it stands
    /// still until advanced. For tests. Must be called inside a runtime.
    pub fn runtime(start: Timestamp) -> Clock {
        Clock(Kind::Runtime {
            start,
            since: Instant::now(),
        })
    }

    /// A clock that stands still at `start` until its hand moves it: a day in a moment, for tests of rules.
    pub fn by_hand(start: Timestamp) -> (Clock, Hand) {
        let hand = Hand(Arc::new(Moved {
            now: watch::channel(start).0,
            sleepers: Mutex::default(),
            stirred: watch::channel(0).0,
        }));
        (Clock(Kind::ByHand(hand.clone())), hand)
    }

    /// Whether a hand moves it.
    pub fn is_by_hand(&self) -> bool {
        matches!(self.0, Kind::ByHand(_))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => Timestamp::now(),
            Kind::ByHand(hand) => *hand.0.now.borrow(),
            Kind::Runtime { start, since } => {
                let passed =
                    jiff::SignedDuration::try_from(since.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
                start.saturating_add(passed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Returns when the wall clock shows `time` or later, however the clock was moved meanwhile.
    pub async fn sleep_until(&self, time: Timestamp) {
        if let Kind::ByHand(hand) = &self.0 {
            return hand.0.sleep_until(time).await;
        }
        loop {
            let left = self.until(time);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    /// Returns when this much time has passed; the wall clock may be moved meanwhile.
    pub async fn sleep(&self, time: Duration) {
        match &self.0 {
            Kind::ByHand(_) => {
                let until = self.now().saturating_add(time).unwrap_or(Timestamp::MAX);
                self.sleep_until(until).await;
            }
            _ => tokio::time::sleep(time).await,
        }
    }

    /// Whether it moves with the runtime's time. Who waits for another thread must then wait in a way
    /// the runtime knows of, or a paused clock runs ahead of the answer.
    pub fn is_virtual(&self) -> bool {
        matches!(self.0, Kind::Runtime { .. })
    }

    /// How long until `time`; zero when it has passed.
    pub fn until(&self, time: Timestamp) -> Duration {
        Duration::try_from(time.duration_since(self.now())).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_sleeps_by_a_clock_moved_by_hand_rises_when_it_is_moved_far_enough() {
        let (clock, hand) = Clock::by_hand(Timestamp::UNIX_EPOCH);
        let hour = Timestamp::UNIX_EPOCH + Duration::from_secs(3600);
        let mut stirred = hand.stirred();
        let sleeper = tokio::spawn(async move { clock.sleep(Duration::from_secs(3600)).await });
        stirred.changed().await.unwrap();
        assert_eq!((hand.asleep(), hand.next()), (1, Some(hour)));
        hand.set(hour - Duration::from_secs(1));
        assert_eq!(hand.asleep(), 1);
        hand.set(hour);
        assert_eq!((hand.asleep(), hand.next()), (0, None));
        sleeper.await.unwrap();
    }
}
