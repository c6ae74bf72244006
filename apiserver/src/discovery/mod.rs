//! What is served: `/api`, `/apis` and the resource lists below them, in the plain and the aggregated form.
//!
//! Called by `server`. Built once from the facts of Kubernetes' own lists and from what this server really serves.

mod facts;

use std::collections::{BTreeMap, BTreeSet};

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wherry_machinery::status::{Reason, Status};

pub use facts::{Fact, facts};

use crate::server::respond;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether a resource has objects that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It has.
    Stored,
    /// It only answers (reviews), or is a subresource.
    Answered,
}

/// The documents, encoded.
#[derive(Debug)]
pub struct Discovery {
    documents: BTreeMap<String, Bytes>,
    aggregated: BTreeMap<&'static str, Aggregated>,
    groups: BTreeSet<String>,
}

#[derive(Debug)]
struct Aggregated {
    json: Bytes,
    etag: HeaderValue,
}

/// The form in which a client wants `/api` or `/apis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    PlainJson,
    PlainYaml,
    Aggregated,
}

impl Discovery {
    /// The documents of those facts that `served` knows of; it is asked for group, version, resource and subresource.
    pub fn new(served: impl Fn(&str, &str, &str, &str) -> Option<Served>, server_address: &str) -> Self {
        let kept: Vec<(Fact, Served)> = facts()
            .into_iter()
            .filter_map(|fact| {
                let (group, version) = fact.group_and_version();
                let (resource, subresource) = fact.parts();
                let served = served(group, version, resource, subresource)?;
                Some((fact, served))
            })
            .collect();
        let mut group_versions: Vec<&str> = Vec::new();
        for (fact, _) in &kept {
            if !group_versions.contains(&fact.group_version.as_str()) {
                group_versions.push(&fact.group_version);
            }
        }
        let mut documents = BTreeMap::new();
        let mut put = |path: String, document: &Value| {
            documents.insert(path, Bytes::from(document.to_string()));
        };
        for group_version in &group_versions {
            let mut document = json!({"kind": "APIResourceList"});
            if *group_version != "v1" {
                document["apiVersion"] = "v1".into();
            }
            document["groupVersion"] = (*group_version).into();
            document["resources"] = kept
                .iter()
                .filter(|(fact, _)| fact.group_version == *group_version)
                .map(|(fact, served)| resource(fact, *served))
                .collect();
            let prefix = if group_version.contains('/') { "/apis" } else { "/api" };
            put(format!("{prefix}/{group_version}"), &document);
        }
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for (group, version) in group_versions.iter().filter_map(|gv| gv.split_once('/')) {
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, versions)) => versions.push(version),
                None => groups.push((group, vec![version])),
            }
        }
        for (name, versions) in &groups {
            let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
            merge(&mut document, group(name, versions));
            put(format!("/apis/{name}"), &document);
        }
        let list: Vec<Value> = groups.iter().map(|(name, versions)| group(name, versions)).collect();
        put("/apis".to_owned(), &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}));
        let address = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]);
        put(
            "/api".to_owned(),
            &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address}),
        );
        let core = aggregated(&[("", vec!["v1"])], &kept);
        let named = aggregated(&groups, &kept);
        Self {
            documents,
            aggregated: BTreeMap::from([("/api", core), ("/apis", named)]),
            groups: groups.iter().map(|(name, _)| (*name).to_owned()).collect(),
        }
    }

    /// Whether a group is served.
    pub fn has_group(&self, group: &str) -> bool {
        group.is_empty() || self.groups.contains(group)
    }

    /// The paths that answer.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.documents.keys().map(String::as_str)
    }

    /// The group versions that are served, such as `apps/v1` and `v1`.
    pub fn group_versions(&self) -> impl Iterator<Item = &str> {
        self.documents.keys().filter_map(|path| {
            path.strip_prefix("/api/")
                .or_else(|| path.strip_prefix("/apis/").filter(|rest| rest.contains('/')))
        })
    }

    /// The answer for a path, if it is one of discovery's.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let path = path.trim_end_matches('/');
        let document = self.documents.get(path)?;
        let aggregated = self.aggregated.get(path);
        Some(match form(headers, aggregated.is_some()) {
            None => not_acceptable(),
            Some(Form::Aggregated) => aggregated.map_or_else(not_acceptable, |found| found.answer(headers)),
            Some(Form::PlainJson) => vary(respond::json_bytes(document.clone())),
            Some(Form::PlainYaml) => {
                // JSON is YAML.
                let mut response = respond::json_bytes(document.clone());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
                vary(response)
            }
        })
    }
}

impl Aggregated {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut response = vary(respond::json_bytes(self.json.clone()));
        if headers.get_all(IF_NONE_MATCH).iter().any(|tag| tag == self.etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = axum::body::Body::empty();
        }
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
        response.headers_mut().insert(ETAG, self.etag.clone());
        response
    }
}

fn vary(mut response: Response) -> Response {
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn not_acceptable() -> Response {
    respond::status(&Status::failure(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    ))
}

/// The best form that the client accepts.
fn form(headers: &HeaderMap, can_aggregate: bool) -> Option<Form> {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(",");
    if accept.trim().is_empty() {
        return Some(Form::PlainJson);
    }
    accept.split(',').find_map(|clause| {
        let mut fields = clause.split(';').map(str::trim);
        let range = fields.next().unwrap_or_default();
        let parameters: BTreeMap<&str, &str> = fields.filter_map(|field| field.split_once('=')).collect();
        let is_json = matches!(range, "application/json" | "application/*" | "*/*");
        match parameters.get("as") {
            None if is_json => Some(Form::PlainJson),
            None if range == "application/yaml" => Some(Form::PlainYaml),
            Some(&"APIGroupDiscoveryList") if is_json && can_aggregate => {
                let wanted = (parameters.get("g"), parameters.get("v"));
                (wanted == (Some(&"apidiscovery.k8s.io"), Some(&"v2"))).then_some(Form::Aggregated)
            }
            _ => None,
        }
    })
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

fn resource(fact: &Fact, served: Served) -> Value {
    let mut value = serde_json::to_value(fact).unwrap_or_default();
    if served == Served::Stored && !fact.name.contains('/') {
        let (group, version, kind) = storage_kind(fact);
        let digest = Sha256::digest(format!("{group}/{version}/{kind}").as_bytes());
        value["storageVersionHash"] = STANDARD.encode(&digest[..8]).into();
    }
    value
}

/// As which kind objects are stored: both kinds of events are core events.
fn storage_kind(fact: &Fact) -> (&str, &str, &str) {
    match (fact.group_version.as_str(), fact.name.as_str()) {
        ("events.k8s.io/v1", "events") => ("", "v1", "Event"),
        _ => {
            let (group, version) = fact.group_and_version();
            (group, version, &fact.kind)
        }
    }
}

fn group(name: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

fn aggregated(groups: &[(&str, Vec<&str>)], facts: &[(Fact, Served)]) -> Aggregated {
    let items: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let of_version: Vec<&Fact> = facts
                        .iter()
                        .map(|(fact, _)| fact)
                        .filter(|fact| fact.group_and_version() == (name, version))
                        .collect();
                    json!({"version": version, "resources": aggregated_resources(&of_version), "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let json = Bytes::from(document.to_string());
    let tag = format!("\"{}\"", hex(&Sha256::digest(&json)));
    // Hexadecimal digits in quotes are a header value.
    let etag = HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
    Aggregated { json, etag }
}

fn aggregated_resources(facts: &[&Fact]) -> Vec<Value> {
    let kind = |fact: &Fact| json!({"group": fact.group, "version": fact.version, "kind": fact.kind});
    let mut resources: Vec<Value> = Vec::new();
    for fact in facts.iter().filter(|fact| fact.parts().1.is_empty()) {
        let mut value = json!({
            "resource": fact.name,
            "responseKind": kind(fact),
            "scope": if fact.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": fact.singular_name,
            "verbs": fact.verbs,
        });
        let below: Vec<Value> = facts
            .iter()
            .filter(|sub| sub.parts().0 == fact.name && !sub.parts().1.is_empty())
            .map(|sub| json!({"subresource": sub.parts().1, "responseKind": kind(sub), "verbs": sub.verbs}))
            .collect();
        for (key, list) in [
            ("shortNames", json!(fact.short_names)),
            ("categories", json!(fact.categories)),
            ("subresources", json!(below)),
        ] {
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                value[key] = list;
            }
        }
        resources.push(value);
    }
    resources
}

/// Hexadecimal digits, upper case as Kubernetes' ETags.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn discovery() -> Discovery {
        let served =
            |group: &str, _: &str, resource: &str, subresource: &str| match (group, resource, subresource) {
                ("", "pods", "") | ("apps", "deployments", "") | ("events.k8s.io", "events", "") => {
                    Some(Served::Stored)
                }
                ("", "pods", "eviction") => Some(Served::Answered),
                ("authorization.k8s.io", "selfsubjectaccessreviews", _) => Some(Served::Answered),
                _ => None,
            };
        Discovery::new(served, "127.0.0.1:6443")
    }

    async fn get(path: &str, accept: &'static str) -> (u16, HeaderMap, Value) {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let (parts, body) = discovery().answer(path, &headers).unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn only_what_is_served_is_listed() {
        let (_, _, list) = get("/api/v1", "application/json").await;
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
        assert_eq!(names, ["pods", "pods/eviction"]);
        assert_eq!(list["resources"][1]["group"], "policy");
        assert_eq!(list.get("apiVersion"), None);
        let (_, _, groups) = get("/apis/", "").await;
        let names: Vec<&str> =
            groups["groups"].as_array().unwrap().iter().filter_map(|g| g["name"].as_str()).collect();
        assert_eq!(names, ["apps", "events.k8s.io", "authorization.k8s.io"]);
        assert!(discovery().answer("/apis/batch/v1", &HeaderMap::new()).is_none());
        assert!(discovery().has_group("apps") && !discovery().has_group("batch"));
        let (_, _, list) = get("/apis/authorization.k8s.io/v1", "").await;
        assert_eq!(list["resources"][0].get("storageVersionHash"), None);
    }

    #[tokio::test]
    async fn the_aggregated_form_is_given_to_who_asks_for_it() {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let (code, headers, list) = get("/api", accept).await;
        assert_eq!((code, &headers[CONTENT_TYPE]), (200, &HeaderValue::from_static(AGGREGATED)));
        let pods = &list["items"][0]["versions"][0]["resources"][0];
        assert_eq!(pods["subresources"][0]["responseKind"]["kind"], "Eviction");
        let again = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static(accept)),
            (IF_NONE_MATCH, headers[ETAG].clone()),
        ]);
        assert_eq!(discovery().answer("/api", &again).unwrap().status(), 304);
        for old in ["application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", "text/html"]
        {
            assert_eq!(get("/apis", old).await.0, 406, "{old}");
        }
        assert_eq!(
            get("/apis", "application/xml, application/yaml").await.1[CONTENT_TYPE],
            "application/yaml"
        );
    }
}
