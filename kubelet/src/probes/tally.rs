//! Counting of successes and failures.

use k8s_openapi::api::core::v1::Probe;

use crate::pod::observed::Verdict;

/// How many in a row make a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Successes.
    pub success: u32,
    /// Failures.
    pub failure: u32,
}

impl Thresholds {
    /// Of a probe, with Kubernetes' defaults.
    pub fn of(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            success: at_least_one(probe.success_threshold, 1),
            failure: at_least_one(probe.failure_threshold, 3),
        }
    }
}

/// Results in a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// Counts a result; a verdict when its threshold is reached.
    pub fn count(&mut self, is_success: bool, thresholds: Thresholds) -> Option<Verdict> {
        if self.last == Some(is_success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(is_success);
            self.run = 1;
        }
        match is_success {
            true if self.run >= thresholds.success => Some(Verdict::Success),
            false if self.run >= thresholds.failure => Some(Verdict::Failure),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_results_in_a_row_make_a_verdict() {
        let thresholds = Thresholds { success: 2, failure: 3 };
        let mut tally = Tally::default();
        let results = [true, true, false, false, true, false, false, false, true, true];
        let verdicts: Vec<Option<Verdict>> = results.iter().map(|r| tally.count(*r, thresholds)).collect();
        use Verdict::{Failure, Success};
        assert_eq!(
            verdicts,
            [None, Some(Success), None, None, None, None, None, Some(Failure), None, Some(Success)]
        );
    }
}
