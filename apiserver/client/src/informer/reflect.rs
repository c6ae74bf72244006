//! Follows the server's watch into an informer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::Api;
use kube::runtime::watcher::{self, Event, InitialListStrategy};
use tokio::sync::watch;

use super::{Informer, Kind, Selection};
use crate::backoff::Backoff;

/// The first pause after a failure: a server that restarts is back soon.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: what a cluster loses of its time after an outage.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Reflector<K> {
    api: Api<K>,
    config: watcher::Config,
    informer: Informer<K>,
    synced: watch::Sender<bool>,
    trim: fn(&mut K),
}

/// How one stream of events ended.
enum Ended {
    /// The server does not serve streaming lists.
    StreamingUnsupported,
    /// There are no more events; this does not happen.
    Exhausted,
}

impl<K: Kind> Reflector<K> {
    pub(super) fn new(
        api: Api<K>,
        selection: Selection,
        informer: Informer<K>,
        synced: watch::Sender<bool>,
        trim: fn(&mut K),
    ) -> Self {
        let config = watcher::Config {
            label_selector: selection.labels,
            field_selector: selection.fields,
            initial_list_strategy: InitialListStrategy::StreamingList,
            ..watcher::Config::default()
        };
        Self { api, config, informer, synced, trim }
    }

    /// Follows for as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let events = watcher::watcher(self.api.clone(), self.config.clone());
            match self.follow(events, &mut backoff).await {
                Ended::StreamingUnsupported => {
                    tracing::debug!(url = %self.informer.url, "server refuses streaming lists, using list and watch");
                    self.config.initial_list_strategy = InitialListStrategy::ListWatch;
                }
                Ended::Exhausted => tokio::time::sleep(backoff.next_delay()).await,
            }
        }
    }

    async fn follow(
        &self,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        backoff: &mut Backoff,
    ) -> Ended {
        let mut events = pin!(events);
        let mut list = Vec::new();
        let mut failures: u32 = 0;
        while let Some(event) = events.next().await {
            match event {
                // A list that has only begun is no sign of health.
                Ok(Event::Init) => {
                    list = Vec::new();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    list.push(Arc::new(self.trimmed(object)));
                    continue;
                }
                Ok(Event::InitDone) => {
                    self.informer.replace(std::mem::take(&mut list));
                    self.synced.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.informer.apply(self.trimmed(object)),
                Ok(Event::Delete(object)) => self.informer.delete(&object),
                Err(error) if self.is_streaming() && refuses_streaming(&error) => {
                    return Ended::StreamingUnsupported;
                }
                Err(error) => {
                    failures += 1;
                    let url = &self.informer.url;
                    if failures < 4 {
                        tracing::debug!(%url, %error, "watch interrupted");
                    } else {
                        tracing::warn!(%url, %error, failures, "watch keeps failing");
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
            }
            failures = 0;
            backoff.reset();
        }
        Ended::Exhausted
    }

    fn is_streaming(&self) -> bool {
        self.config.initial_list_strategy == InitialListStrategy::StreamingList
    }

    fn trimmed(&self, mut object: K) -> K {
        // Nobody who watches needs to know who owns which field, and it is half of a small object's size.
        object.meta_mut().managed_fields = None;
        (self.trim)(&mut object);
        object
    }
}

/// Whether the server said that it does not understand `sendInitialEvents`, as servers do that lack it.
fn refuses_streaming(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else { return false };
    matches!(status.code, 400 | 405 | 415 | 422 | 501)
}
