//! A body of shared slices whose length is known.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Slices, written one after the other.
#[derive(Debug)]
pub(super) struct Slices {
    rest: VecDeque<Bytes>,
    remaining_bytes: u64,
}

impl Slices {
    /// A body of these slices.
    pub(super) fn new(slices: Vec<Bytes>) -> Self {
        let remaining_bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        Self { rest: slices.into(), remaining_bytes }
    }
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.rest.pop_front().map(|slice| {
            self.remaining_bytes -= slice.len() as u64;
            Ok(Frame::data(slice))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining_bytes)
    }
}
