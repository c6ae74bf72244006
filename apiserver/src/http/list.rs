//! GET of one object and LIST.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_machinery::status::{Reason, Status};

use super::continue_token::{self, ContinueToken};
use super::negotiate::{Form, MediaType, Shape};
use super::options::{ListOptions, parse_version};
use super::query::Query;
use super::{Api, respond, shape};
use crate::cacher::Snapshot;
use crate::cacher::entry::Entry;
use crate::registry::{Kind, ListVersion, Refusal};

/// GET of one object.
pub(super) async fn get(
    api: &Api,
    kind: &Kind,
    (namespace, name): (&str, &str),
    form: Form,
    query: &Query,
) -> Result<Response, Refusal> {
    let version = query.first("resourceVersion").unwrap_or_default();
    let version = match parse_version(version).map_err(|why| bad_version(&why))? {
        None => ListVersion::Latest,
        Some(0) => ListVersion::Any,
        Some(revision) => ListVersion::NotOlderThan(revision),
    };
    let entry = api.registry.get(kind, namespace, name, version).await?;
    if form.media_type == MediaType::Json && form.shape == Shape::Object && !form.pretty {
        let line = vec![entry.json().clone(), Bytes::from_static(b"\n")];
        return Ok(respond::slices(StatusCode::OK, MediaType::Json.as_str(), line));
    }
    answer(api, kind, StatusCode::OK, form, query, entry.value())
}

fn bad_version(why: &str) -> Refusal {
    Status::bad_request(format!("invalid resource version: {why}")).into()
}

/// One object in the negotiated shape.
pub(super) fn answer(
    api: &Api,
    kind: &Kind,
    code: StatusCode,
    form: Form,
    query: &Query,
    object: Value,
) -> Result<Response, Refusal> {
    let shaped = match form.shape {
        Shape::Object => object,
        Shape::PartialObject(version) => shape::partial_object(&object, version),
        Shape::PartialObjectList(_) => return Err(shape::wrong_partial(kind, form.shape)),
        Shape::Table(version) => {
            let metadata = shape::version_metadata(&object);
            api.table_form(version, query)?.table(kind, &[object], metadata, true)
        }
    };
    api.value(code, form, &shaped)
}

/// A page of a list.
pub(super) struct Page {
    pub(super) revision: u64,
    pub(super) entries: Vec<Arc<Entry>>,
    token: Option<String>,
    remaining: Option<usize>,
}

impl Page {
    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

/// LIST.
pub(super) async fn list(
    api: &Api,
    kind: &Kind,
    options: &ListOptions,
    form: Form,
    query: &Query,
) -> Result<Response, Refusal> {
    if matches!(form.shape, Shape::PartialObject(_)) {
        return Err(shape::wrong_partial(kind, form.shape));
    }
    let page = page(api, kind, options).await?;
    if form.media_type == MediaType::Json && form.shape == Shape::Object && !form.pretty {
        return Ok(respond::slices(StatusCode::OK, MediaType::Json.as_str(), body(kind, &page)));
    }
    let objects: Vec<Value> = page.entries.iter().map(|entry| entry.value()).collect();
    let tree = match form.shape {
        Shape::Table(version) => api.table_form(version, query)?.table(kind, &objects, page.metadata(), true),
        Shape::PartialObjectList(version) => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": page.metadata(),
            "items": objects.iter().map(|object| shape::partial_object(object, version)).collect::<Vec<_>>()}),
        _ => list_tree(kind, page.metadata(), objects),
    };
    api.value(StatusCode::OK, form, &tree)
}

/// A list as a tree; the items of built-in kinds carry neither kind nor apiVersion.
pub(super) fn list_tree(kind: &Kind, metadata: Value, mut objects: Vec<Value>) -> Value {
    for object in &mut objects {
        if let Some(fields) = object.as_object_mut() {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
    }
    json!({"kind": format!("{}List", kind.resource.kind), "apiVersion": kind.resource.api_version(),
        "metadata": metadata, "items": objects})
}

/// The slices of a list: what stands between the objects is made anew, the objects are the cache's own bytes.
fn body(kind: &Kind, page: &Page) -> Vec<Bytes> {
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{},"items":["#,
        kind.resource.kind,
        kind.resource.api_version(),
        page.metadata()
    );
    let mut slices = Vec::with_capacity(2 * page.entries.len() + 2);
    slices.push(Bytes::from(head));
    for (index, entry) in page.entries.iter().enumerate() {
        slices.push(Bytes::from_static(if index == 0 { b"{" } else { b",{" }));
        slices.push(entry.body());
    }
    slices.push(Bytes::from_static(b"]}\n"));
    slices
}

/// The objects of a page.
pub(super) async fn page(api: &Api, kind: &Kind, options: &ListOptions) -> Result<Page, Refusal> {
    let namespace = options.selection.namespace.as_deref();
    let token = if options.token.is_empty() { None } else { Some(ContinueToken::decode(&options.token)?) };
    if token.is_some() && !options.resource_version.is_empty() && options.resource_version != "0" {
        return Err(
            Status::bad_request("specifying resource version is not allowed when using continue").into()
        );
    }
    let version = version(options, token.as_ref())?;
    let snapshot = match api.registry.snapshot(kind, namespace, version).await {
        Err(refusal) if refusal.reason == Reason::Expired.as_str() => {
            return Err(match &token {
                Some(token) => continue_token::expired(token),
                None => refusal,
            });
        }
        snapshot => snapshot?,
    };
    let limit = if options.resource_version == "0" { 0 } else { options.limit };
    Ok(cut(kind, options, snapshot, token.as_ref(), limit))
}

fn version(options: &ListOptions, token: Option<&ContinueToken>) -> Result<ListVersion, Refusal> {
    if let Some(token) = token {
        // -1 stands for a list that has given up its revision.
        return Ok(u64::try_from(token.revision).map_or(ListVersion::Latest, ListVersion::Exact));
    }
    let revision = options.revision().map_err(|why| bad_version(&why))?;
    Ok(match (revision, options.version_match.as_str()) {
        (None, _) => ListVersion::Latest,
        (Some(0), _) => ListVersion::Any,
        (Some(revision), "Exact") => ListVersion::Exact(revision),
        (Some(revision), "") if options.limit > 0 => ListVersion::Exact(revision),
        (Some(revision), _) => ListVersion::NotOlderThan(revision),
    })
}

/// The key of an entry below the list's prefix, as continue tokens have it.
fn relative<'a>(entry: &'a Entry, namespace: Option<&str>) -> &'a str {
    if namespace.is_some() { entry.name() } else { entry.key() }
}

fn cut(
    kind: &Kind,
    options: &ListOptions,
    snapshot: Snapshot,
    token: Option<&ContinueToken>,
    limit: usize,
) -> Page {
    let namespace = options.selection.namespace.as_deref();
    let strategy = &*kind.strategy;
    let from = token.map_or(0, |token| {
        snapshot.entries.partition_point(|entry| relative(entry, namespace) < token.start.as_str())
    });
    let mut rest = snapshot.entries[from..].iter();
    let mut entries = Vec::new();
    for entry in rest.by_ref() {
        if options.selection.matches(strategy, entry) {
            entries.push(Arc::clone(entry));
            if limit > 0 && entries.len() == limit {
                break;
            }
        }
    }
    let left = rest.len();
    let more = entries.last().filter(|_| left > 0).map(|last| {
        let revision = i64::try_from(snapshot.revision).unwrap_or(i64::MAX);
        ContinueToken::after(relative(last, namespace), revision).encode()
    });
    let remaining = (more.is_some() && !options.selection.is_partial()).then_some(left);
    Page { revision: snapshot.revision, entries, token: more, remaining }
}
