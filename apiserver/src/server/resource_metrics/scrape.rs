//! Asking nodes, seldom enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;
use wherry_machinery::status::Status;

use super::super::node_connection::NodeConnection;
use super::usage::{NodeUsage, Summary, usage};
use crate::registry::{Refusal, Registry};

const PATH: &str = "/stats/summary?only_cpu_and_memory=true";
/// An answer is good for so long.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Two looks that are nearer say little.
const MIN_WINDOW: Duration = Duration::from_secs(1);
/// A first look that is older says nothing of now. Source: metrics-server averages over its 15 s and 60 s at most.
const MAX_WINDOW: Duration = Duration::from_secs(60);
/// A node that has not answered by then is left out.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest summary: 10,000 pods take some 10 MiB.
const MAX_BYTES: usize = 64 << 20;
/// Nodes that are remembered; more than that are asked anew each time.
const MAX_NODES: usize = 10_000;

/// What is known of one node.
#[derive(Debug, Default)]
struct Known {
    look: Option<(Instant, Summary)>,
    usage: Option<(Instant, Arc<NodeUsage>)>,
}

/// The last looks at the nodes. One at a time asks a node; who comes meanwhile waits and shares the answer.
#[derive(Debug, Default)]
pub(super) struct Scrapes(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Known>>>>);

impl Scrapes {
    fn of(&self, node: &str) -> Arc<tokio::sync::Mutex<Known>> {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= MAX_NODES && !nodes.contains_key(node) {
            nodes.clear();
        }
        Arc::clone(nodes.entry(node.to_owned()).or_default())
    }

    /// What a node and its pods use.
    ///
    /// # Errors
    /// What the node, or the way to it, refuses.
    pub(super) async fn usage(
        &self,
        nodes: &NodeConnection,
        registry: &Registry,
        node: &str,
    ) -> Result<Arc<NodeUsage>, Refusal> {
        let known = self.of(node);
        let mut known = known.lock().await;
        if let Some((at, usage)) = &known.usage
            && at.elapsed() < KEPT_FOR
        {
            return Ok(Arc::clone(usage));
        }
        let first = match known.look.take() {
            Some(look) if look.0.elapsed() < MAX_WINDOW => look,
            _ => (Instant::now(), scrape(nodes, registry, node).await?),
        };
        tokio::time::sleep_until(first.0 + MIN_WINDOW).await;
        let second = scrape(nodes, registry, node).await?;
        let found = Arc::new(usage(&first.1, &second));
        let now = Instant::now();
        known.look = Some((now, second));
        known.usage = Some((now, Arc::clone(&found)));
        Ok(found)
    }
}

async fn scrape(nodes: &NodeConnection, registry: &Registry, node: &str) -> Result<Summary, Refusal> {
    let failed = |text: String| Refusal::from(Status::internal(text));
    let asked = async {
        let body: Body = nodes.get(registry, node, PATH).await?;
        let read = Limited::new(body, MAX_BYTES).collect().await;
        let bytes = read.map_err(|error| failed(format!("summary of node {node:?}: {error}")))?.to_bytes();
        serde_json::from_slice(&bytes)
            .map_err(|error| failed(format!("summary of node {node:?} cannot be read: {error}")))
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(failed(format!("node {node:?} does not answer"))),
    }
}
