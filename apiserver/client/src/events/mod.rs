//! Events: what a component tells about an object, for people who run `kubectl describe`.

mod correlate;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::mpsc;

use crate::backoff::jitter;
use crate::retry::is_not_found;
use correlate::{Correlator, Write};

/// How many events may wait to be written; more are dropped, as they do not matter as much as the work itself.
const QUEUE: usize = 1024;
/// How many waiting events are taken at once.
const BATCH: usize = 64;
/// How many events are written at the same time.
const CONCURRENT_WRITES: usize = 8;
/// How often a write is tried while the server cannot be reached.
const ATTEMPTS: u32 = 4;
/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// How much an event is to worry its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Something did not work.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events about objects. Clones share one queue; when the last is dropped, the task that writes them ends after
/// what is queued.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Occurrence>,
    dropped: Arc<AtomicU64>,
}

/// Something that happened to an object.
#[derive(Debug, Clone)]
struct Occurrence {
    object: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

impl EventRecorder {
    /// A recorder of events that come from `component` on `host` (empty for components that belong to no node). Must be
    /// called within a tokio runtime.
    pub fn new(client: Client, component: impl Into<String>, host: impl Into<String>) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let source = EventSource {
            component: Some(component.into()),
            host: Some(host.into()).filter(|host: &String| !host.is_empty()),
        };
        tokio::spawn(write_events(client, source, receiver));
        Self { queue, dropped: Arc::default() }
    }

    /// Records an event about `object`. Never waits: when too many are queued already, this one is dropped.
    pub fn event(
        &self,
        object: &ObjectReference,
        event_type: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        let occurrence = Occurrence {
            object: object.clone(),
            event_type,
            reason: reason.into(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.queue.try_send(occurrence).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(dropped, "event dropped, too many are waiting");
        }
    }
}

/// Writes events until the last recorder is gone.
async fn write_events(client: Client, source: EventSource, mut queue: mpsc::Receiver<Occurrence>) {
    let mut correlator = Correlator::default();
    let mut batch = Vec::with_capacity(BATCH);
    let (client, source) = (&client, &source);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        // Writes of one event stay in order; different events are independent.
        let mut writes: HashMap<String, Vec<Write>> = HashMap::new();
        for occurrence in batch.drain(..) {
            if let Some(write) = correlator.correlate(occurrence) {
                writes.entry(write.name().to_owned()).or_default().push(write);
            }
        }
        stream::iter(writes.into_values())
            .for_each_concurrent(CONCURRENT_WRITES, |writes| async move {
                // Only the newest count matters of an event that exists already.
                let (first, last) = (writes.first().cloned(), writes.last().cloned());
                let only_one = writes.len() == 1;
                for write in first.into_iter().chain(last.filter(|_| !only_one)) {
                    write_with_retries(client, source, &write).await;
                }
            })
            .await;
    }
}

async fn write_with_retries(client: &Client, source: &EventSource, write: &Write) {
    for attempt in 1..=ATTEMPTS {
        match write_event(client, source, write).await {
            Ok(()) => return,
            // The server answered: it will not answer otherwise the next time.
            Err(error @ Error::Api(_)) => {
                tracing::debug!(event = write.name(), %error, "event was not accepted");
                return;
            }
            Err(error) if attempt == ATTEMPTS => {
                tracing::debug!(event = write.name(), %error, "event could not be written");
            }
            Err(_) => tokio::time::sleep(PAUSE + jitter(PAUSE)).await,
        }
    }
}

async fn write_event(client: &Client, source: &EventSource, write: &Write) -> Result<(), Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), write.namespace());
    if let Write::Count { name, count, message, at, .. } = write {
        let at = Time(*at);
        let patch = json!({ "count": count, "message": message, "lastTimestamp": at });
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            // The event has expired: it is written as a new one, with the count it has reached.
            Err(error) if is_not_found(&error) => {}
            outcome => return outcome.map(drop),
        }
    }
    api.create(&PostParams::default(), &event_object(source, write)).await.map(drop)
}

fn event_object(source: &EventSource, write: &Write) -> Event {
    let (Write::Create { occurrence, name, .. } | Write::Count { occurrence, name, .. }) = write;
    let (count, first, message) = match write {
        Write::Create { message, .. } => (1, occurrence.at, message),
        Write::Count { count, first, message, .. } => (*count, *first, message),
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(write.namespace().to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: occurrence.object.clone(),
        reason: Some(occurrence.reason.clone()),
        message: Some(message.clone()),
        type_: Some(occurrence.event_type.as_str().to_owned()),
        count: Some(count),
        first_timestamp: Some(Time(first)),
        last_timestamp: Some(Time(occurrence.at)),
        reporting_component: Some(source.component.clone().unwrap_or_default()),
        reporting_instance: Some(source.host.clone().unwrap_or_default()),
        source: Some(source.clone()),
        ..Event::default()
    }
}
