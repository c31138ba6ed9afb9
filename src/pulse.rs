//! Proof of life: each long-lived task ticks its pulse whenever it comes round, and the watchdog asks
//! how long ago that was. A task that hangs stops ticking, however busy the others are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The pulse of one task. Cheap to clone; all clones are the same pulse.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: &'static str,
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// A pulse that ticked just now.
    pub fn new(name: &'static str) -> Pulse {
        Pulse {
            name,
            start: Instant::now(),
            last: Arc::default(),
        }
    }

    /// Whose it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Came round.
    pub fn tick(&self) {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// How long ago it last came round.
    pub fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pulse_ages_until_it_ticks() {
        let pulse = Pulse::new("scanner");
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(pulse.age(), Duration::from_secs(40));
        pulse.tick();
        assert_eq!(pulse.age(), Duration::ZERO);
    }
}
