//! Subresources that are not views of the object: tokens, logs, streams, and the way to a kubelet.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};

use super::node_connection::NodeConnection;
use super::{node_proxy, pod_log, pod_stream};
use crate::auth::Authorizer;
use crate::http::negotiate::{Form, Streams, body_media_type};
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::http::{Connector, method_not_allowed, no_such_resource, read_body, respond};
use crate::identity::Identity;
use crate::registry::strategy::{Resource, Scope};
use crate::registry::{Refusal, Registry};
use crate::tokens::{Objects, Signer, TokenRequest, token_request};

const TOKEN_REQUEST: Resource = Resource {
    group: "authentication.k8s.io",
    version: "v1",
    name: "serviceaccounts/token",
    kind: "TokenRequest",
    scope: Scope::Namespaced,
};

/// The subresources that [`Connect`] answers.
pub(super) fn is_answered(group: &str, resource: &str, subresource: &str) -> bool {
    matches!(
        (group, resource, subresource),
        ("", "serviceaccounts", "token")
            | ("", "pods", "log" | "exec" | "attach" | "portforward")
            | ("", "nodes", "proxy")
    )
}

/// Gives out tokens, and passes what only a node can answer on to it.
pub(super) struct Connect {
    pub(super) signer: Arc<Signer>,
    pub(super) nodes: NodeConnection,
    pub(super) authorizer: Arc<Authorizer>,
}

#[async_trait]
impl Connector for Connect {
    async fn connect(
        &self,
        registry: &Registry,
        identity: &Identity,
        info: &RequestInfo,
        request: Request,
    ) -> Result<Response, Refusal> {
        match (info.api_group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("", "serviceaccounts", "token") => self.token(registry, identity, info, request).await,
            ("", "pods", "log") => {
                if *request.method() != Method::GET {
                    return Err(method_not_allowed());
                }
                let query = Query::parse(request.uri().query().unwrap_or_default());
                pod_log::answer(&self.nodes, registry, &info.namespace, &info.name, &query).await
            }
            ("", "pods", "exec" | "attach" | "portforward") => {
                pod_stream::answer(&self.nodes, &self.authorizer, registry, identity, info, request).await
            }
            ("", "nodes", "proxy") => {
                node_proxy::answer(&self.nodes, &self.authorizer, registry, identity, info, request).await
            }
            _ => Err(no_such_resource()),
        }
    }
}

impl Connect {
    async fn token(
        &self,
        registry: &Registry,
        identity: &Identity,
        info: &RequestInfo,
        request: Request,
    ) -> Result<Response, Refusal> {
        if *request.method() != Method::POST {
            return Err(method_not_allowed());
        }
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let form = Form::negotiate(request.headers(), &query, Streams::No)?;
        let media_type = body_media_type(request.headers())?;
        let (parts, body) = request.into_parts();
        let bytes = read_body(&parts.headers, body).await?;
        let context = registry.context(identity.clone());
        let object = registry.codec().decode(&TOKEN_REQUEST, &context, media_type, &bytes)?;
        registry.refresh().await?;
        let asked = TokenRequest {
            namespace: &info.namespace,
            name: &info.name,
            body: &object,
            now_unix_seconds: context.now_unix_seconds,
        };
        let answer = token_request(&self.signer, &Cached(registry), &asked)?;
        let mut response = respond::value(registry.codec(), StatusCode::CREATED, form, &answer)?;
        respond::warn(&mut response, context.take_warnings());
        Ok(response)
    }
}

fn cached(registry: &Registry, resource: &str, namespace: &str, name: &str) -> Option<serde_json::Value> {
    let kind = registry.kind("", "v1", resource)?;
    registry.cached(kind, namespace, name).map(|entry| entry.value())
}

/// Core objects from the caches.
struct Cached<'a>(&'a Registry);

impl Objects for Cached<'_> {
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<serde_json::Value> {
        cached(self.0, resource, namespace, name)
    }
}

/// Core objects from the caches, for who lives as long as the server.
pub(super) struct CachedObjects(pub(super) Arc<Registry>);

impl Objects for CachedObjects {
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<serde_json::Value> {
        cached(&self.0, resource, namespace, name)
    }
}
