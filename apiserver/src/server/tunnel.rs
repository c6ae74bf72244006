//! A connection that became a stream: bytes both ways, until both have ended or nothing moves for long.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Nothing moves for so long: the stream is over. Source: the kubelet's `streamingConnectionIdleTimeout`.
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// After one direction has ended, the other has so long without a byte.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);
/// Moved at once, in bytes.
const PIECE_BYTES: usize = 32 * 1024;

/// When something last moved.
struct Activity(Mutex<Instant>);

impl Activity {
    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn idle(&self, limit: Duration) {
        loop {
            let until = self.at() + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Copies both ways until both directions have ended.
///
/// *Cancellation*: dropping the future drops both connections.
pub(super) async fn both_ways<A, B>(client: A, node: B)
where
    A: AsyncRead + AsyncWrite + Send,
    B: AsyncRead + AsyncWrite + Send,
{
    both_ways_within(client, node, IDLE).await;
}

async fn both_ways_within<A, B>(client: A, node: B, idle: Duration)
where
    A: AsyncRead + AsyncWrite + Send,
    B: AsyncRead + AsyncWrite + Send,
{
    let activity = Activity(Mutex::new(Instant::now()));
    let (client_read, client_write) = tokio::io::split(client);
    let (node_read, node_write) = tokio::io::split(node);
    let there = copy(client_read, node_write, &activity);
    let back = copy(node_read, client_write, &activity);
    tokio::pin!(there, back);
    let (ended, rest): (_, std::pin::Pin<&mut (dyn Future<Output = std::io::Result<()>> + Send)>) = tokio::select! {
        ended = &mut there => (ended, back),
        ended = &mut back => (ended, there),
        () = activity.idle(idle) => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a stream to a node broke");
        return;
    }
    tokio::select! {
        _ = rest => {}
        () = activity.idle(HALF_CLOSED_IDLE) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        activity.note();
        to.write_all(&piece[..length]).await?;
        to.flush().await?;
        activity.note();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_half_that_has_ended_leaves_the_other_open() {
        let ((mut client, near), (mut node, far)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = String::new();
            node.read_to_string(&mut asked).await.unwrap();
            node.write_all(b"answer").await.unwrap();
            drop(node);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            (asked, answer)
        };
        let ((), seen) = tokio::join!(both_ways(near, far), talk);
        assert_eq!(seen, ("question".to_owned(), "answer".to_owned()));
    }

    #[tokio::test]
    async fn silence_is_not_waited_for_for_ever() {
        let ((_client, near), (_node, far)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        both_ways_within(near, far, Duration::from_millis(20)).await;
    }
}
