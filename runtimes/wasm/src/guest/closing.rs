//! Closing a listening socket without losing a connection that the kernel has accepted for us.
//!
//! The kernel resets what waits in the queue of a listener that closes, although its clients are connected and may have
//! sent a request. So new connections are refused entry first, then the queue is emptied, then the socket closes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};

/// Handshakes that had begun are over after so long; they take microseconds on one machine.
const HANDSHAKE: Duration = Duration::from_micros(300);

/// Drops segments with SYN, which begin a connection, and lets all others through. The client tries again, and finds the
/// socket closed. Source: classic BPF as of `linux/filter.h`; a TCP socket's filter sees the segment from its header on.
const NO_NEW_CONNECTIONS: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),       // A = flags (BPF_LD | BPF_B | BPF_ABS)
    SockFilter::new(0x54, 0, 0, 0x02),     // A &= SYN (BPF_ALU | BPF_AND | BPF_K)
    SockFilter::new(0x15, 0, 1, 0),        // is it 0? (BPF_JMP | BPF_JEQ | BPF_K)
    SockFilter::new(0x06, 0, 0, u32::MAX), // let it through (BPF_RET | BPF_K)
    SockFilter::new(0x06, 0, 0, 0),        // drop it
];

/// Closes `listener`; what had connected by then is returned.
pub(super) async fn close(listener: TcpListener) -> Vec<TcpStream> {
    if let Err(error) = SockRef::from(&listener).attach_filter(&NO_NEW_CONNECTIONS) {
        // Without it some microseconds are left in which a connection may be reset.
        tracing::debug!("cannot attach a filter to a listening socket: {error}");
    }
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let mut streams = Vec::new();
    accept_all(&listener, &mut streams);
    tokio::time::sleep(HANDSHAKE).await;
    accept_all(&listener, &mut streams);
    streams
}

/// Takes everything out of the queue, without waiting.
fn accept_all(listener: &std::net::TcpListener, streams: &mut Vec<TcpStream>) {
    while let Ok(stream) = accept(listener) {
        streams.push(stream);
    }
}

fn accept(listener: &std::net::TcpListener) -> io::Result<TcpStream> {
    let (stream, _): (_, SocketAddr) = listener.accept()?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_has_connected_is_kept_and_who_comes_later_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for number in 0..20_u8 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&[number]).await.unwrap();
            clients.push(client);
        }
        let mut streams = close(listener).await;
        assert_eq!(streams.len(), 20);
        for (number, stream) in (0..).zip(&mut streams) {
            assert_eq!(stream.read_u8().await.unwrap(), number);
        }
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn nobody_who_connected_is_reset_while_the_socket_closes() {
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let clients = tokio::task::spawn_blocking(move || {
                let mut connected = Vec::new();
                while let Ok(client) =
                    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50))
                {
                    connected.push(client);
                    if connected.len() > 2000 {
                        break;
                    }
                }
                connected
            });
            tokio::time::sleep(Duration::from_micros(500)).await;
            let streams = close(listener).await;
            let clients = clients.await.unwrap();
            assert_eq!(streams.len(), clients.len());
        }
    }
}
