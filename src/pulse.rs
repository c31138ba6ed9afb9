//! Proof of life: each long-lived task ticks its pulse whenever it comes round, and the watchdog asks
//! how long ago that was. A task that hangs stops ticking, however busy the others are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Stands for "waits": see [`Pulse::wait`].
const WAITS: u64 = u64::MAX;

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
        self.set(Duration::ZERO);
    }

    /// Came round, but is no younger than the oldest of its parts.
    pub fn tick_with<'a>(&self, parts: impl Iterator<Item = &'a Pulse>) {
        self.set(parts.map(Pulse::age).max().unwrap_or_default());
    }

    /// From now until the next tick it waits for the world outside, and has told so: it does not age.
    pub fn wait(&self) {
        self.last.store(WAITS, Ordering::Relaxed);
    }

    /// How long ago it last came round.
    pub fn age(&self) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            WAITS => Duration::ZERO,
            last => self.start.elapsed().saturating_sub(Duration::from_millis(last)),
        }
    }

    fn set(&self, age: Duration) {
        let last = self.start.elapsed().saturating_sub(age).as_millis();
        let last = u64::try_from(last).unwrap_or(u64::MAX).min(WAITS - 1);
        self.last.store(last, Ordering::Relaxed);
    }
}

/// Whether everybody makes progress: the pulses of all parts, and how long one may take to come round.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    parts: Vec<Pulse>,
    limit: Duration,
}

impl Progress {
    /// A part that has not come round for longer than `limit` hangs.
    pub fn new(parts: Vec<Pulse>, limit: Duration) -> Progress {
        Progress { parts, limit }
    }

    /// The name of the first part that hangs; none when everybody makes progress.
    pub fn hanging(&self) -> Option<&'static str> {
        let hangs = |part: &&Pulse| part.age() > self.limit;
        self.parts.iter().find(hangs).map(Pulse::name)
    }

    /// The same, asking the part of this name and no other.
    pub fn only(&self, name: &str) -> Progress {
        let named = self.parts.iter().filter(|part| part.name() == name);
        Progress::new(named.cloned().collect(), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_pulse_ages_until_it_ticks() {
        let pulse = Pulse::new("scanner");
        pass(40).await;
        assert_eq!(pulse.age(), Duration::from_secs(40));
        pulse.tick();
        assert_eq!(pulse.age(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_part_that_hangs_is_named_however_busy_the_others_are() {
        let pulses = ["files", "dispatch", "store"].map(Pulse::new);
        let progress = Progress::new(pulses.to_vec(), Duration::from_secs(90));
        for _ in 0..9 {
            pass(10).await;
            pulses[0].tick();
            pulses[2].tick();
        }
        assert_eq!(progress.hanging(), None, "90 s are not yet too long");
        pass(1).await;
        assert_eq!(progress.hanging(), Some("dispatch"));
        assert_eq!(progress.only("store").hanging(), None);
        pulses[1].tick();
        assert_eq!(progress.hanging(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_is_as_old_as_its_oldest_part() {
        let (whole, parts) = (Pulse::new("files"), ["a", "b"].map(Pulse::new));
        pass(30).await;
        parts[0].tick();
        whole.tick_with(parts.iter());
        assert_eq!(whole.age(), Duration::from_secs(30));
        whole.tick_with([].into_iter());
        assert_eq!(whole.age(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_world_and_said_so_does_not_age_until_it_goes_on() {
        let pulse = Pulse::new("share");
        pulse.wait();
        pass(4000).await;
        assert_eq!(pulse.age(), Duration::ZERO);
        pulse.tick();
        pass(7).await;
        assert_eq!(pulse.age(), Duration::from_secs(7));
    }
}
