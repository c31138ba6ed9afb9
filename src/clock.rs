//! What time it is: the machine's, or a test's.
//!
//! Decisions take a `Timestamp`; only the rims ask a [`Clock`]. Waiting goes through
//! [`Clock::sleep_until`], which looks at the wall clock again at least every 30 s, so that a clock
//! that steps, or a machine that slept, is noticed.

use jiff::Timestamp;
use std::time::Duration;
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

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => Timestamp::now(),
            Kind::Runtime { start, since } => {
                let passed =
                    jiff::SignedDuration::try_from(since.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
                start.saturating_add(passed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Returns when the wall clock shows `time` or later, however the clock was moved meanwhile.
    pub async fn sleep_until(&self, time: Timestamp) {
        loop {
            let left = self.until(time);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
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
