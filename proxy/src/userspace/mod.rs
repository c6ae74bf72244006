//! The userspace backend: a listener on every Service address, which must be an address of this machine (127.0.0.0/8 in
//! loopback mode). Needs no privileges, except for ports below 1024.

mod balancer;
mod tcp;
mod udp;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wherry_client::events::{EventRecorder, EventType};

use crate::rules::{Frontend, Protocol, Rule, Ruleset};
use balancer::Balancer;

/// After how long a port that could not be opened is tried again.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// A balancer that the rules change while connections use it.
type SharedBalancer = Arc<Mutex<Balancer>>;

struct Listener {
    balancer: SharedBalancer,
    accepting: CancellationToken,
}

/// The listeners in force.
pub struct Userspace {
    listeners: BTreeMap<Frontend, Listener>,
    /// Ports that could not be opened, with the words that were reported: the same are not reported twice.
    refused: BTreeMap<Frontend, String>,
    recorder: EventRecorder,
    connections: TaskTracker,
    shutdown: CancellationToken,
}

impl Userspace {
    /// Nothing is listened on yet.
    pub fn new(recorder: EventRecorder) -> Self {
        Self {
            listeners: BTreeMap::new(),
            refused: BTreeMap::new(),
            recorder,
            connections: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// Make the listeners those of `ruleset`, and return how many of its ports could not be opened.
    pub async fn apply(&mut self, ruleset: Ruleset) -> usize {
        self.listeners.retain(|frontend, listener| {
            let keep = ruleset.contains_key(frontend);
            if !keep {
                tracing::debug!(%frontend, "no longer served");
                listener.accepting.cancel();
            }
            keep
        });
        self.refused.retain(|frontend, _| ruleset.contains_key(frontend));

        for (frontend, rule) in ruleset {
            if let Some(listener) = self.listeners.get(&frontend) {
                let mut balancer = listener.balancer.lock().unwrap_or_else(PoisonError::into_inner);
                balancer.update(rule.affinity, rule.endpoints);
                continue;
            }
            match self.open(frontend, &rule).await {
                Ok(listener) => {
                    tracing::debug!(%frontend, endpoints = rule.endpoints.len(), "served");
                    self.refused.remove(&frontend);
                    self.listeners.insert(frontend, listener);
                }
                Err(error) => self.report(frontend, &rule, &error),
            }
        }
        self.refused.len()
    }

    async fn open(&self, frontend: Frontend, rule: &Rule) -> io::Result<Listener> {
        let balancer = Arc::new(Mutex::new(Balancer::new(rule.affinity, rule.endpoints.clone())));
        let accepting = self.shutdown.child_token();
        match frontend.protocol {
            Protocol::Tcp => {
                let socket = tcp::listen(frontend.address)?;
                let accept = tcp::accept(
                    socket,
                    Arc::clone(&balancer),
                    accepting.clone(),
                    self.shutdown.clone(),
                    self.connections.clone(),
                );
                self.connections.spawn(accept);
            }
            Protocol::Udp => {
                let socket = tokio::net::UdpSocket::bind(frontend.address).await?;
                self.connections.spawn(udp::relay(socket, Arc::clone(&balancer), accepting.clone()));
            }
        }
        Ok(Listener { balancer, accepting })
    }

    fn report(&mut self, frontend: Frontend, rule: &Rule, error: &io::Error) {
        let mut words = format!("cannot listen on {frontend}: {error}");
        if error.kind() == io::ErrorKind::PermissionDenied && frontend.address.port() < 1024 {
            words.push_str("; ports below 1024 need root, or choose a port from 1024 on");
        }
        if self.refused.get(&frontend) == Some(&words) {
            return;
        }
        tracing::warn!(
            service = rule.service.name.as_deref(),
            namespace = rule.service.namespace.as_deref(),
            "{words}"
        );
        self.recorder.event(&rule.service, EventType::Warning, "FailedToListen", &words);
        self.refused.insert(frontend, words);
    }

    /// Close every listener and every connection.
    pub async fn close(self) {
        self.shutdown.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

/// The endpoint for a client, if there is any; `failed` are those that did not answer just now.
fn choose(balancer: &SharedBalancer, client: SocketAddr, failed: &[SocketAddr]) -> Option<SocketAddr> {
    balancer.lock().unwrap_or_else(PoisonError::into_inner).choose(
        client.ip(),
        failed,
        std::time::Instant::now(),
    )
}
