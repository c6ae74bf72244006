//! Channels over a WebSocket: the first byte of a message is the number of its channel.
//!
//! Source: `k8s.io/apimachinery/pkg/util/httpstream/wsstream`; `v5.channel.k8s.io` adds that a message `[255, n]` says
//! that nothing more will come on channel n.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::io::ReaderStream;

use super::{Error, Io};

/// The largest message, in bytes. Clients send some 32 KiB at once.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that wait in one direction of a channel.
const CHANNEL_BYTES: usize = 64 * 1024;
/// The largest piece that we send.
const PIECE_BYTES: usize = 32 * 1024;
/// The channel on which ends of channels are told.
const CLOSE: u8 = 255;
/// A client that was told goodbye has so long to say it too.
const LINGER: Duration = Duration::from_secs(2);

/// The server's end of a WebSocket over an upgraded connection.
pub async fn websocket<T: Io>(io: T) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        .read_buffer_size(PIECE_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// So many channels, and the future that moves their bytes.
///
/// The future ends when every channel was dropped and all was sent, or when the client has gone. Messages for a channel
/// that was dropped are thrown away.
pub fn channels<T: Io>(
    socket: WebSocketStream<T>,
    count: u8,
    first: Vec<Message>,
) -> (Vec<DuplexStream>, impl Future<Output = Result<(), Error>> + Send) {
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..count).map(|_| tokio::io::duplex(CHANNEL_BYTES)).unzip();
    (theirs, drive(socket, ours, first))
}

async fn drive<T: Io>(
    socket: WebSocketStream<T>,
    ends: Vec<DuplexStream>,
    first: Vec<Message>,
) -> Result<(), Error> {
    let (mut sink, source) = socket.split();
    let (from_session, to_session): (Vec<_>, Vec<_>) = ends.into_iter().map(tokio::io::split).unzip();
    let sending = async {
        for message in first {
            sink.send(message).await?;
        }
        let mut messages = messages(from_session);
        while let Some(message) = messages.next().await {
            sink.send(message).await?;
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(close))).await
    };
    let receiving = receive(source, to_session.into_iter().map(Some).collect());
    tokio::pin!(sending, receiving);
    tokio::select! {
        sent = &mut sending => {
            let _ = tokio::time::timeout(LINGER, receiving).await;
            match sent {
                Ok(()) | Err(WsError::ConnectionClosed) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        received = &mut receiving => received,
    }
}

/// What is written to the channels, as messages.
fn messages(channels: Vec<ReadHalf<DuplexStream>>) -> impl Stream<Item = Message> + Send + Unpin {
    let numbered = channels.into_iter().enumerate().map(|(number, channel)| {
        let number = u8::try_from(number).unwrap_or(CLOSE);
        ReaderStream::with_capacity(channel, PIECE_BYTES)
            .take_while(|read| std::future::ready(read.is_ok()))
            .filter_map(move |read| std::future::ready(read.ok().map(|bytes| message(number, &bytes))))
    });
    stream::select_all(numbered)
}

/// One message of a channel.
pub fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut framed = BytesMut::with_capacity(bytes.len() + 1);
    framed.put_u8(channel);
    framed.put_slice(bytes);
    Message::Binary(framed.freeze())
}

async fn receive<T: Io>(
    mut source: SplitStream<WebSocketStream<T>>,
    mut channels: Vec<Option<WriteHalf<DuplexStream>>>,
) -> Result<(), Error> {
    while let Some(message) = source.next().await {
        let bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            // Some clients send text.
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Close(_)) | Err(WsError::ConnectionClosed) => return Ok(()),
            Ok(_) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some((number, bytes)) = bytes.split_first() else { continue };
        if *number == CLOSE {
            let closed = bytes.first().and_then(|number| channels.get_mut(usize::from(*number)));
            if let Some(mut end) = closed.and_then(Option::take) {
                let _ = end.shutdown().await;
            }
            continue;
        }
        let Some(channel) = channels.get_mut(usize::from(*number)) else { continue };
        if let Some(end) = channel
            && end.write_all(bytes).await.is_err()
        {
            *channel = None;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn client(io: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(io, Role::Client, None).await
    }

    #[tokio::test]
    async fn channels_carry_bytes_and_close_one_by_one() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut channels, driver) = channels(websocket(far).await, 3, vec![message(1, b"")]);
        let driver = tokio::spawn(driver);
        let mut client = client(near).await;
        assert_eq!(client.next().await.unwrap().unwrap(), message(1, b""));
        client.send(message(0, b"to be ")).await.unwrap();
        client.send(Message::Text("\0read".into())).await.unwrap();
        client.send(message(77, b"nowhere")).await.unwrap();
        client.send(message(CLOSE, &[0])).await.unwrap();
        let mut got = String::new();
        channels[0].read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "to be read");
        client.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"p")));
        channels[2].write_all(b"out").await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), message(2, b"out"));
        drop(channels);
        assert!(matches!(client.next().await.unwrap().unwrap(), Message::Close(Some(_))));
        drop(client);
        driver.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_channels() {
        let (near, far) = tokio::io::duplex(1024);
        let (mut channels, driver) = channels(websocket(far).await, 1, Vec::new());
        drop(near);
        let mut bytes = [0; 8];
        let (ended, read) = tokio::join!(driver, channels[0].read(&mut bytes));
        assert!(ended.is_err() || read.unwrap() == 0);
    }
}
