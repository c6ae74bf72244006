//! What can go wrong with a stream.

use super::spdy;

/// Why streaming did not begin, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is not one for an upgrade that is known here.
    #[error("unable to upgrade: {0}")]
    Upgrade(String),
    /// The client speaks none of the protocols that are spoken here.
    #[error(
        "unable to upgrade: unable to negotiate protocol: client supports {client:?}, server accepts {server:?}"
    )]
    Negotiate {
        /// The client's.
        client: Vec<String>,
        /// Ours.
        server: Vec<String>,
    },
    /// The address of a runtime's streaming server is not one that may be connected to.
    #[error("streaming URL {url:?} of the runtime is refused: {why}")]
    Address {
        /// The URL.
        url: String,
        /// Why.
        why: &'static str,
    },
    /// The streaming server cannot be reached.
    #[error("cannot connect to the runtime's streaming server")]
    Connect(#[source] std::io::Error),
    /// The streaming server does not speak HTTP.
    #[error("the runtime's streaming server broke off")]
    Http(#[source] hyper::Error),
    /// The streams that were asked for did not come in time.
    #[error("timed out waiting for client to create streams")]
    Creation,
    /// SPDY.
    #[error(transparent)]
    Spdy(#[from] spdy::Error),
    /// WebSocket.
    #[error("websocket: {0}")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// Reading or writing failed.
    #[error("stream broke")]
    Io(#[from] std::io::Error),
    /// Nothing moved for so long.
    #[error("idle for {} s", .0.as_secs())]
    Idle(std::time::Duration),
}

impl From<tokio_tungstenite::tungstenite::Error> for Error {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}
