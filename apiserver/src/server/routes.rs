//! Everything that is not a resource: discovery, health, version, metrics, keys, API descriptions, the index of paths.

use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Inner, respond};
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;

const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The answer for a path that names no resource.
pub(super) async fn answer(server: &Inner, info: &RequestInfo, query: &Query, request: &Parts) -> Response {
    let path = info.path.as_str();
    let is_get = matches!(request.method, Method::GET | Method::HEAD);
    if let Some((endpoint, rest)) = health_path(path) {
        return server.health.answer(endpoint, rest, query);
    }
    if let Some(response) = server.discovery.answer(path, &request.headers) {
        let is_list = matches!(path.trim_end_matches('/'), "/apis");
        return if is_get || is_list { response } else { respond::method_not_allowed() };
    }
    if let Some(response) = server.openapi.answer(path, &request.headers, query).await {
        return if is_get { response } else { respond::method_not_allowed() };
    }
    let response = match path {
        "/" | "" => json_answer(&json!({"paths": paths(server)})),
        "/version" | "/version/" => json_answer(&serde_json::to_value(&server.version).unwrap_or_default()),
        "/openid/v1/jwks" => {
            let mut response = json_answer(&server.signer.key_set());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
            response
        }
        "/.well-known/openid-configuration" => json_answer(&server.signer.discovery(&server.external_url)),
        "/metrics" => {
            let mut response =
                respond::plain(StatusCode::OK, server.metrics.encode(server.in_flight.current()));
            response.headers_mut().insert(CONTENT_TYPE, METRICS_TYPE);
            response
        }
        _ => return not_found(server, path),
    };
    if is_get { response } else { respond::method_not_allowed() }
}

fn json_answer(value: &Value) -> Response {
    respond::json_bytes(Bytes::from(value.to_string()))
}

/// The endpoint and the check of a health path.
fn health_path(path: &str) -> Option<(&'static str, &str)> {
    ["healthz", "livez", "readyz"].into_iter().find_map(|endpoint| {
        let rest = path.strip_prefix('/')?.strip_prefix(endpoint)?;
        if rest.is_empty() {
            Some((endpoint, ""))
        } else {
            rest.strip_prefix('/').map(|rest| (endpoint, rest))
        }
    })
}

/// Below a group that is served, a `Status`; elsewhere the text of Go's mux.
fn not_found(server: &Inner, path: &str) -> Response {
    let mut segments = path.trim_matches('/').split('/');
    let known = match (segments.next(), segments.next()) {
        (Some("api"), Some(_)) => true,
        (Some("apis"), Some(group)) => segments.next().is_some() && server.discovery.has_group(group),
        _ => false,
    };
    if known { respond::status(&respond::resource_not_found()) } else { respond::plain_not_found() }
}

/// Every path that answers, in order.
fn paths(server: &Inner) -> Vec<String> {
    let fixed = ["/.well-known/openid-configuration", "/apis/", "/metrics", "/openid/v1/jwks", "/version"];
    let mut paths: Vec<String> = fixed.iter().map(|&path| path.to_owned()).collect();
    paths.extend(server.discovery.paths().map(str::to_owned));
    paths.extend(["/openapi/v2", "/openapi/v3", "/openapi/v3/"].map(str::to_owned));
    paths.extend(server.health.paths());
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_paths_are_taken_apart() {
        let table = [
            ("/healthz", Some(("healthz", ""))),
            (
                "/readyz/poststarthook/rbac/bootstrap-roles",
                Some(("readyz", "poststarthook/rbac/bootstrap-roles")),
            ),
            ("/livezx", None),
            ("/version", None),
        ];
        for (path, expected) in table {
            assert_eq!(health_path(path), expected, "{path}");
        }
    }
}
