//! `nodes/proxy`: any path of a node's kubelet.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/node/rest/proxy.go`.

use axum::extract::Request;
use axum::response::Response;

use super::node_connection::NodeConnection;
use super::pod_stream::{ensure_may_create, is_upgrade};
use crate::auth::Authorizer;
use crate::http::no_such_resource;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::identity::Identity;
use crate::registry::{Refusal, Registry};

/// Passes a request on to a node's kubelet as it is, but for who asks: the kubelet sees the API server.
pub(super) async fn answer(
    nodes: &NodeConnection,
    authorizer: &Authorizer,
    registry: &Registry,
    identity: &Identity,
    info: &RequestInfo,
    request: Request,
) -> Result<Response, Refusal> {
    let path = path(request.uri().path()).ok_or_else(no_such_resource)?;
    let query = request.uri().query();
    let path = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    if is_upgrade(&request) {
        // The kubelet runs commands for the API server: a right to read must not be enough.
        let query = Query::parse(query.unwrap_or_default());
        ensure_may_create(authorizer, identity, info, &query)?;
        return nodes.upgrade(registry, &info.name, &path, request).await;
    }
    nodes.pass(registry, &info.name, &path, request).await
}

/// The kubelet's path, as it was sent.
fn path(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/api/v1/nodes/")?.split_once('/')?.1.strip_prefix("proxy")?;
    // A path with dots would be another one to whoever tidies it up.
    let is_tidy = !rest.split('/').any(|part| matches!(part, "." | ".."));
    match rest {
        "" => Some("/".to_owned()),
        rest if rest.starts_with('/') && is_tidy => Some(rest.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn the_rest_of_the_path_is_the_kubelets() {
        for (from, expected) in [
            ("/api/v1/nodes/n1/proxy/stats/summary", Some("/stats/summary")),
            ("/api/v1/nodes/n1/proxy/", Some("/")),
            ("/api/v1/nodes/n1/proxy", Some("/")),
            ("/api/v1/nodes/n1/proxy/a%2Fb", Some("/a%2Fb")),
            ("/api/v1/nodes/n1/proxyx", None),
            ("/api/v1/nodes/n1/proxy/../pods", None),
            ("/api/v1/nodes/n1", None),
        ] {
            assert_eq!(path(from).as_deref(), expected, "{from}");
        }
    }
}
