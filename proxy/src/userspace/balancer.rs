//! Which endpoint a new connection goes to. Pure: the time is passed in.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnet::IpNet;

/// How many clients are remembered for session affinity at the most; past that the stale ones are forgotten first.
const MAX_CLIENTS: usize = 65_536;

/// Round robin over the endpoints, with session affinity by client address where the Service asks for it.
#[derive(Debug)]
pub(super) struct Balancer {
    affinity: Option<Duration>,
    endpoints: Vec<SocketAddr>,
    /// Which clients may connect; `None` means all.
    sources: Option<Vec<IpNet>>,
    next: usize,
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
}

impl Balancer {
    pub(super) fn new(affinity: Option<Duration>, endpoints: Vec<SocketAddr>) -> Self {
        Self { affinity, endpoints, sources: None, next: 0, clients: HashMap::new() }
    }

    /// Only clients of these ranges get an endpoint.
    pub(super) fn with_sources(mut self, sources: Option<Vec<IpNet>>) -> Self {
        self.sources = sources;
        self
    }

    /// New endpoints; clients of those that are gone choose anew. Returns whether anything is new.
    pub(super) fn update(
        &mut self,
        affinity: Option<Duration>,
        endpoints: Vec<SocketAddr>,
        sources: Option<Vec<IpNet>>,
    ) -> bool {
        if self.affinity == affinity && self.endpoints == endpoints && self.sources == sources {
            return false;
        }
        self.clients.retain(|_, (endpoint, _)| endpoints.contains(endpoint));
        if affinity.is_none() {
            self.clients.clear();
        }
        self.affinity = affinity;
        self.endpoints = endpoints;
        self.sources = sources;
        true
    }

    /// Whether connections may still go to the endpoint.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        self.endpoints.contains(&endpoint)
    }

    /// The endpoint for a client; none of `failed` as long as there is another.
    pub(super) fn choose(
        &mut self,
        client: IpAddr,
        failed: &[SocketAddr],
        now: Instant,
    ) -> Option<SocketAddr> {
        if self.sources.as_ref().is_some_and(|ranges| !ranges.iter().any(|range| range.contains(&client))) {
            return None;
        }
        if let Some(timeout) = self.affinity
            && let Some((endpoint, seen)) = self.clients.get_mut(&client)
            && now.saturating_duration_since(*seen) < timeout
            && !failed.contains(endpoint)
        {
            *seen = now;
            return Some(*endpoint);
        }
        let count = self.endpoints.len();
        let start = self.next;
        let (offset, endpoint) = (0..count)
            .map(|offset| (offset, self.endpoints[(start + offset) % count]))
            .find(|(_, endpoint)| !failed.contains(endpoint))?;
        self.next = (start + offset + 1) % count;
        if let Some(timeout) = self.affinity {
            if self.clients.len() >= MAX_CLIENTS {
                self.clients.retain(|_, (_, seen)| now.saturating_duration_since(*seen) < timeout);
            }
            if self.clients.len() < MAX_CLIENTS {
                self.clients.insert(client, (endpoint, now));
            }
        }
        Some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 64, 0, last], 80))
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn every_endpoint_has_its_turn() {
        let now = Instant::now();
        let mut balancer = Balancer::new(None, vec![endpoint(1), endpoint(2), endpoint(3)]);
        let got: Vec<_> = (0..4).filter_map(|_| balancer.choose(client(1), &[], now)).collect();
        assert_eq!(got, [endpoint(1), endpoint(2), endpoint(3), endpoint(1)]);
    }

    #[test]
    fn an_endpoint_that_failed_is_passed_over_and_the_turn_goes_on() {
        let now = Instant::now();
        let mut balancer = Balancer::new(None, vec![endpoint(1), endpoint(2), endpoint(3)]);
        assert_eq!(balancer.choose(client(1), &[endpoint(1)], now), Some(endpoint(2)));
        assert_eq!(balancer.choose(client(1), &[], now), Some(endpoint(3)));
        assert_eq!(balancer.choose(client(1), &[endpoint(1), endpoint(2), endpoint(3)], now), None);
    }

    #[test]
    fn a_client_stays_with_its_endpoint_until_the_time_is_over_or_the_endpoint_is_gone() {
        let hour = Duration::from_secs(3600);
        let now = Instant::now();
        let mut balancer = Balancer::new(Some(hour), vec![endpoint(1), endpoint(2)]);
        assert_eq!(balancer.choose(client(1), &[], now), Some(endpoint(1)));
        assert_eq!(balancer.choose(client(1), &[], now), Some(endpoint(1)));
        assert_eq!(balancer.choose(client(2), &[], now), Some(endpoint(2)));
        assert_eq!(balancer.choose(client(2), &[], now + hour), Some(endpoint(1)), "the time is over");
        balancer.update(Some(hour), vec![endpoint(2)], None);
        assert_eq!(balancer.choose(client(1), &[], now), Some(endpoint(2)), "the endpoint is gone");
        balancer.update(None, vec![endpoint(1), endpoint(2)], None);
        assert!(balancer.clients.is_empty());
    }

    #[test]
    fn a_client_outside_of_the_source_ranges_gets_no_endpoint() {
        let now = Instant::now();
        let ranges = vec!["127.0.0.0/29".parse().unwrap()];
        let mut balancer = Balancer::new(None, vec![endpoint(1)]).with_sources(Some(ranges));
        assert_eq!(balancer.choose(client(1), &[], now), Some(endpoint(1)));
        assert_eq!(balancer.choose(client(9), &[], now), None);
        assert!(balancer.update(None, vec![endpoint(1)], None));
        assert!(!balancer.update(None, vec![endpoint(1)], None), "nothing is new");
        assert_eq!(balancer.choose(client(9), &[], now), Some(endpoint(1)));
    }

    #[test]
    fn without_endpoints_nobody_is_chosen() {
        assert_eq!(Balancer::new(None, Vec::new()).choose(client(1), &[], Instant::now()), None);
    }
}
