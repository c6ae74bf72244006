//! Cores in use: the difference of two looks at a counter.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Two looks nearer to each other say little: the rate before stands. In nanoseconds.
const MIN_WINDOW: i64 = 1_000_000_000;
/// A look that is older says nothing of now. In nanoseconds.
const MAX_WINDOW: i64 = 600_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Look {
    at: i64,
    used: u64,
    rate: Option<u64>,
}

/// The last look at each counter.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Look>>);

impl Rates {
    /// Takes a look: `used` nanoseconds of CPU time at the time `at` (nanoseconds since the epoch). Answers billionths of a
    /// core; `None` at the first look.
    pub(crate) fn look(&self, key: &str, at: i64, used: u64) -> Option<u64> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = looks.get(key).copied() else {
            looks.insert(key.to_owned(), Look { at, used, rate: None });
            return None;
        };
        let passed = at.saturating_sub(last.at);
        if passed < MIN_WINDOW {
            return last.rate;
        }
        // A counter that went back belongs to something new.
        let rate = (passed <= MAX_WINDOW && used >= last.used).then(|| {
            let rate = u128::from(used - last.used) * 1_000_000_000 / u128::from(passed.unsigned_abs());
            u64::try_from(rate).unwrap_or(u64::MAX)
        });
        looks.insert(key.to_owned(), Look { at, used, rate });
        rate
    }

    /// Forgets what nobody looked at for long.
    pub(crate) fn forget(&self, now: i64) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, look| now.saturating_sub(look.at) <= MAX_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_looks_that_are_apart() {
        let (rates, second) = (Rates::default(), 1_000_000_000);
        assert_eq!(rates.look("a", 0, 0), None);
        assert_eq!(rates.look("a", second / 2, 100), None);
        assert_eq!(rates.look("a", 2 * second, 500_000_000), Some(250_000_000));
        assert_eq!(rates.look("a", 2 * second + 1, 600_000_000), Some(250_000_000));
        assert_eq!(rates.look("a", 4 * second, 100), None);
        rates.forget(1000 * second);
        assert_eq!(rates.look("a", 1001 * second, 0), None);
    }
}
