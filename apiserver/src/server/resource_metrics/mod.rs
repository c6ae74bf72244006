//! `metrics.k8s.io/v1beta1`: what nodes and pods use now. Nothing is stored: the nodes' kubelets are asked.
//!
//! Called by the pipeline, after authorisation; calls the kubelets' `/stats/summary`.
//!
//! Flow: a request names nodes, or pods that are on nodes; each of these nodes is asked twice with a second between (or
//! once, when it was asked shortly before), and the difference is the use. Answers are kept for some seconds, and requests
//! that come together share one question.

mod objects;
mod scrape;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};
use wherry_machinery::Status;
use wherry_machinery::selector::{FieldSelector, Selector};

use super::node_connection::NodeConnection;
use super::respond;
use crate::cacher::entry::Entry;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::http::{method_not_allowed, no_such_resource};
use crate::registry::{Refusal, Registry};

use scrape::Scrapes;
use usage::NodeUsage;

/// The group.
pub(super) const GROUP: &str = "metrics.k8s.io";
/// The only version.
pub(super) const VERSION: &str = "v1beta1";
/// Nodes that are asked at once.
const CONCURRENCY: usize = 16;

/// Whether the request is about the use of resources.
pub(super) fn is_asked(info: &RequestInfo) -> bool {
    info.api_group == GROUP
}

/// Answers for `metrics.k8s.io`.
pub(super) struct ResourceMetrics {
    nodes: NodeConnection,
    scrapes: Scrapes,
}

/// What a list is narrowed by.
struct Narrowed {
    labels: Selector,
    fields: FieldSelector,
}

impl Narrowed {
    fn parse(query: &Query) -> Result<Self, Refusal> {
        let bad = |error: &dyn std::fmt::Display| Refusal::from(Status::bad_request(error.to_string()));
        Ok(Self {
            labels: Selector::parse(query.given("labelSelector").unwrap_or_default())
                .map_err(|error| bad(&error))?,
            fields: FieldSelector::parse(query.given("fieldSelector").unwrap_or_default())
                .map_err(|error| bad(&error))?,
        })
    }

    fn matches(&self, entry: &Entry) -> bool {
        self.labels.matches(entry.labels())
            && self.fields.matches(|field| match field {
                "metadata.name" => Some(entry.name()),
                "metadata.namespace" => Some(entry.namespace()),
                _ => None,
            })
    }
}

impl ResourceMetrics {
    pub(super) fn new(nodes: NodeConnection) -> Self {
        Self { nodes, scrapes: Scrapes::default() }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// 404 for what is not served or not there (a pod that has just started uses nothing yet), 405 for writes.
    pub(super) async fn answer(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        query: &Query,
        method: &Method,
    ) -> Result<Response, Refusal> {
        if info.api_version != VERSION || !info.subresource.is_empty() {
            return Err(no_such_resource());
        }
        if *method != Method::GET || !matches!(info.verb.as_str(), "get" | "list") {
            return Err(method_not_allowed());
        }
        let named = info.name_in_path.then_some(info.name.as_str());
        let value = match (info.resource.as_str(), info.namespace.is_empty()) {
            ("nodes", true) => self.nodes(registry, named, query).await?,
            ("pods", is_everywhere) if !(is_everywhere && named.is_some()) => {
                let namespace = (!is_everywhere).then_some(info.namespace.as_str());
                self.pods(registry, namespace, named, query).await?
            }
            _ => return Err(no_such_resource()),
        };
        Ok(respond::json_bytes(Bytes::from(value.to_string())))
    }

    async fn nodes(&self, registry: &Registry, named: Option<&str>, query: &Query) -> Result<Value, Refusal> {
        let kind = registry.kind("", "v1", "nodes").ok_or_else(no_such_resource)?;
        let narrowed = Narrowed::parse(query)?;
        let entries: Vec<Arc<Entry>> = match named {
            Some(name) => registry.cached(kind, "", name).into_iter().collect(),
            None => {
                let all = kind.cacher.snapshot(None, 0).entries;
                all.into_iter().filter(|entry| narrowed.matches(entry)).collect()
            }
        };
        let names = entries.iter().map(|entry| entry.name().to_owned()).collect();
        let used = self.ask(registry, names).await;
        let mut items = entries.iter().filter_map(|entry| {
            let node = used.get(entry.name())?;
            objects::node_metrics(entry.name(), entry.labels(), node)
        });
        match named {
            Some(name) => items.next().ok_or_else(|| Status::not_found(GROUP, "nodemetrics", name).into()),
            None => Ok(list("NodeMetricsList", items.collect())),
        }
    }

    async fn pods(
        &self,
        registry: &Registry,
        namespace: Option<&str>,
        named: Option<&str>,
        query: &Query,
    ) -> Result<Value, Refusal> {
        let kind = registry.kind("", "v1", "pods").ok_or_else(no_such_resource)?;
        let narrowed = Narrowed::parse(query)?;
        let entries: Vec<Arc<Entry>> = match named {
            Some(name) => registry.cached(kind, namespace.unwrap_or_default(), name).into_iter().collect(),
            None => {
                let all = kind.cacher.snapshot(namespace, 0).entries;
                all.into_iter().filter(|entry| narrowed.matches(entry)).collect()
            }
        };
        let placed: Vec<(&Arc<Entry>, String)> = entries
            .iter()
            .filter_map(|entry| {
                let node = entry.fields(kind.cacher.strategy()).get("spec.nodeName")?;
                (!node.is_empty()).then(|| (entry, node.clone()))
            })
            .collect();
        let used = self.ask(registry, placed.iter().map(|(_, node)| node.clone()).collect()).await;
        let mut items = placed.iter().filter_map(|(entry, node)| {
            let pod = used.get(node)?.pods.get(&(entry.namespace().to_owned(), entry.name().to_owned()))?;
            Some(objects::pod_metrics(entry.namespace(), entry.name(), entry.labels(), pod))
        });
        match named {
            Some(name) => items.next().ok_or_else(|| {
                let name = format!("{}/{name}", namespace.unwrap_or_default());
                Status::not_found(GROUP, "podmetrics", &name).into()
            }),
            None => Ok(list("PodMetricsList", items.collect())),
        }
    }

    /// What these nodes use. Those that do not answer are missing: the others are worth an answer.
    async fn ask(&self, registry: &Registry, names: BTreeSet<String>) -> BTreeMap<String, Arc<NodeUsage>> {
        let asked = names.into_iter().map(|name| async move {
            match self.scrapes.usage(&self.nodes, registry, &name).await {
                Ok(usage) => Some((name, usage)),
                Err(error) => {
                    tracing::debug!(%error, node = name, "node does not tell what it uses");
                    None
                }
            }
        });
        futures::stream::iter(asked)
            .buffer_unordered(CONCURRENCY)
            .filter_map(std::future::ready)
            .collect()
            .await
    }
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({
        "kind": kind,
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {},
        "items": items,
    })
}
