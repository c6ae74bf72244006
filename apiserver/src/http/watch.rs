//! Watches: a stream of events, as lines of JSON or frames of protobuf.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use wherry_machinery::status::{Reason, Status, StatusDetails};

use super::negotiate::{Form, MediaType, Shape};
use super::options::ListOptions;
use super::query::Query;
use super::shape::{self, TableForm};
use super::{Api, respond};
use crate::cacher::entry::Entry;
use crate::cacher::ring::{EventType, line};
use crate::cacher::selection::Selection;
use crate::cacher::{Expired, Watcher};
use crate::codec::Codec;
use crate::registry::{Kind, ListVersion, Refusal};

/// A watch without `timeoutSeconds` ends after this and up to as much again. Source: `--min-request-timeout`.
const MIN_TIMEOUT_SECONDS: u64 = 1800;
/// How often a bookmark is sent. Source: `bookmarkFrequency`.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// So long before the end a last bookmark is sent.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Events taken at once from the ring.
const BATCH: usize = 256;
/// The annotation that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// How events are encoded.
struct Encoder {
    codec: Arc<Codec>,
    kind: Arc<Kind>,
    form: Form,
    table: Option<TableForm>,
    has_sent_columns: bool,
}

/// A watch in progress.
struct Stream {
    api: Api,
    watcher: Watcher,
    selection: Selection,
    encoder: Encoder,
    pending: VecDeque<Bytes>,
    next_bookmark: Option<Instant>,
    end: Instant,
    is_over: bool,
}

/// Begins a watch.
pub(super) async fn watch(
    api: &Api,
    kind: &Arc<Kind>,
    options: ListOptions,
    form: Form,
    query: &Query,
) -> Result<Response, Refusal> {
    if form.media_type == MediaType::Yaml {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf, application/json;stream=watch, \
                       application/vnd.kubernetes.protobuf;stream=watch";
        return Err(Status::failure(Reason::NotAcceptable, message)
            .with_details(StatusDetails::default())
            .into());
    }
    let table = match form.shape {
        Shape::Table(version) => Some(api.table_form(version, query)?),
        _ => None,
    };
    let mut encoder = Encoder {
        codec: Arc::clone(api.registry.codec()),
        kind: Arc::clone(kind),
        form,
        table,
        has_sent_columns: false,
    };
    let started = begin(api, kind, &options, &mut encoder).await?;
    let timeout = options.timeout_seconds.unwrap_or_else(|| {
        // The nanoseconds of now are random enough to keep watches from ending together.
        MIN_TIMEOUT_SECONDS + u64::from(api.registry.environment().now().subsec_nanos()) % MIN_TIMEOUT_SECONDS
    });
    let now = Instant::now();
    let end = now + Duration::from_secs(timeout);
    let content_type = match form.media_type {
        MediaType::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        MediaType::Json | MediaType::Yaml => MediaType::Json.as_str(),
    };
    let body = match started {
        Started::Refused(event) => Body::from(event),
        Started::Watching(watcher, pending) => {
            let stream = Stream {
                api: api.clone(),
                watcher,
                selection: options.selection,
                encoder,
                pending,
                next_bookmark: options.bookmarks.then(|| first_bookmark(now, end)),
                end,
                is_over: false,
            };
            Body::from_stream(stream::unfold(stream, |mut stream| async {
                let chunk = stream.next().await?;
                Some((Ok::<_, Infallible>(chunk), stream))
            }))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    respond::headers(&mut response, content_type);
    Ok(response)
}

fn first_bookmark(now: Instant, end: Instant) -> Instant {
    let before_end = end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(now).max(now);
    (now + BOOKMARK_EVERY).min(before_end)
}

enum Started {
    Refused(Bytes),
    Watching(Watcher, VecDeque<Bytes>),
}

/// From where the watch starts, and what is sent first.
async fn begin(
    api: &Api,
    kind: &Arc<Kind>,
    options: &ListOptions,
    encoder: &mut Encoder,
) -> Result<Started, Refusal> {
    let revision = options.revision().map_err(|why| Box::new(Status::failure(Reason::Unknown, why)))?;
    let wants_present_state = match (revision, options.send_initial_events) {
        (_, Some(wanted)) => wanted,
        (None | Some(0), None) => true,
        (Some(_), None) => false,
    };
    if let (Some(revision), false) = (revision.filter(|revision| *revision > 0), wants_present_state) {
        return Ok(match kind.cacher.watch_after(revision) {
            Ok(watcher) => Started::Watching(watcher, VecDeque::new()),
            Err(Expired { oldest }) => Started::Refused(encoder.error(&too_old(revision, oldest))?),
        });
    }
    let version = match revision {
        None => ListVersion::Latest,
        Some(0) => ListVersion::Any,
        Some(revision) => ListVersion::NotOlderThan(revision),
    };
    let namespace = options.selection.namespace.as_deref();
    let snapshot = api.registry.snapshot(kind, namespace, version).await?;
    let watcher = kind.cacher.watch_from(&snapshot);
    let mut pending = VecDeque::new();
    if wants_present_state {
        for entry in &snapshot.entries {
            if options.selection.matches(&*kind.strategy, entry) {
                pending.push_back(encoder.event(EventType::Added, entry)?);
            }
        }
        if options.send_initial_events == Some(true) && options.bookmarks {
            pending.push_back(encoder.bookmark(snapshot.revision, true)?);
        }
    }
    Ok(Started::Watching(watcher, pending))
}

fn too_old(revision: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {revision} ({oldest})"))
}

impl Stream {
    /// The next piece of the body; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Some(chunk);
            }
            if self.is_over {
                return None;
            }
            // Read before the ring, so that a bookmark never promises more than was sent.
            let applied = self.api.registry.feed().applied();
            self.fill();
            if !self.pending.is_empty() || self.is_over {
                continue;
            }
            let bookmark = self.next_bookmark.unwrap_or(self.end);
            tokio::select! {
                () = self.watcher.changed() => {}
                () = self.api.shutdown.cancelled() => self.is_over = true,
                () = sleep_until(self.end) => self.is_over = true,
                () = sleep_until(bookmark), if self.next_bookmark.is_some() => self.send_bookmark(applied),
            }
        }
    }

    fn fill(&mut self) {
        let events = match self.watcher.read(BATCH) {
            Ok(events) => events,
            Err(Expired { oldest }) => {
                let status = Status::expired(format!(
                    "The resourceVersion for the provided watch is too old, events before {oldest} are gone."
                ));
                self.push_or_end(|encoder| encoder.error(&status));
                self.is_over = true;
                return;
            }
        };
        for event in events {
            let Some(event_type) = self.selection.sees(self.watcher.cacher().strategy(), &event) else {
                continue;
            };
            if self.encoder.shares_lines() {
                self.pending.extend(event.line(event_type));
            } else if let Some(shown) = event.shown(event_type) {
                self.push_or_end(|encoder| encoder.event(event_type, shown));
            }
        }
    }

    fn send_bookmark(&mut self, applied: u64) {
        let now = Instant::now();
        let before_end = self.end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(now);
        self.next_bookmark =
            if now >= before_end { None } else { Some((now + BOOKMARK_EVERY).min(before_end)) };
        self.push_or_end(|encoder| encoder.bookmark(applied, false));
    }

    fn push_or_end(&mut self, encode: impl FnOnce(&mut Encoder) -> Result<Bytes, Refusal>) {
        match encode(&mut self.encoder) {
            Ok(bytes) => self.pending.push_back(bytes),
            Err(refusal) => {
                tracing::error!(message = %refusal, "a watch event cannot be encoded");
                self.is_over = true;
            }
        }
    }
}

impl Encoder {
    /// Whether the lines that all watchers share are this watcher's form too.
    fn shares_lines(&self) -> bool {
        self.form.media_type == MediaType::Json && self.form.shape == Shape::Object
    }

    fn event(&mut self, event_type: EventType, entry: &Entry) -> Result<Bytes, Refusal> {
        if self.shares_lines() {
            return Ok(line(event_type, entry));
        }
        let object = entry.value();
        let shaped = self.shape(object);
        self.encode(event_type.as_str(), &shaped)
    }

    fn shape(&mut self, object: Value) -> Value {
        match (&self.table, self.form.shape) {
            (Some(table), _) => {
                let with_columns = !std::mem::replace(&mut self.has_sent_columns, true);
                let metadata = shape::version_metadata(&object);
                table.table(&self.kind, &[object], metadata, with_columns)
            }
            (None, Shape::PartialObject(version) | Shape::PartialObjectList(version)) => {
                shape::partial_object(&object, version)
            }
            (None, _) => object,
        }
    }

    fn bookmark(&mut self, revision: u64, ends_initial_events: bool) -> Result<Bytes, Refusal> {
        let mut object = json!({"kind": self.kind.resource.kind, "apiVersion": self.kind.resource.api_version(),
            "metadata": {"resourceVersion": revision.to_string()}});
        if ends_initial_events {
            object["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let shaped = match self.form.shape {
            // A Table of a bookmark has a row too: clients look into it for the annotation.
            Shape::Table(_) | Shape::PartialObject(_) | Shape::PartialObjectList(_) => self.shape(object),
            Shape::Object => object,
        };
        self.encode("BOOKMARK", &shaped)
    }

    fn error(&mut self, status: &Status) -> Result<Bytes, Refusal> {
        let tree = serde_json::to_value(status).map_err(|error| Box::new(Status::internal(error)))?;
        self.encode("ERROR", &tree)
    }

    fn encode(&self, event_type: &str, object: &Value) -> Result<Bytes, Refusal> {
        match self.form.media_type {
            MediaType::Protobuf => self.codec.watch_frame(event_type, object).map(Bytes::from),
            MediaType::Json | MediaType::Yaml => {
                respond::json(&json!({"type": event_type, "object": object}), false).map(Bytes::from)
            }
        }
    }
}
