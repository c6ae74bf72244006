//! Exponential back-off of container restarts and image pulls.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// First delay. Source: the node's `--container-runtime` back-off of Kubernetes, 10 s.
pub const INITIAL_DELAY: Duration = Duration::from_secs(10);
/// Longest delay. Source: Kubernetes, 5 min.
pub const LONGEST_DELAY: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    updated_at: Timestamp,
}

/// Delays by key (a container and its definition, or an image).
///
/// The first failure is retried at once, the following after 10 s, 20 s, ... 5 min. An entry is forgotten when
/// the next failure comes more than twice the longest delay after the last one.
#[derive(Debug, Default)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// What remains to be waited at `now` for something that failed at `failed_at`, with the whole delay.
    pub fn remaining(&self, key: &str, failed_at: Timestamp, now: Timestamp) -> Option<Wait> {
        let entry = self.entries.get(key)?;
        if expired(entry, failed_at) {
            return None;
        }
        let passed = elapsed(failed_at, now);
        (passed < entry.delay).then(|| Wait { delay: entry.delay, remaining: entry.delay - passed })
    }

    /// Notes an attempt after a failure at `failed_at`: the next delay is twice as long.
    pub fn advance(&mut self, key: &str, failed_at: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if !expired(entry, failed_at) => (entry.delay * 2).min(LONGEST_DELAY),
            _ => INITIAL_DELAY,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated_at: now });
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// A wait in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The whole delay.
    pub delay: Duration,
    /// What is left of it.
    pub remaining: Duration,
}

fn expired(entry: &Entry, failed_at: Timestamp) -> bool {
    elapsed(entry.updated_at, failed_at) > LONGEST_DELAY * 2
}

/// The time from `from` to `to`; zero when the clock went back.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A duration as Go prints it, whole units only: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", decimal(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", decimal(nanos, 1_000_000));
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, m) => format!("{m}m{rest}s"),
        (h, m) => format!("{h}h{m}m{rest}s"),
    }
}

fn decimal(value: u128, unit: u128) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let text = format!("{fraction:0digits$}");
    format!("{whole}.{}", text.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_following_wait_twice_as_long_each() {
        let mut backoff = Backoff::default();
        let mut now = 1_000;
        let mut delays = Vec::new();
        for _ in 0..8 {
            let failed_at = at(now);
            match backoff.remaining("k", failed_at, failed_at) {
                Some(wait) => {
                    delays.push(wait.delay.as_secs());
                    now += i64::try_from(wait.delay.as_secs()).unwrap();
                    assert_eq!(backoff.remaining("k", failed_at, at(now)), None);
                }
                None => delays.push(0),
            }
            backoff.advance("k", failed_at, at(now));
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_reset_the_delay() {
        let mut backoff = Backoff::default();
        backoff.advance("k", at(0), at(0));
        backoff.advance("k", at(10), at(20));
        assert_eq!(backoff.remaining("k", at(621), at(621)), None);
        backoff.advance("k", at(621), at(621));
        assert_eq!(backoff.remaining("k", at(622), at(622)).unwrap().delay, INITIAL_DELAY);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        for (nanos, text) in [
            (0_u64, "0s"),
            (10_000_000_000, "10s"),
            (80_000_000_000, "1m20s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_234_000_000, "1.234s"),
            (12_500_000, "12.5ms"),
            (1_500, "1.5µs"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
