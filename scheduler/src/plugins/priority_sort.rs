//! The order of the queue: by priority, then by the time a pod came.

use std::cmp::{Ordering, Reverse};

/// What the order goes by; the greatest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrioritySort {
    /// Pods of higher priority go first.
    pub priority: i32,
    /// Of equal priority, those that have been waiting longer; grows with every pod that comes.
    pub sequence: u64,
}

impl Ord for PrioritySort {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.priority, Reverse(self.sequence)).cmp(&(other.priority, Reverse(other.sequence)))
    }
}

impl PartialOrd for PrioritySort {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
