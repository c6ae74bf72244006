//! What a request is about, read from its method and path alone: authorisation and routing both go by it.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use http::Method;

use super::query::Query;

/// The facts of a request's path, as kube-apiserver's `RequestInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource; if not, only `verb` and `path` count.
    pub is_resource_request: bool,
    /// The path as sent.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the method in lower case.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    /// The group; empty for core.
    pub api_group: String,
    /// The version.
    pub api_version: String,
    /// The namespace; empty for cluster-wide requests.
    pub namespace: String,
    /// The resource's plural name.
    pub resource: String,
    /// The subresource; empty if none.
    pub subresource: String,
    /// The object's name; for a list or watch that selects one name, that name.
    pub name: String,
    /// The path from the resource on.
    pub parts: Vec<String>,
    /// Whether the name stands in the path (and not in a field selector).
    pub name_in_path: bool,
    /// Whether the path begins with the old `watch` segment.
    pub watch_prefix: bool,
}

/// Subresources of a namespace, which would otherwise read as resources in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// The facts of a request.
    pub fn new(method: &Method, path: &str, query: &Query) -> Self {
        let mut info =
            Self { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let decoded: Vec<String> =
            path.trim_matches('/').split('/').map(super::query::percent_decode).collect();
        let mut parts: &[String] = &decoded;
        if parts.len() < 3 || !matches!(parts[0].as_str(), "api" | "apis") {
            return info;
        }
        info.api_prefix.clone_from(&parts[0]);
        parts = &parts[1..];
        if info.api_prefix == "apis" {
            if parts.len() < 3 {
                return info;
            }
            info.api_group.clone_from(&parts[0]);
            parts = &parts[1..];
        }
        info.is_resource_request = true;
        info.api_version.clone_from(&parts[0]);
        parts = &parts[1..];

        let special = matches!(parts[0].as_str(), "watch" | "proxy");
        if special && parts.len() >= 2 {
            info.verb.clone_from(&parts[0]);
            info.watch_prefix = parts[0] == "watch";
            parts = &parts[1..];
        } else {
            info.verb = match method.as_str() {
                "POST" => "create",
                "GET" | "HEAD" => "get",
                "PUT" => "update",
                "PATCH" => "patch",
                "DELETE" => "delete",
                _ => "",
            }
            .to_owned();
        }

        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace.clone_from(&parts[1]);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2].as_str()) {
                parts = &parts[2..];
            }
        }
        info.parts = parts.to_vec();
        if let Some(resource) = parts.first() {
            info.resource.clone_from(resource);
        }
        if let Some(name) = parts.get(1) {
            info.name.clone_from(name);
            info.name_in_path = !name.is_empty();
        }
        if parts.len() >= 3 && info.verb != "proxy" {
            info.subresource.clone_from(&parts[2]);
        }
        info.adjust_collection_verb(query);
        info
    }

    fn adjust_collection_verb(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        if matches!(self.verb.as_str(), "list" | "watch")
            && self.name.is_empty()
            && let Some(name) = query.first("fieldSelector").and_then(selected_name)
        {
            self.name = name;
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn group_version(&self) -> String {
        if self.api_group.is_empty() {
            self.api_version.clone()
        } else {
            format!("{}/{}", self.api_group, self.api_version)
        }
    }
}

/// The name that a field selector requires, if it requires one (and it is a plain path segment).
fn selected_name(selector: &str) -> Option<String> {
    selector
        .split(',')
        .filter_map(|term| term.strip_prefix("metadata.name="))
        .map(|name| name.strip_prefix('=').unwrap_or(name))
        .find(|name| {
            !name.is_empty() && !name.contains('/') && !name.contains('%') && *name != "." && *name != ".."
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        RequestInfo::new(&method.parse().unwrap(), path, &Query::parse(query))
    }

    #[test]
    fn paths_read_as_kube_apiserver_reads_them() {
        #[rustfmt::skip]
        let table = [
            ("GET", "/api/v1/namespaces", "list", "", "namespaces", "", ""),
            ("GET", "/api/v1/namespaces/other", "get", "other", "namespaces", "", "other"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update", "other", "namespaces", "finalize", "other"),
            ("GET", "/api/v1/namespaces/other/pods", "list", "other", "pods", "", ""),
            ("GET", "/api/v1/namespaces/other/pods?watch=true", "watch", "other", "pods", "", ""),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get", "other", "pods", "", "foo"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "other", "pods", "", "foo"),
            ("GET", "/api/v1/pods", "list", "", "pods", "", ""),
            ("GET", "/api/v1/watch/pods", "watch", "", "pods", "", ""),
            ("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch", "other", "pods", "", "foo"),
            ("POST", "/api/v1/namespaces/other/pods", "create", "other", "pods", "", ""),
            ("PATCH", "/api/v1/namespaces/other/pods/foo/status", "patch", "other", "pods", "status", "foo"),
            ("DELETE", "/apis/apps/v1/namespaces/other/deployments", "deletecollection", "other", "deployments", "", ""),
            ("DELETE", "/apis/apps/v1/namespaces/other/deployments/d", "delete", "other", "deployments", "", "d"),
            ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", "list", "", "nodes", "", "n1"),
        ];
        for (method, uri, verb, namespace, resource, subresource, name) in table {
            let info = info(method, uri);
            assert!(info.is_resource_request, "{uri}");
            let got = (
                info.verb.as_str(),
                info.namespace.as_str(),
                info.resource.as_str(),
                info.subresource.as_str(),
                info.name.as_str(),
            );
            assert_eq!(got, (verb, namespace, resource, subresource, name), "{method} {uri}");
        }
    }

    #[test]
    fn discovery_and_health_are_not_resources() {
        for uri in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz",
            "/openapi/v3/apis/apps/v1",
        ] {
            let info = info("GET", uri);
            assert!(!info.is_resource_request, "{uri}");
            assert_eq!(info.verb, "get");
        }
    }
}
