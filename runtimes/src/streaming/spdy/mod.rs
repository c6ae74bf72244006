//! SPDY/3.1, as far as Kubernetes uses it: streams of bytes with headers over one connection, for either end.
//!
//! The codec ([`frame`], [`headers`]) and the bookkeeping of a connection ([`state`]) are pure; [`connection`] moves bytes.
//! Written here because no maintained crate has it.
//!
//! # Guarantees
//! - What a peer sends is bounded before it is kept: control frames, headers after inflation, streams, bytes that wait.
//! - A malformed frame ends the connection with an error, never with a panic.
//!
//! # Flow control
//! Go's implementation (`moby/spdystream`: kubectl, the API server, containerd) never opens a window again, so a sender that
//! kept to the specification would stop after 64 KiB. A peer is held to have flow control once it has sent a window of its
//! own (`SETTINGS` or `WINDOW_UPDATE`); then its windows are respected per stream. To every other peer the transport's own
//! back-pressure is all there is: we stop reading while a stream holds more than its window of unread bytes.
//!
//! Source: SPDY Protocol, draft 3.1.

mod connection;
mod dictionary;
mod frame;
mod headers;
mod state;
mod stream;

pub use connection::{Connection, Driver, Offer, connect};
pub use frame::{Decoder, Frame, FrameEncoder, RstStatus, encode};
pub use headers::Headers;
pub use stream::Stream;

/// Which end of a connection this is. The client's streams have odd numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It asked for the upgrade.
    Client,
    /// It granted it.
    Server,
}

/// Why a SPDY connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer sent what the protocol does not allow.
    #[error("spdy: {0}")]
    Protocol(&'static str),
    /// The connection broke.
    #[error("spdy: connection broke")]
    Io(#[from] std::io::Error),
    /// Nobody sent anything for so long.
    #[error("spdy: idle for {} s", .0.as_secs())]
    Idle(std::time::Duration),
    /// The connection has ended; no stream can be opened.
    #[error("spdy: the connection has ended")]
    Closed,
}
