//! The one watch that keeps the state in memory as etcd's is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse};

use super::Options;
use super::connection::{Connection, key_value};
use crate::state::State;
use crate::view::View;
use crate::{Error, Event, Key, KeyValue, Revision};

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// After a break of this length, everything is read anew: the watch would begin too near to what is compacted.
const RESUME_WITHIN: Duration = Duration::from_secs(60);

/// How often etcd is read, and how often and how far apart the state is compared with that, before a difference counts: events
/// may be on their way.
const READINGS: usize = 5;
const COMPARISONS: usize = 20;
const COMPARISON_PAUSE: Duration = Duration::from_millis(50);

/// Why a watch ended.
#[derive(Debug)]
enum Ended {
    /// The connection failed; the history is there.
    Broken(Error),
    /// etcd no longer has what comes next.
    Compacted,
    /// The state in memory is not etcd's.
    Differs,
}

/// A change, as etcd tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    revision: Revision,
    key: Key,
    value: Option<Bytes>,
}

pub(super) struct Feed {
    connection: Connection,
    view: Arc<View>,
    options: Options,
    /// When the state was last known to follow etcd.
    in_touch: Instant,
}

impl Feed {
    pub(super) fn new(connection: Connection, view: Arc<View>, options: Options) -> Self {
        Self { connection, view, options, in_touch: Instant::now() }
    }

    /// Follow etcd for ever, over broken connections and lost history.
    pub(super) async fn run(mut self) {
        let mut retry = RETRY_MIN;
        let mut resumed = false;
        loop {
            let began = Instant::now();
            let ended = self.follow(resumed).await;
            if began.elapsed() > RETRY_MAX {
                retry = RETRY_MIN;
            }
            match &ended {
                Ended::Broken(error) => {
                    tracing::warn!(error = error as &dyn std::error::Error, "the watch of etcd was lost");
                    pause(&mut retry).await;
                }
                Ended::Compacted => tracing::warn!("etcd's history was compacted before it was read"),
                Ended::Differs => tracing::error!("the state differs from etcd's, which is read anew"),
            }
            resumed = matches!(ended, Ended::Broken(_)) && self.in_touch.elapsed() < RESUME_WITHIN;
            if resumed {
                continue;
            }
            while let Err(error) = self.read_anew().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "etcd could not be read");
                pause(&mut retry).await;
            }
        }
    }

    /// The history between is not known: all watchers that are not past it begin anew.
    async fn read_anew(&mut self) -> Result<(), Error> {
        let (live, revision) = self.connection.read_all().await?;
        self.view.replace(State::new(live, revision, self.options.history));
        self.in_touch = Instant::now();
        Ok(())
    }

    async fn follow(&mut self, resumed: bool) -> Ended {
        let next = self.view.read().revision() + 1;
        let mut stream = match self.connection.watch_all(next).await {
            Ok(stream) => stream,
            Err(error) => return Ended::Broken(error),
        };
        // After a resumption the comparison comes at once.
        let first = if resumed { Duration::ZERO } else { self.options.compaction_interval };
        let comparison =
            compare_regularly(&self.connection, &self.view, first, self.options.compaction_interval);
        tokio::pin!(comparison);
        loop {
            let response = tokio::select! {
                response = stream.message() => response,
                () = &mut comparison => return Ended::Differs,
            };
            self.in_touch = Instant::now();
            let broken = |source| Ended::Broken(Error::Etcd { action: "watching", source });
            match response {
                Ok(Some(response)) if response.canceled() => {
                    return if response.compact_revision() > 0 {
                        Ended::Compacted
                    } else {
                        broken(response.cancel_reason().to_owned().into())
                    };
                }
                Ok(Some(response)) => self.publish(&response),
                Ok(None) => return broken("the stream ended".into()),
                Err(error) => return broken(Box::new(error)),
            }
        }
    }

    fn publish(&self, response: &WatchResponse) {
        let told = response.events().iter().filter_map(|event| {
            let KeyValue { key, value, mod_revision } = key_value(event.kv()?.clone())?;
            let value = (event.event_type() == EventType::Put).then_some(value);
            Some(Told { revision: mod_revision, key, value })
        });
        let events = with_previous(&self.view.read(), told);
        if let Some(revision) = events.last().map(|event| event.revision) {
            self.view.publish(events, revision, Instant::now());
        }
    }
}

/// Wait, and longer the next time.
async fn pause(retry: &mut Duration) {
    tokio::time::sleep(*retry).await;
    *retry = (*retry * 2).min(RETRY_MAX);
}

/// The changes that the state does not have yet, each with what it replaces.
fn with_previous(state: &State, told: impl Iterator<Item = Told>) -> Vec<Event> {
    let mut changed: HashMap<Key, Option<(Bytes, Revision)>> = HashMap::new();
    let mut events = Vec::new();
    for Told { revision, key, value } in told {
        if revision <= state.revision() {
            continue;
        }
        let previous = match changed.get(&key) {
            Some(previous) => previous.clone(),
            None => state.get(&key).map(|stored| (stored.value.clone(), stored.mod_revision)),
        };
        changed.insert(key.clone(), value.clone().map(|value| (value, revision)));
        events.push(Event { revision, key, value, previous });
    }
    events
}

/// Compare the state with etcd's at times; ends when they differ.
async fn compare_regularly(connection: &Connection, view: &View, first: Duration, interval: Duration) {
    let mut pause = first;
    loop {
        tokio::time::sleep(pause).await;
        pause = interval;
        match differs(connection, view).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "etcd could not be compared");
            }
        }
    }
}

async fn differs(connection: &Connection, view: &View) -> Result<bool, Error> {
    for _ in 0..READINGS {
        let (theirs, revision) = connection.read_mod_revisions().await?;
        for _ in 0..COMPARISONS {
            let ours = {
                let state = view.read();
                // Behind, we may have all the same: other keys take revisions, too.
                state.mod_revisions_at(revision.min(state.revision()))
            };
            match ours {
                Ok(ours) if ours == theirs => return Ok(false),
                Ok(_) => tokio::time::sleep(COMPARISON_PAUSE).await,
                // So much was written in the meantime that theirs is history already.
                Err(_) => break,
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::HistoryLimits;

    fn told(revision: Revision, name: &str, value: Option<&'static str>) -> Told {
        let key = Key::new("", "pods", Some("default"), name).unwrap();
        Told { revision, key, value: value.map(|text| Bytes::from_static(text.as_bytes())) }
    }

    #[test]
    fn what_was_seen_is_dropped_and_the_rest_knows_what_it_replaces() {
        let mut state = State::new(BTreeMap::new(), 5, HistoryLimits::default());
        let events = with_previous(&state, [told(6, "a", Some("1"))].into_iter());
        state.publish(events, 6, Instant::now());
        let again = [
            told(5, "x", Some("seen")),
            told(6, "a", Some("1")),
            told(7, "a", Some("2")),
            told(8, "a", None),
            told(8, "b", Some("3")),
            told(9, "a", Some("4")),
        ];
        let events = with_previous(&state, again.into_iter());
        let seen: Vec<_> = events
            .iter()
            .map(|event| (event.revision, event.previous.as_ref().map(|(_, revision)| *revision)))
            .collect();
        assert_eq!(seen, [(7, Some(6)), (8, Some(7)), (8, None), (9, None)]);
    }
}
