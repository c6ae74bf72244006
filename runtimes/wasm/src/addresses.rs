//! Addresses of pods: one each from the node's range, none twice at once, and not again right away.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

/// The node's range and who holds what of it.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    range: Option<Ipv4Net>,
    held: HashSet<Ipv4Addr>,
    /// Given back, oldest first.
    resting: VecDeque<(Instant, Ipv4Addr)>,
    resting_set: HashSet<Ipv4Addr>,
    /// Offset of the address given out last.
    cursor: u32,
}

impl Addresses {
    /// Gives out of this range from now on. What is held of another range stays held.
    pub(crate) fn set_range(&mut self, range: Ipv4Net) {
        if self.range != Some(range) {
            self.range = Some(range);
            self.cursor = 1;
        }
    }

    /// The range, once it is known.
    pub(crate) fn range(&self) -> Option<Ipv4Net> {
        self.range
    }

    /// The next free address: never the network's, the first (by custom the gateway's) or the broadcast address. One
    /// that rests is taken only when no other is left.
    pub(crate) fn allocate(&mut self, now: Instant, rest: Duration) -> Option<Ipv4Addr> {
        while let Some((since, address)) = self.resting.front().copied()
            && now.saturating_duration_since(since) >= rest
        {
            self.resting.pop_front();
            self.resting_set.remove(&address);
        }
        let range = self.range?;
        let size = 1_u32.checked_shl(u32::from(32 - range.prefix_len())).unwrap_or(u32::MAX);
        let usable = size.saturating_sub(3);
        for _ in 0..usable {
            // Offsets 2 to size - 2.
            self.cursor = if self.cursor >= size - 2 { 2 } else { self.cursor.max(1) + 1 };
            let address = Ipv4Addr::from_bits(range.network().to_bits() + self.cursor);
            if !self.held.contains(&address) && !self.resting_set.contains(&address) {
                self.held.insert(address);
                return Some(address);
            }
        }
        let at = self.resting.iter().position(|(_, address)| range.contains(address))?;
        let (_, address) = self.resting.remove(at)?;
        self.resting_set.remove(&address);
        self.held.insert(address);
        Some(address)
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, now: Instant, address: Ipv4Addr) {
        if self.held.remove(&address) {
            self.resting.push_back((now, address));
            self.resting_set.insert(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> Addresses {
        let mut addresses = Addresses::default();
        addresses.set_range(range.parse().unwrap());
        addresses
    }

    #[test]
    fn all_usable_addresses_are_given_out_once() {
        let (mut pool, now) = (pool("127.64.3.0/29"), Instant::now());
        let given: Vec<String> =
            std::iter::from_fn(|| pool.allocate(now, Duration::ZERO)).map(|a| a.to_string()).collect();
        assert_eq!(given, ["127.64.3.2", "127.64.3.3", "127.64.3.4", "127.64.3.5", "127.64.3.6"]);
    }

    #[test]
    fn an_address_rests_before_it_is_given_again_unless_there_is_no_other() {
        let (mut pool, start, rest) = (pool("127.64.3.0/29"), Instant::now(), Duration::from_secs(30));
        let first = pool.allocate(start, rest).unwrap();
        pool.release(start, first);
        let others: Vec<Ipv4Addr> = (0..4).map(|_| pool.allocate(start, rest).unwrap()).collect();
        assert!(!others.contains(&first));
        assert_eq!(pool.allocate(start, rest), Some(first));
        assert_eq!(pool.allocate(start, rest), None);
        pool.release(start, others[0]);
        assert_eq!(pool.allocate(start + rest, rest), Some(others[0]));
    }

    #[test]
    fn without_a_range_there_is_no_address() {
        assert_eq!(Addresses::default().allocate(Instant::now(), Duration::ZERO), None);
        assert_eq!(pool("10.0.0.0/31").allocate(Instant::now(), Duration::ZERO), None);
    }
}
