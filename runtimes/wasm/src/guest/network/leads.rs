//! Where names have led: an address is reached by right of a name if the name has led there.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a name's word is good. After that it is looked up again before it is relied on.
const GOOD_FOR: Duration = Duration::from_secs(30);

/// Addresses remembered for one pod; the oldest go first.
const MAX_ADDRESSES: usize = 1024;

/// Names remembered for one address.
const MAX_NAMES: usize = 16;

/// Which names have led to which addresses.
#[derive(Debug, Default)]
pub(super) struct Leads {
    addresses: Mutex<HashMap<IpAddr, Lead>>,
}

#[derive(Debug)]
struct Lead {
    names: BTreeSet<String>,
    at: Instant,
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// The names that have led there.
    pub(super) names: Vec<String>,
    /// Whether that was just now.
    pub(super) is_fresh: bool,
}

impl Leads {
    /// These names lead to these addresses.
    pub(super) fn note(&self, names: &[String], addresses: &[IpAddr], now: Instant) {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            if known.len() >= MAX_ADDRESSES
                && !known.contains_key(address)
                && let Some(oldest) = known.iter().min_by_key(|(_, lead)| lead.at).map(|(ip, _)| *ip)
            {
                known.remove(&oldest);
            }
            let lead = known.entry(*address).or_insert_with(|| Lead { names: BTreeSet::new(), at: now });
            if now.saturating_duration_since(lead.at) >= GOOD_FOR {
                // What led here once may lead elsewhere by now.
                lead.names.clear();
            }
            lead.at = now;
            for name in names {
                if lead.names.len() < MAX_NAMES {
                    lead.names.insert(name.clone());
                }
            }
        }
    }

    /// The names that have led to an address.
    pub(super) fn of(&self, address: IpAddr, now: Instant) -> Option<Known> {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let lead = known.get(&address)?;
        let is_fresh = now.saturating_duration_since(lead.at) < GOOD_FOR;
        Some(Known { names: lead.names.iter().cloned().collect(), is_fresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_names_word_is_good_for_a_while_and_the_oldest_are_forgotten() {
        let (leads, start) = (Leads::default(), Instant::now());
        let ip = |last: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + last));
        let names = |text: &str| vec![text.to_owned()];
        leads.note(&names("a"), &[ip(1)], start);
        leads.note(&names("b"), &[ip(1)], start + Duration::from_secs(1));
        let known = leads.of(ip(1), start + Duration::from_secs(2)).unwrap();
        assert_eq!(known, Known { names: vec!["a".to_owned(), "b".to_owned()], is_fresh: true });
        assert!(!leads.of(ip(1), start + GOOD_FOR * 2).unwrap().is_fresh);
        leads.note(&names("c"), &[ip(1)], start + GOOD_FOR * 2);
        assert_eq!(leads.of(ip(1), start + GOOD_FOR * 2).unwrap().names, ["c"]);
        for number in 2..2000 {
            leads.note(&names("x"), &[ip(number)], start + GOOD_FOR * 3);
        }
        assert_eq!(leads.of(ip(1), start + GOOD_FOR * 3), None);
        assert!(leads.of(ip(1999), start + GOOD_FOR * 3).is_some());
    }
}
