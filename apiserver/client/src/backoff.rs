//! Delays between attempts: exponential, capped, jittered.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// An exponential backoff: each delay is twice the one before, up to a cap, plus up to half of itself as jitter.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts at `base`, never exceeds one and a half times `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempts: 0 }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let delay = exponential(self.base, self.cap, self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        delay + jitter(delay / 2)
    }

    /// Begins again from the base, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// `base` doubled `attempts` times, at most `cap`.
pub fn exponential(base: Duration, cap: Duration, attempts: u32) -> Duration {
    base.saturating_mul(1_u32.checked_shl(attempts.min(30)).unwrap_or(u32::MAX)).min(cap)
}

/// A random duration from zero to `most`.
pub fn jitter(most: Duration) -> Duration {
    // The standard library's per-instance hash keys are the only randomness needed here.
    let random = RandomState::new().build_hasher().finish();
    #[expect(clippy::cast_precision_loss, reason = "a fraction needs no more than 53 bits")]
    let fraction = (random >> 11) as f64 / (1_u64 << 53) as f64;
    most.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        let ms = Duration::from_millis;
        for (attempts, expected) in [(0, 5), (1, 10), (2, 20), (7, 640), (8, 1000), (400, 1000)] {
            assert_eq!(exponential(ms(5), ms(1000), attempts), ms(expected), "attempt {attempts}");
        }
    }

    #[test]
    fn jitter_adds_at_most_half_and_reset_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let first = backoff.next_delay();
        assert!((100..=150).contains(&first.as_millis()), "{first:?}");
        let second = backoff.next_delay();
        assert!((200..=300).contains(&second.as_millis()), "{second:?}");
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(150));
    }
}
