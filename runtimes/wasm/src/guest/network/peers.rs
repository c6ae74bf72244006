//! Who has sent a pod datagrams: he may be answered, whoever he is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after a datagram its sender may be answered. Source: the time that Linux' conntrack keeps a stream of
/// datagrams, `nf_conntrack_udp_timeout_stream`.
const ANSWERED_FOR: Duration = Duration::from_secs(120);

/// Senders remembered for one pod; the one that was silent longest goes first.
const MAX_PEERS: usize = 4096;

/// The senders of datagrams, with the time of their last.
#[derive(Debug, Default)]
pub(super) struct Peers {
    heard: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Peers {
    /// A datagram has come from there.
    pub(super) fn note(&self, peer: SocketAddr, now: Instant) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= MAX_PEERS && !heard.contains_key(&peer) {
            heard.retain(|_, at| now.saturating_duration_since(*at) < ANSWERED_FOR);
            if heard.len() >= MAX_PEERS
                && let Some(oldest) = heard.iter().min_by_key(|(_, at)| **at).map(|(peer, _)| *peer)
            {
                heard.remove(&oldest);
            }
        }
        heard.insert(peer, now);
    }

    /// Whether one has come from there lately.
    pub(super) fn is_known(&self, peer: SocketAddr, now: Instant) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&peer).is_some_and(|at| now.saturating_duration_since(*at) < ANSWERED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_may_be_answered_for_a_while() {
        let (peers, start) = (Peers::default(), Instant::now());
        let peer = |port| SocketAddr::from(([10, 0, 0, 1], port));
        peers.note(peer(1), start);
        assert!(peers.is_known(peer(1), start + Duration::from_secs(1)));
        assert!(!peers.is_known(peer(2), start));
        assert!(!peers.is_known(peer(1), start + ANSWERED_FOR));
        for port in 2..5000 {
            peers.note(peer(port), start + Duration::from_secs(1));
        }
        assert!(!peers.is_known(peer(1), start + Duration::from_secs(1)));
        assert!(peers.is_known(peer(4999), start + Duration::from_secs(1)));
    }
}
