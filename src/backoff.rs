//! Waiting longer each time, by a random part. Pure.

use std::time::Duration;

/// How long to wait after the `attempt`th failure (from 1): `first`, doubled each time, at most
/// `longest`, times a factor in 0.8 ..= 1.2 that `random` (0.0 ..= 1.0) chooses; never above
/// `longest` × 1.2 and never below `floor`, which is what a server asked for (Retry-After).
pub fn wait(
    attempt: u32,
    first: Duration,
    longest: Duration,
    floor: Option<Duration>,
    random: f64,
) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    let spread = 0.8 + 0.4 * random.clamp(0.0, 1.0);
    let waited = doubled.min(longest).mul_f64(spread);
    waited.max(floor.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wait_stays_in_its_bounds(
            attempt in 0..1_000_u32, first in 1..3_600_u64, longest in 1..86_400_u64,
            floor in proptest::option::of(0..7_200_u64), random in 0.0..=1.0_f64,
        ) {
            let floor = floor.map(Duration::from_secs);
            let longest = Duration::from_secs(longest);
            let waited = wait(attempt, Duration::from_secs(first), longest, floor, random);
            prop_assert!(waited <= longest.mul_f64(1.2).max(floor.unwrap_or_default()));
            prop_assert!(waited >= floor.unwrap_or_default());
        }

        #[test]
        fn wait_never_shrinks_with_more_attempts(attempt in 1..60_u32, random in 0.0..=1.0_f64) {
            let (first, longest) = (Duration::from_secs(60), Duration::from_secs(3600));
            prop_assert!(wait(attempt + 1, first, longest, None, random) >= wait(attempt, first, longest, None, random));
        }
    }

    #[test]
    fn what_the_server_asked_for_is_a_floor() {
        let hour = Duration::from_secs(3600);
        assert_eq!(wait(1, Duration::from_secs(60), hour, Some(hour), 0.0), hour);
    }
}
