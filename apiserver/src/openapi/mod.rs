//! Descriptions of the API for clients: `/openapi/v2` and `/openapi/v3`.
//!
//! Called by `server`. Made from the facts of the types (`wherry_machinery::schema`), from what is served (`discovery`) and from
//! the texts that the build took from crate `k8s-openapi`. Nothing is built before somebody asks; what is kept is compressed.

mod components;
mod descriptions;
mod operations;
mod v2;
mod v2_protobuf;
mod v3;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
    LOCATION, VARY,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::components::Types;
use crate::discovery::{Fact, Served, facts, hex};
use crate::http::query::Query;
use crate::server::respond;

/// The sources of the generator are part of what a document's hash stands for: a document changes when they do.
const GENERATOR: [&str; 5] = [
    include_str!("mod.rs"),
    include_str!("components.rs"),
    include_str!("operations.rs"),
    include_str!("v2.rs"),
    include_str!("v3.rs"),
];
/// Only this many documents are kept; there are fewer than that.
const MAX_KEPT: usize = 128;

/// Why a document cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The facts of the types do not read.
    #[error("the built-in types cannot be read")]
    Types(#[from] wherry_machinery::schema::LoadError),
    /// The facts or texts do not decode.
    #[error("the built-in types cannot be decoded")]
    Decode(#[from] serde_json::Error),
    /// The texts do not decompress.
    #[error("the built-in texts cannot be decompressed")]
    Decompress(#[from] std::io::Error),
}

/// What is served, and the documents made so far.
#[derive(Debug)]
pub struct OpenApi {
    facts: Arc<Vec<Fact>>,
    version: String,
    /// By the document's path below `/openapi/v3/`.
    hashes: BTreeMap<String, String>,
    whole_hash: String,
    documents: Mutex<BTreeMap<String, Bytes>>,
}

impl OpenApi {
    /// Descriptions of those facts that `served` knows of.
    pub fn new(served: impl Fn(&str, &str, &str, &str) -> Option<Served>, version: &str) -> Self {
        let facts: Vec<Fact> = facts()
            .into_iter()
            .filter(|fact| {
                let (group, version) = fact.group_and_version();
                let (resource, subresource) = fact.parts();
                served(group, version, resource, subresource).is_some()
            })
            .collect();
        let mut seed = Sha256::new();
        for part in GENERATOR {
            seed.update(part.as_bytes());
        }
        seed.update(version.as_bytes());
        seed.update(descriptions::COMPRESSED);
        seed.update(serde_json::to_vec(&facts).unwrap_or_default());
        let hash = |path: &str| hex(&seed.clone().chain_update(path.as_bytes()).finalize());
        let hashes = v3::paths(&facts).into_iter().map(|path| (path.clone(), hash(&path))).collect();
        Self {
            whole_hash: hash("v2"),
            facts: Arc::new(facts),
            version: version.to_owned(),
            hashes,
            documents: Mutex::default(),
        }
    }

    /// The answer for a path below `/openapi`, if it is one.
    pub async fn answer(&self, path: &str, headers: &HeaderMap, query: &Query) -> Option<Response> {
        match path {
            "/openapi/v2" => Some(self.whole(headers).await),
            "/openapi/v3" | "/openapi/v3/" => Some(self.index()),
            _ => Some(self.part(path.strip_prefix("/openapi/v3/")?, headers, query).await),
        }
    }

    fn index(&self) -> Response {
        let paths: serde_json::Map<String, Value> = self
            .hashes
            .iter()
            .map(|(path, hash)| {
                (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}))
            })
            .collect();
        // Typed as text, as Kubernetes does.
        respond::plain(StatusCode::OK, json!({"paths": paths}).to_string())
    }

    async fn whole(&self, headers: &HeaderMap) -> Response {
        let (facts, version) = (Arc::clone(&self.facts), self.version.clone());
        let make = move || v2::document(&Types::load()?, &facts, &version);
        if accepts(headers, v2_protobuf::MEDIA_TYPE) {
            let make = move || Ok(gzip(&v2_protobuf::encode(&make()?)));
            let mut response = self.document("v2.protobuf", &self.whole_hash, headers, make).await;
            // Not what was asked for, and what Kubernetes says.
            let media_type = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(CONTENT_TYPE, media_type);
            return response;
        }
        if !accepts_json(headers) {
            return empty(StatusCode::NOT_ACCEPTABLE);
        }
        self.document("v2", &self.whole_hash, headers, move || Ok(gzip_json(&make()?))).await
    }

    async fn part(&self, path: &str, headers: &HeaderMap, query: &Query) -> Response {
        let Some(hash) = self.hashes.get(path) else { return empty(StatusCode::NOT_FOUND) };
        if !accepts_json(headers) {
            return empty(StatusCode::NOT_ACCEPTABLE);
        }
        let wanted = query.given("hash");
        if wanted.is_some_and(|wanted| wanted != hash) {
            let mut response = empty(StatusCode::MOVED_PERMANENTLY);
            if let Ok(location) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
                response.headers_mut().insert(LOCATION, location);
            }
            return response;
        }
        let (facts, version, owned) = (Arc::clone(&self.facts), self.version.clone(), path.to_owned());
        let mut response = self
            .document(path, hash, headers, move || {
                Ok(gzip_json(&v3::document(&Types::load()?, &facts, &owned, &version)?))
            })
            .await;
        if wanted.is_some() {
            // The hash names the content: it never changes.
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
        }
        response
    }

    /// The document, made at first use; in the client's encoding.
    async fn document(
        &self,
        key: &str,
        hash: &str,
        headers: &HeaderMap,
        make: impl FnOnce() -> Result<Bytes, Error> + Send + 'static,
    ) -> Response {
        let tag = format!("\"{hash}\"");
        let known = headers.get_all(IF_NONE_MATCH).iter().any(|given| given.as_bytes() == tag.as_bytes());
        let mut response = if known {
            empty(StatusCode::NOT_MODIFIED)
        } else {
            let kept = self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
            let compressed = match kept {
                Some(compressed) => compressed,
                None => match tokio::task::spawn_blocking(make).await {
                    Ok(Ok(compressed)) => self.keep(key, compressed),
                    Ok(Err(error)) => return failed(&error),
                    Err(error) => return failed(&error),
                },
            };
            let accepts_gzip = headers
                .get_all(ACCEPT_ENCODING)
                .iter()
                .any(|value| value.to_str().is_ok_and(|value| value.contains("gzip")));
            if accepts_gzip {
                let mut response = Response::new(Body::from(compressed));
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                response
            } else {
                match gunzip(&compressed) {
                    Ok(plain) => Response::new(Body::from(plain)),
                    Err(error) => return failed(&error),
                }
            }
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        response
    }

    fn keep(&self, key: &str, compressed: Bytes) -> Bytes {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if documents.len() < MAX_KEPT {
            documents.insert(key.to_owned(), compressed.clone());
        }
        compressed
    }
}

fn empty(code: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Response {
    tracing::error!(error, "an API description cannot be made");
    respond::status(&wherry_machinery::Status::internal(error))
}

/// Whether the client takes JSON.
fn accepts_json(headers: &HeaderMap) -> bool {
    let mut accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    accepts.peek().is_none()
        || accepts.any(|value| {
            value.split(',').any(|clause| {
                let range = clause.split(';').next().unwrap_or_default().trim();
                matches!(range, "" | "*/*" | "application/*" | "application/json")
            })
        })
}

/// Whether the client names this media type.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| {
        value.split(',').any(|clause| clause.split(';').next().unwrap_or_default().trim() == media_type)
    })
}

fn gzip_json(document: &Value) -> Bytes {
    gzip(document.to_string().as_bytes())
}

fn gzip(document: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    // Writing to memory cannot fail.
    let _ = std::io::Write::write_all(&mut encoder, document);
    encoder.finish().unwrap_or_default().into()
}

fn gunzip(compressed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(compressed).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests;
