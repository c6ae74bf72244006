//! Bytes through: between two connections, and between a connection and the messages of a WebSocket.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::{Error, Io};

/// Moved at once, in bytes.
const PIECE_BYTES: usize = 32 * 1024;
/// After one direction has ended, the other has so long without a byte.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(60);

/// When something last moved, in either direction.
#[derive(Debug)]
struct Activity(std::sync::Mutex<Instant>);

impl Activity {
    fn new() -> Self {
        Self(std::sync::Mutex::new(Instant::now()))
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    async fn idle(&self, limit: Duration) {
        loop {
            let until = *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Copies both ways until both have ended, or nothing has moved for `idle`.
///
/// # Errors
/// Either side broke, or the idle time is over.
pub async fn both_ways<A: Io, B: Io>(one: A, two: B, idle: Duration) -> Result<(), Error> {
    let activity = Activity::new();
    let (one_read, one_write) = tokio::io::split(one);
    let (two_read, two_write) = tokio::io::split(two);
    let (there, back) = (copy(one_read, two_write, &activity), copy(two_read, one_write, &activity));
    tokio::pin!(there, back);
    tokio::select! {
        ended = &mut there => ended?,
        ended = &mut back => {
            ended?;
            return tokio::select! {
                ended = there => Ok(ended?),
                () = activity.idle(HALF_CLOSED_IDLE) => Ok(()),
            };
        }
        () = activity.idle(idle) => return Err(Error::Idle(idle)),
    }
    tokio::select! {
        ended = back => Ok(ended?),
        () = activity.idle(HALF_CLOSED_IDLE) => Ok(()),
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

/// The same with a WebSocket whose binary messages are the pieces of one stream of bytes. Source: KEP-4006, port forwarding.
///
/// # Errors
/// Either side broke, or the idle time is over.
pub async fn websocket<A: Io, B: Io>(
    socket: WebSocketStream<A>,
    other: B,
    idle: Duration,
) -> Result<(), Error> {
    let activity = Activity::new();
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(other);
    let there = async {
        while let Some(message) = source.next().await {
            let bytes = match message {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Close(_)) | Err(WsError::ConnectionClosed) => break,
                Ok(_) => continue,
                Err(error) => return Err(Error::from(error)),
            };
            activity.note();
            write.write_all(&bytes).await?;
            write.flush().await?;
        }
        Ok(write.shutdown().await?)
    };
    let back = async {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = read.read(&mut piece).await?;
            if length == 0 {
                let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                return match sink.send(Message::Close(Some(close))).await {
                    Ok(()) | Err(WsError::ConnectionClosed) => Ok(()),
                    Err(error) => Err(Error::from(error)),
                };
            }
            activity.note();
            sink.send(Message::Binary(piece[..length].to_vec().into())).await?;
        }
    };
    tokio::pin!(there, back);
    tokio::select! {
        ended = &mut there => {
            ended?;
            tokio::select! { ended = back => ended, () = activity.idle(HALF_CLOSED_IDLE) => Ok(()) }
        }
        ended = &mut back => ended,
        () = activity.idle(idle) => Err(Error::Idle(idle)),
    }
}
