//! The userspace backend: a listener on every Service address, which must be an address of this machine (127.0.0.0/8 in
//! loopback mode). Needs no privileges, except for ports below 1024.

mod balancer;
mod frontends;
mod tcp;
mod udp;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wherry_client::events::{EventRecorder, EventType};

use crate::{
    backend::{Applied, Backend, BackendError},
    rules::{Protocol, Ruleset},
};
use balancer::Balancer;
use frontends::{Frontend, Rule, frontends};

/// TCP connections at once, more wait in the kernel's queue. Each takes two descriptors of a process that has more to do.
const MAX_CONNECTIONS: usize = 16_384;

/// A balancer that the rules change while connections use it.
type SharedBalancer = Arc<Mutex<Balancer>>;

struct Listener {
    balancer: SharedBalancer,
    accepting: CancellationToken,
    /// Ends when the socket is closed.
    accept: JoinHandle<()>,
}

/// The listeners in force.
pub struct Userspace {
    node_port_addresses: Vec<IpAddr>,
    listeners: BTreeMap<Frontend, Listener>,
    /// Ports that could not be opened, with the words that were reported: the same are not reported twice.
    refused: BTreeMap<Frontend, String>,
    recorder: EventRecorder,
    connections: TaskTracker,
    /// Connections of all Services together.
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Userspace {
    /// Nothing is listened on yet. Node ports will be served on these addresses.
    pub fn new(recorder: EventRecorder, node_port_addresses: Vec<IpAddr>) -> Self {
        Self {
            node_port_addresses,
            listeners: BTreeMap::new(),
            refused: BTreeMap::new(),
            recorder,
            connections: TaskTracker::new(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            shutdown: CancellationToken::new(),
        }
    }

    async fn open(&self, frontend: Frontend, rule: &Rule) -> io::Result<Listener> {
        let balancer = Arc::new(Mutex::new(
            Balancer::new(rule.affinity, rule.endpoints.clone()).with_sources(rule.sources.clone()),
        ));
        let accepting = self.shutdown.child_token();
        let accept = match frontend.protocol {
            Protocol::Tcp => {
                let socket = tcp::listen(frontend.address)?;
                let accept = tcp::accept(
                    socket,
                    Arc::clone(&balancer),
                    accepting.clone(),
                    tcp::Connections {
                        tasks: self.connections.clone(),
                        room: Arc::clone(&self.room),
                        shutdown: self.shutdown.clone(),
                    },
                );
                self.connections.spawn(accept)
            }
            Protocol::Udp => {
                let socket = tokio::net::UdpSocket::bind(frontend.address).await?;
                self.connections.spawn(udp::relay(socket, Arc::clone(&balancer), accepting.clone()))
            }
        };
        Ok(Listener { balancer, accepting, accept })
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
}

#[async_trait]
impl Backend for Userspace {
    async fn apply(&mut self, ruleset: &Arc<Ruleset>) -> Result<Applied, BackendError> {
        let frontends = frontends(ruleset, &self.node_port_addresses);
        let mut applied = Applied::default();
        let gone: Vec<Frontend> =
            self.listeners.keys().filter(|frontend| !frontends.contains_key(frontend)).copied().collect();
        for frontend in gone {
            let Some(listener) = self.listeners.remove(&frontend) else { continue };
            tracing::debug!(%frontend, "no longer served");
            applied.changed += 1;
            listener.accepting.cancel();
            // Waited for, so that the same port can be opened again by the next rules.
            if let Err(error) = listener.accept.await {
                tracing::warn!(%frontend, %error, "listener ended badly");
            }
        }
        self.refused.retain(|frontend, _| frontends.contains_key(frontend));

        for (frontend, rule) in frontends {
            if let Some(listener) = self.listeners.get(&frontend) {
                let mut balancer = listener.balancer.lock().unwrap_or_else(PoisonError::into_inner);
                applied.changed += usize::from(balancer.update(rule.affinity, rule.endpoints, rule.sources));
                continue;
            }
            match self.open(frontend, &rule).await {
                Ok(listener) => {
                    tracing::debug!(%frontend, endpoints = rule.endpoints.len(), "served");
                    applied.changed += 1;
                    self.refused.remove(&frontend);
                    self.listeners.insert(frontend, listener);
                }
                Err(error) => self.report(frontend, &rule, &error),
            }
        }
        applied.unserved = self.refused.len();
        Ok(applied)
    }

    /// Close every listener and every connection.
    async fn close(self: Box<Self>) {
        self.shutdown.cancel();
        self.connections.close();
        self.connections.wait().await;
    }
}

/// Whether the endpoint is still one.
fn has_endpoint(balancer: &SharedBalancer, endpoint: SocketAddr) -> bool {
    balancer.lock().unwrap_or_else(PoisonError::into_inner).has(endpoint)
}

/// The endpoint for a client, if there is any; `failed` are those that did not answer just now.
fn choose(balancer: &SharedBalancer, client: SocketAddr, failed: &[SocketAddr]) -> Option<SocketAddr> {
    balancer.lock().unwrap_or_else(PoisonError::into_inner).choose(
        client.ip(),
        failed,
        std::time::Instant::now(),
    )
}
