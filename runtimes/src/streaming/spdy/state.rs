//! What both directions of a connection and its streams share, and what each frame changes in it. No I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::frame::{Frame, FrameEncoder, MAX_DATA_BYTES, RstStatus, encode};
use super::{Error, Headers, Role};

/// Unread bytes that a stream may hold, and the window that it announces.
pub(super) const WINDOW_BYTES: u32 = 256 * 1024;
/// A stream's window until its owner says otherwise. Source: SPDY Protocol, draft 3.1, section 2.6.8.
const DEFAULT_WINDOW_BYTES: u32 = 64 * 1024;
/// Streams wait to write while so much waits to be sent.
const FULL_BYTES: usize = 256 * 1024;
/// A peer that makes us answer this much without reading any of it is not served any longer.
const MAX_OUTGOING_BYTES: usize = 4 * 1024 * 1024;
/// Open streams of one connection. A forwarded TCP connection has two.
const MAX_STREAMS: usize = 2048;
/// Offers that nobody has taken yet.
const MAX_OFFERS: usize = 256;

/// The one lock of a connection; held for moments, never across an await.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn new(role: Role) -> Result<Self, Error> {
        let mut state = State {
            role,
            encoder: FrameEncoder::new()?,
            outgoing: BytesMut::new(),
            streams: HashMap::new(),
            offers: VecDeque::new(),
            next_id: if role == Role::Client { 1 } else { 2 },
            last_peer_id: 0,
            peer_window: None,
            consumed: 0,
            full: None,
            is_closing: false,
            is_ended: false,
            last_active: Instant::now(),
            writer: None,
            reader: None,
            accepter: None,
        };
        state.send(&Frame::Settings { initial_window: Some(WINDOW_BYTES) })?;
        Ok(Self(Mutex::new(state)))
    }

    /// Every change under the lock is complete at each step, so a poisoned lock says nothing about the state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct State {
    role: Role,
    encoder: FrameEncoder,
    outgoing: BytesMut,
    streams: HashMap<u32, StreamState>,
    offers: VecDeque<(u32, Headers)>,
    next_id: u32,
    last_peer_id: u32,
    /// The window of the peer's new streams, once it has shown that it has windows at all.
    peer_window: Option<u32>,
    /// Bytes of all streams read since the last word about it.
    consumed: u32,
    /// A stream whose unread bytes keep the connection from being read.
    full: Option<u32>,
    is_closing: bool,
    is_ended: bool,
    last_active: Instant,
    writer: Option<Waker>,
    reader: Option<Waker>,
    accepter: Option<Waker>,
}

#[derive(Debug)]
struct StreamState {
    received: VecDeque<Bytes>,
    held: usize,
    consumed: u32,
    has_reply: bool,
    remote_fin: bool,
    local_fin: bool,
    is_reset: bool,
    send_window: i64,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamState {
    fn new(window: Option<u32>) -> Self {
        Self {
            received: VecDeque::new(),
            held: 0,
            consumed: 0,
            has_reply: false,
            remote_fin: false,
            local_fin: false,
            is_reset: false,
            send_window: i64::from(window.unwrap_or(DEFAULT_WINDOW_BYTES)),
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn broken() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the stream was reset")
}

fn lost() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the connection ended before the stream")
}

impl State {
    fn send(&mut self, frame: &Frame) -> Result<(), Error> {
        encode(frame, &mut self.encoder, &mut self.outgoing)?;
        wake(&mut self.writer);
        Ok(())
    }

    fn reset(&mut self, id: u32, status: RstStatus) -> Result<(), Error> {
        self.send(&Frame::RstStream { id, status: status.code() })
    }

    /// When a byte last came or went.
    pub(super) fn last_active(&self) -> Instant {
        self.last_active
    }

    /// Bytes to send; `None` when nothing will follow.
    pub(super) fn poll_outgoing(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        if !self.outgoing.is_empty() {
            let bytes = self.outgoing.split().freeze();
            self.last_active = Instant::now();
            for stream in self.streams.values_mut() {
                wake(&mut stream.writer);
            }
            return Poll::Ready(Some(bytes));
        }
        if self.is_closing || self.is_ended {
            return Poll::Ready(None);
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when more may be read.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(stream) = self.full.and_then(|id| self.streams.get(&id)) else {
            self.full = None;
            return Poll::Ready(());
        };
        if self.is_closing || stream.held <= WINDOW_BYTES as usize / 2 {
            self.full = None;
            return Poll::Ready(());
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Does what a frame says.
    pub(super) fn handle(&mut self, frame: Frame) -> Result<(), Error> {
        self.last_active = Instant::now();
        if self.outgoing.len() > MAX_OUTGOING_BYTES {
            return Err(Error::Protocol("the peer does not read"));
        }
        match frame {
            Frame::SynStream { id, headers, fin, unidirectional } => {
                self.offered(id, headers, fin, unidirectional)
            }
            Frame::SynReply { id, fin, .. } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.has_reply = true;
                    stream.remote_fin |= fin;
                    stream.wake();
                }
                Ok(())
            }
            Frame::Headers { id, fin, .. } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.remote_fin |= fin;
                    stream.wake();
                }
                Ok(())
            }
            Frame::RstStream { id, .. } => {
                self.offers.retain(|(offered, _)| *offered != id);
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.is_reset = true;
                    stream.wake();
                }
                Ok(())
            }
            Frame::Data { id, bytes, fin } => {
                self.data(id, bytes, fin);
                Ok(())
            }
            Frame::Settings { initial_window } => {
                if let Some(window) = initial_window {
                    self.set_peer_window(window);
                }
                Ok(())
            }
            Frame::WindowUpdate { id, delta } => {
                self.set_peer_window(self.peer_window.unwrap_or(DEFAULT_WINDOW_BYTES));
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.send_window = stream.send_window.saturating_add(i64::from(delta));
                    wake(&mut stream.writer);
                }
                Ok(())
            }
            Frame::Ping { id } => {
                let is_own = id % 2 == u32::from(self.role == Role::Client);
                if is_own { Ok(()) } else { self.send(&Frame::Ping { id }) }
            }
            // Streams that are there go on; whoever owns the connection sees them end.
            Frame::GoAway { .. } => Ok(()),
        }
    }

    fn offered(&mut self, id: u32, headers: Headers, fin: bool, unidirectional: bool) -> Result<(), Error> {
        let is_peers = id % 2 == u32::from(self.role == Role::Server);
        if id == 0 || !is_peers || id <= self.last_peer_id {
            return Err(Error::Protocol("wrong stream id"));
        }
        self.last_peer_id = id;
        if self.is_closing || self.streams.len() >= MAX_STREAMS || self.offers.len() >= MAX_OFFERS {
            return self.reset(id, RstStatus::RefusedStream);
        }
        let mut stream = StreamState::new(self.peer_window);
        stream.remote_fin = fin;
        stream.local_fin = unidirectional;
        self.streams.insert(id, stream);
        self.offers.push_back((id, headers));
        wake(&mut self.accepter);
        Ok(())
    }

    fn data(&mut self, id: u32, bytes: Bytes, fin: bool) {
        // After a reset, data may be on its way still.
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.remote_fin || stream.is_reset || self.is_closing {
            return;
        }
        if !bytes.is_empty() {
            stream.held += bytes.len();
            stream.received.push_back(bytes);
        }
        stream.remote_fin |= fin;
        wake(&mut stream.reader);
        if stream.held > WINDOW_BYTES as usize {
            self.full = Some(id);
        }
    }

    fn set_peer_window(&mut self, window: u32) {
        let before = self.peer_window.unwrap_or(DEFAULT_WINDOW_BYTES);
        let change = i64::from(window) - i64::from(before);
        self.peer_window = Some(window);
        for stream in self.streams.values_mut() {
            stream.send_window = stream.send_window.saturating_add(change);
            wake(&mut stream.writer);
        }
    }

    /// The next stream that the peer opened; `None` when there will be none.
    pub(super) fn poll_offer(&mut self, cx: &Context<'_>) -> Poll<Option<(u32, Headers)>> {
        if let Some(offer) = self.offers.pop_front() {
            return Poll::Ready(Some(offer));
        }
        if self.is_ended || self.is_closing {
            return Poll::Ready(None);
        }
        self.accepter = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says yes to a stream that was offered.
    pub(super) fn accept(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.has_reply = true;
            let reply = Frame::SynReply { id, headers: Headers::default(), fin: false };
            // Empty headers always deflate; if they ever do not, the peer gives up on the stream.
            if let Err(error) = self.send(&reply) {
                tracing::debug!(%error, "a stream could not be accepted");
            }
        }
    }

    /// Says no to it.
    pub(super) fn refuse(&mut self, id: u32) {
        if self.streams.remove(&id).is_some() && !self.is_ended {
            let _ = self.reset(id, RstStatus::RefusedStream);
        }
    }

    /// Opens a stream.
    pub(super) fn open(&mut self, headers: Headers) -> Result<u32, Error> {
        if self.is_closing || self.is_ended || self.next_id > 0x7fff_fff0 {
            return Err(Error::Closed);
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(Error::Protocol("too many streams"));
        }
        let id = self.next_id;
        self.send(&Frame::SynStream { id, headers, fin: false, unidirectional: false })?;
        self.next_id += 2;
        self.streams.insert(id, StreamState::new(self.peer_window));
        Ok(id)
    }

    /// Ready when the peer has said yes or no.
    pub(super) fn poll_reply(&mut self, id: u32, cx: &Context<'_>) -> Poll<std::io::Result<()>> {
        let is_ended = self.is_ended;
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(lost())) };
        if stream.has_reply {
            return Poll::Ready(Ok(()));
        }
        if stream.is_reset {
            return Poll::Ready(Err(broken()));
        }
        if is_ended {
            return Poll::Ready(Err(lost()));
        }
        stream.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Bytes of a stream, at most `limit`; empty at its end.
    pub(super) fn poll_read(
        &mut self,
        id: u32,
        limit: usize,
        cx: &Context<'_>,
    ) -> Poll<std::io::Result<Bytes>> {
        let is_over = self.is_ended || self.is_closing;
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Ok(Bytes::new())) };
        if let Some(mut first) = stream.received.pop_front() {
            let piece = first.split_to(limit.min(first.len()));
            if !first.is_empty() {
                stream.received.push_front(first);
            }
            stream.held -= piece.len();
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            stream.consumed = stream.consumed.saturating_add(length);
            self.consumed = self.consumed.saturating_add(length);
            if stream.held <= WINDOW_BYTES as usize / 2 {
                wake(&mut self.reader);
            }
            self.announce(id);
            return Poll::Ready(Ok(piece));
        }
        // Go's servers end a stream that is over by a reset: it is an end like any other.
        if stream.remote_fin || stream.is_reset {
            return Poll::Ready(Ok(Bytes::new()));
        }
        if is_over {
            return Poll::Ready(Err(lost()));
        }
        stream.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Opens the peer's windows again when half of one has been read. A peer without flow control is not told.
    fn announce(&mut self, id: u32) {
        if self.peer_window.is_none() || self.is_ended {
            return;
        }
        let of_stream = self.streams.get_mut(&id).filter(|stream| stream.consumed >= WINDOW_BYTES / 2);
        let of_stream = of_stream.map(|stream| std::mem::take(&mut stream.consumed));
        let of_all = (self.consumed >= DEFAULT_WINDOW_BYTES / 2).then(|| std::mem::take(&mut self.consumed));
        for (id, delta) in [(id, of_stream), (0, of_all)] {
            if let Some(delta) = delta {
                let _ = self.send(&Frame::WindowUpdate { id, delta });
            }
        }
    }

    /// Sends the beginning of `bytes`; answers how many.
    pub(super) fn poll_write(
        &mut self,
        id: u32,
        bytes: &[u8],
        cx: &Context<'_>,
    ) -> Poll<std::io::Result<usize>> {
        let (is_full, is_over) = (self.outgoing.len() >= FULL_BYTES, self.is_ended || self.is_closing);
        let is_held_back = self.peer_window.is_some();
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(broken())) };
        if stream.is_reset || stream.local_fin {
            return Poll::Ready(Err(broken()));
        }
        if is_over {
            return Poll::Ready(Err(lost()));
        }
        let window = usize::try_from(stream.send_window).unwrap_or(0);
        if is_full || (is_held_back && window == 0) {
            stream.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut length = bytes.len().min(MAX_DATA_BYTES);
        if is_held_back {
            length = length.min(window);
        }
        stream.send_window -= i64::try_from(length).unwrap_or(i64::MAX);
        let data = Frame::Data { id, bytes: Bytes::copy_from_slice(&bytes[..length]), fin: false };
        Poll::Ready(self.send(&data).map(|()| length).map_err(std::io::Error::other))
    }

    /// Ready when what was written is with the transport.
    pub(super) fn poll_flush(&mut self, id: u32, cx: &Context<'_>) -> Poll<std::io::Result<()>> {
        if self.outgoing.is_empty() || self.is_ended {
            return Poll::Ready(Ok(()));
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing more will be written to the stream.
    pub(super) fn finish(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.local_fin || stream.is_reset {
            return;
        }
        stream.local_fin = true;
        if !self.is_ended {
            let _ = self.send(&Frame::Data { id, bytes: Bytes::new(), fin: true });
        }
    }

    /// Nobody has the stream any more.
    pub(super) fn forget(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if !(stream.is_reset || self.is_ended || stream.local_fin && stream.remote_fin) {
            let _ = self.reset(id, RstStatus::Cancel);
        }
        if self.full == Some(id) {
            wake(&mut self.reader);
        }
    }

    /// Says goodbye; what waits to be sent still is.
    pub(super) fn close(&mut self) {
        if !self.is_closing && !self.is_ended {
            let _ = self.send(&Frame::GoAway { last_id: self.last_peer_id, status: 0 });
        }
        self.is_closing = true;
        self.wake_all();
    }

    /// Nothing will come any more.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
        self.wake_all();
    }

    fn wake_all(&mut self) {
        wake(&mut self.writer);
        wake(&mut self.reader);
        wake(&mut self.accepter);
        self.streams.values_mut().for_each(StreamState::wake);
    }
}
