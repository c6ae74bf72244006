//! Numbers handed out once: the IPs of the Service range, the ports of the nodes.

use std::collections::BTreeSet;
use std::ops::Range;

/// A range of numbers of which some are taken.
///
/// # Guarantees
/// A number is taken at most once between two releases.
#[derive(Debug, Clone)]
pub(super) struct NumberRange {
    /// All numbers that can be taken.
    all: Range<u64>,
    /// Numbers before this one are handed out unasked only when nothing else is left, so that wishes find them free.
    dynamic_from: u64,
    taken: BTreeSet<u64>,
}

/// Why a number cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Somebody has it.
    Taken,
    /// It is not in the range.
    OutOfRange,
}

impl NumberRange {
    /// All numbers free; the first `static_count` are handed out unasked last.
    pub(super) fn new(all: Range<u64>, static_count: u64) -> Self {
        let dynamic_from = all.start + static_count.min(all.end - all.start);
        Self { all, dynamic_from, taken: BTreeSet::new() }
    }

    /// Take a certain number.
    pub(super) fn take(&mut self, number: u64) -> Result<(), Refused> {
        if !self.all.contains(&number) {
            return Err(Refused::OutOfRange);
        }
        if self.taken.insert(number) { Ok(()) } else { Err(Refused::Taken) }
    }

    /// Take any free number, the first at or after `start` (a position within the range, wrapped).
    pub(super) fn take_any(&mut self, start: u64) -> Option<u64> {
        let upper = self.first_free(self.dynamic_from..self.all.end, start);
        let found = upper.or_else(|| self.first_free(self.all.start..self.dynamic_from, start))?;
        self.taken.insert(found);
        Some(found)
    }

    fn first_free(&self, range: Range<u64>, start: u64) -> Option<u64> {
        let size = range.end.checked_sub(range.start).filter(|size| *size > 0)?;
        let first = range.start + start % size;
        let free = |range: Range<u64>| {
            // The taken numbers are sorted: the first gap is found without trying every number.
            let mut candidate = range.start;
            for taken in self.taken.range(range.clone()) {
                if *taken != candidate {
                    break;
                }
                candidate += 1;
            }
            (candidate < range.end).then_some(candidate)
        };
        free(first..range.end).or_else(|| free(range.start..first))
    }

    /// Give a number back.
    pub(super) fn release(&mut self, number: u64) {
        self.taken.remove(&number);
    }

    /// Note a number that is in use, in the range or not.
    pub(super) fn adopt(&mut self, number: u64) {
        if self.all.contains(&number) {
            self.taken.insert(number);
        }
    }

    /// How many numbers are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> u64 {
        self.all.end - self.all.start - u64::try_from(self.taken.len()).unwrap_or(u64::MAX)
    }
}

/// How many numbers at the start of a range are kept for wishes: a sixteenth, between 16 and 256; none of a tiny range.
///
/// Source: Kubernetes' dynamic and static bands of Service IPs (KEP 3070).
pub(super) fn static_band(size: u64) -> u64 {
    if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_once() {
        let mut range = NumberRange::new(1..10, 0);
        assert_eq!(range.take(5), Ok(()));
        assert_eq!(range.take(5), Err(Refused::Taken));
        assert_eq!(range.take(10), Err(Refused::OutOfRange));
        range.release(5);
        assert_eq!(range.take(5), Ok(()));
    }

    #[test]
    fn the_static_band_is_handed_out_last() {
        let mut range = NumberRange::new(0..20, 16);
        let taken: Vec<u64> = std::iter::from_fn(|| range.take_any(2)).collect();
        assert_eq!(taken[..4], [18, 19, 16, 17]);
        assert_eq!(taken.len(), 20);
        assert_eq!(range.free(), 0);
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 20);
    }

    #[test]
    fn bands_grow_with_the_range() {
        for (size, band) in [(14, 0), (254, 16), (4094, 255), (65_534, 256)] {
            assert_eq!(static_band(size), band, "{size}");
        }
    }
}
