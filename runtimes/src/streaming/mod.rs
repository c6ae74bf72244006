//! Streams between a client and a pod: commands, attachment, forwarded ports.
//!
//! Protocol only; nothing here knows the kubelet. The kubelet's server proxies with it ([`dial`], [`remote_command`],
//! [`port_forward`], [`tunnel`]); a runtime serves with it ([`StreamingServer`]).
//!
//! A client comes over WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io`) or SPDY/3.1; what it asks for is the same, and
//! so are the types here: byte streams, whatever carries them.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming`, KEP-4006 (from SPDY to WebSocket).

pub mod channels;
pub mod dial;
mod error;
pub mod port_forward;
pub mod remote_command;
mod server;
pub mod spdy;
pub mod status;
pub mod terminal;
pub mod tunnel;
pub mod upgrade;

pub use error::Error;
pub use server::{Handler, StreamingServer};

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection or stream on which nothing moves ends after this. Source: the kubelet's
/// `streamingConnectionIdleTimeout`.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// A client has so long to open the streams that it asked for. Source: `DefaultStreamCreationTimeout`.
pub const CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Something to read from.
pub type BoxRead = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// Something to write to.
pub type BoxWrite = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// What an upgraded connection is.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}
