//! The cluster's range and whose each part of it is. Pure: what is told is remembered, nothing else.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use crate::error::Error;

/// The parts of the pods' range. Source: `cidrset` of Kubernetes' node IPAM controller.
#[derive(Debug, Clone)]
pub(super) struct Ranges {
    cluster: Ipv4Net,
    /// Bits of each part.
    mask_size: u8,
    /// The nodes that hold (a piece of) each part, by the part's number. Nodes that were there before us may overlap.
    holders: BTreeMap<u32, BTreeSet<String>>,
    /// The parts of each node.
    held: BTreeMap<String, BTreeSet<u32>>,
    /// Where to look first: a part that was given back is not given out again while there are others.
    next: u32,
}

impl Ranges {
    /// All parts of `cluster` with `mask_size` bits, held by nobody.
    pub(super) fn new(cluster: Ipv4Net, mask_size: u8) -> Result<Self, Error> {
        let cluster = cluster.trunc();
        // 2^24 parts and more are a typing mistake.
        if mask_size < cluster.prefix_len() || mask_size > 30 || mask_size - cluster.prefix_len() > 24 {
            return Err(Error::NodeRanges { cluster, mask_size });
        }
        Ok(Self { cluster, mask_size, holders: BTreeMap::new(), held: BTreeMap::new(), next: 0 })
    }

    /// A part that nobody holds, for `node`; the one it holds already if there is one. `None`: all are held.
    pub(super) fn allocate(&mut self, node: &str) -> Option<Ipv4Net> {
        if let Some(&number) = self.held.get(node).and_then(BTreeSet::first) {
            return Some(self.part(number));
        }
        let count = self.count();
        let number = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|number| !self.holders.contains_key(number))?;
        self.next = (number + 1) % count;
        self.hold(number, node);
        Some(self.part(number))
    }

    /// `node` has `range`, wherever it got it from. Whether any of it is within the cluster's.
    pub(super) fn occupy(&mut self, range: Ipv4Net, node: &str) -> bool {
        let range = range.trunc();
        let (first, last) = match (self.cluster.contains(&range), range.contains(&self.cluster)) {
            (true, _) => {
                (self.number_of(range.network().to_bits()), self.number_of(range.broadcast().to_bits()))
            }
            (false, true) => (0, self.count() - 1),
            (false, false) => return false,
        };
        for number in first..=last {
            self.hold(number, node);
        }
        true
    }

    /// `node` is gone.
    pub(super) fn release(&mut self, node: &str) {
        for number in self.held.remove(node).unwrap_or_default() {
            if let Some(holders) = self.holders.get_mut(&number) {
                holders.remove(node);
                if holders.is_empty() {
                    self.holders.remove(&number);
                }
            }
        }
    }

    fn hold(&mut self, number: u32, node: &str) {
        self.holders.entry(number).or_default().insert(node.to_owned());
        self.held.entry(node.to_owned()).or_default().insert(number);
    }

    fn count(&self) -> u32 {
        1 << (self.mask_size - self.cluster.prefix_len())
    }

    fn number_of(&self, address: u32) -> u32 {
        (address - self.cluster.network().to_bits()) >> (32 - self.mask_size)
    }

    fn part(&self, number: u32) -> Ipv4Net {
        let first = self.cluster.network().to_bits() + (number << (32 - self.mask_size));
        Ipv4Net::new_assert(first.into(), self.mask_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn ranges(cluster: &str, mask_size: u8) -> Ranges {
        Ranges::new(net(cluster), mask_size).unwrap()
    }

    #[test]
    fn each_node_gets_one_part_and_keeps_it() {
        let mut ranges = ranges("10.42.0.0/16", 24);
        assert_eq!(ranges.allocate("a"), Some(net("10.42.0.0/24")));
        assert_eq!(ranges.allocate("b"), Some(net("10.42.1.0/24")));
        assert_eq!(ranges.allocate("a"), Some(net("10.42.0.0/24")));
    }

    #[test]
    fn what_existing_nodes_have_is_not_given_out() {
        let mut ranges = ranges("10.42.0.0/22", 24);
        assert!(ranges.occupy(net("10.42.0.0/24"), "old"));
        // A node of a former, coarser division.
        assert!(ranges.occupy(net("10.42.2.0/23"), "coarse"));
        assert!(!ranges.occupy(net("10.50.0.0/24"), "elsewhere"));
        assert_eq!(ranges.allocate("new"), Some(net("10.42.1.0/24")));
        assert_eq!(ranges.allocate("late"), None);
        ranges.release("coarse");
        assert_eq!(ranges.allocate("late"), Some(net("10.42.2.0/24")));
        ranges.occupy(net("10.0.0.0/8"), "greedy");
        assert_eq!(ranges.allocate("none"), None);
    }

    #[test]
    fn a_part_that_was_given_back_is_the_last_to_be_given_out_again() {
        let mut ranges = ranges("10.42.0.0/22", 24);
        for node in ["a", "b"] {
            ranges.allocate(node);
        }
        ranges.release("a");
        let given: Vec<_> = ["c", "d", "e"].iter().map(|node| ranges.allocate(node)).collect();
        let wanted = [net("10.42.2.0/24"), net("10.42.3.0/24"), net("10.42.0.0/24")];
        assert_eq!(given, wanted.map(Some));
        assert_eq!(ranges.allocate("f"), None);
    }

    #[test]
    fn a_part_with_two_holders_is_free_only_when_both_are_gone() {
        let mut ranges = ranges("10.42.0.0/24", 24);
        ranges.occupy(net("10.42.0.0/25"), "a");
        ranges.occupy(net("10.42.0.128/25"), "b");
        ranges.release("a");
        assert_eq!(ranges.allocate("c"), None);
        ranges.release("b");
        assert_eq!(ranges.allocate("c"), Some(net("10.42.0.0/24")));
    }

    #[test]
    fn divisions_that_make_no_sense_are_refused() {
        for (cluster, mask_size) in [("10.42.0.0/16", 15), ("10.0.0.0/4", 30), ("10.42.0.0/16", 31)] {
            assert!(Ranges::new(net(cluster), mask_size).is_err(), "{cluster} {mask_size}");
        }
        assert_eq!(ranges("10.42.7.0/16", 16).allocate("a"), Some(net("10.42.0.0/16")));
    }
}
