//! One writer of events, many readers, bounded.

use futures::StreamExt;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{ContainerEventResponse, Error, EventStream};

/// Events kept for a reader that is behind. A reader further behind than that is told how many it missed.
pub const KEPT_EVENTS: usize = 4096;

/// Sends each event to every reader, and never waits for any of them.
#[derive(Debug)]
pub struct EventSender {
    sender: broadcast::Sender<ContainerEventResponse>,
}

impl Default for EventSender {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(KEPT_EVENTS) }
    }
}

impl EventSender {
    /// Sends one event to all present readers.
    pub fn send(&self, event: ContainerEventResponse) {
        // No reader is not an error: events are hints, the state is what is listed.
        let _ = self.sender.send(event);
    }

    /// Whether anybody reads: building an event costs a status of the sandbox and its containers.
    pub fn has_readers(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Events from now on, until `shutdown`.
    pub fn subscribe(&self, shutdown: &CancellationToken) -> EventStream {
        let receiver = self.sender.subscribe();
        let stopped = shutdown.clone().cancelled_owned();
        futures::stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), receiver)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    Some((Err(Error::DataLoss(format!("{missed} container events were missed"))), receiver))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .take_until(stopped)
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(created_at: i64) -> ContainerEventResponse {
        ContainerEventResponse { created_at, ..Default::default() }
    }

    #[tokio::test]
    async fn every_reader_sees_every_event_in_order() {
        let (sender, shutdown) = (EventSender::default(), CancellationToken::new());
        let mut readers = [sender.subscribe(&shutdown), sender.subscribe(&shutdown)];
        for n in 0..10 {
            sender.send(event(n));
        }
        shutdown.cancel();
        for reader in &mut readers {
            let seen: Vec<i64> = reader.by_ref().take(10).map(|e| e.unwrap().created_at).collect().await;
            // A stream that was told to stop may stop before it has given everything, but never out of order.
            assert!(seen.is_sorted());
        }
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_and_goes_on() {
        let (sender, shutdown) = (EventSender::default(), CancellationToken::new());
        let mut reader = sender.subscribe(&shutdown);
        let sent = i64::try_from(KEPT_EVENTS).unwrap() + 5;
        for n in 0..sent {
            sender.send(event(n));
        }
        assert_eq!(
            reader.next().await.unwrap(),
            Err(Error::DataLoss("5 container events were missed".to_owned()))
        );
        assert_eq!(reader.next().await.unwrap().unwrap().created_at, 5);
    }
}
