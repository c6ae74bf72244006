//! Standard streams of an instance that are a client's, and not the container's log.
//!
//! What a guest writes waits in a [`Pipe`] of bounded size, which its session empties; nothing that was written is lost when
//! the guest ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use wasmtime_wasi::cli::{AsyncStdinStream, IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};
use wherry_runtimes::streaming::BoxRead;

/// Bytes of one output that wait for its reader.
const PIPE_BYTES: usize = 64 * 1024;

/// Which standard streams an instance has; without any, its output is logged and its input is empty.
#[derive(Clone, Default)]
pub(crate) struct Stdio {
    /// Taken by the one instance that reads it.
    pub(crate) input: Option<Arc<Mutex<Option<BoxRead>>>>,
    pub(crate) outputs: Option<Outputs>,
    /// Whether the guest is told that these streams are a terminal.
    pub(crate) is_terminal: bool,
}

/// Both outputs of an instance. A terminal has one for both.
#[derive(Clone)]
pub(crate) struct Outputs {
    pub(crate) stdout: Pipe,
    pub(crate) stderr: Pipe,
}

impl Stdio {
    /// Input for one instance.
    pub(crate) fn input(from: BoxRead) -> Option<Arc<Mutex<Option<BoxRead>>>> {
        Some(Arc::new(Mutex::new(Some(from))))
    }

    /// The input, if there is one and nobody has taken it.
    pub(crate) fn take_input(&self) -> Option<GuestInput> {
        let input = self.input.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(GuestInput { from: AsyncStdinStream::new(input), is_terminal: self.is_terminal })
    }

    /// The outputs as an instance gets them.
    pub(crate) fn guest_outputs(&self) -> Option<(PipeOutput, PipeOutput)> {
        let outputs = self.outputs.as_ref()?;
        let output = |pipe: &Pipe| PipeOutput { pipe: pipe.clone(), is_terminal: self.is_terminal };
        Some((output(&outputs.stdout), output(&outputs.stderr)))
    }
}

/// A client's input, as the guest reads it.
pub(crate) struct GuestInput {
    from: AsyncStdinStream,
    is_terminal: bool,
}

impl IsTerminal for GuestInput {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl StdinStream for GuestInput {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        self.from.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        self.from.p2_stream()
    }
}

/// Bytes on their way from a guest to whoever reads them. Clones are the same pipe.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    length: usize,
    is_ended: bool,
    is_broken: bool,
    reader: Option<Waker>,
    writers: Vec<Waker>,
}

impl Waiting {
    fn wake_writers(&mut self) {
        self.writers.drain(..).for_each(Waker::wake);
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more will be written; the reader gets what is there.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.is_ended = true;
        waiting.wake_reader();
        waiting.wake_writers();
    }

    /// Puts bytes in, whether there is room or not: for the few that the host itself has to say.
    pub(crate) fn put(&self, bytes: Bytes) {
        let mut waiting = self.lock();
        if !(bytes.is_empty() || waiting.is_broken || waiting.is_ended) {
            waiting.length += bytes.len();
            waiting.pieces.push_back(bytes);
            waiting.wake_reader();
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        std::future::poll_fn(|cx| {
            let mut waiting = self.lock();
            if let Some(piece) = waiting.pieces.pop_front() {
                waiting.length -= piece.len();
                waiting.wake_writers();
                return Poll::Ready(Some(piece));
            }
            if waiting.is_ended {
                return Poll::Ready(None);
            }
            waiting.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Writes everything to `to`, each piece changed by `change`, and ends it. When `to` breaks, so does the pipe.
    pub(crate) async fn pour(&self, to: Option<impl AsyncWrite + Unpin>, change: impl Fn(Bytes) -> Bytes) {
        let Some(mut to) = to else { return self.discard().await };
        while let Some(piece) = self.next().await {
            let written = async {
                to.write_all(&change(piece)).await?;
                to.flush().await
            };
            if written.await.is_err() {
                self.break_off();
                return;
            }
        }
        let _ = to.shutdown().await;
    }

    async fn discard(&self) {
        while self.next().await.is_some() {}
    }

    fn break_off(&self) {
        let mut waiting = self.lock();
        waiting.is_broken = true;
        waiting.pieces.clear();
        waiting.length = 0;
        waiting.wake_writers();
    }

    /// Ready with the room there is: more than nothing, or a pipe that takes nothing any more.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<StreamResult<usize>> {
        let mut waiting = self.lock();
        if waiting.is_broken || waiting.is_ended {
            return Poll::Ready(Err(StreamError::Closed));
        }
        match PIPE_BYTES.saturating_sub(waiting.length) {
            0 => {
                waiting.writers.push(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }
}

/// An output of a guest that ends in a pipe.
#[derive(Clone)]
pub(crate) struct PipeOutput {
    pipe: Pipe,
    is_terminal: bool,
}

impl IsTerminal for PipeOutput {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl StdoutStream for PipeOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for PipeOutput {
    async fn ready(&mut self) {
        let _ = std::future::poll_fn(|cx| self.pipe.poll_room(cx)).await;
    }
}

impl OutputStream for PipeOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.pipe.lock().is_broken {
            return Err(StreamError::Closed);
        }
        // No more than was offered by `check_write`: the caller holds to that, and several handles go over it by little.
        self.pipe.put(bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let waiting = self.pipe.lock();
        if waiting.is_broken || waiting.is_ended {
            return Err(StreamError::Closed);
        }
        Ok(PIPE_BYTES.saturating_sub(waiting.length))
    }
}

impl AsyncWrite for PipeOutput {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match std::task::ready!(self.pipe.poll_room(cx)) {
            Ok(room) => {
                let taken = bytes.len().min(room);
                self.pipe.put(Bytes::copy_from_slice(&bytes[..taken]));
                Poll::Ready(Ok(taken))
            }
            Err(_) => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_holds_its_writer_back_and_loses_nothing_at_the_end() {
        let pipe = Pipe::default();
        let mut output = PipeOutput { pipe: pipe.clone(), is_terminal: false };
        let sent = vec![7; PIPE_BYTES * 5 + 3];
        let writing = async {
            output.write_all(&sent).await.unwrap();
            assert!(pipe.lock().length <= PIPE_BYTES);
            pipe.end();
        };
        let mut got = Vec::new();
        let ((), ()) = tokio::join!(writing, pipe.pour(Some(&mut got), |bytes| bytes));
        assert!(got == sent);
        assert!(output.write_all(b"late").await.is_err());
    }

    #[tokio::test]
    async fn a_reader_that_goes_breaks_the_pipe() {
        let pipe = Pipe::default();
        let (near, far) = tokio::io::duplex(8);
        drop(far);
        pipe.put(Bytes::from_static(b"x"));
        pipe.pour(Some(near), |bytes| bytes).await;
        let mut output = PipeOutput { pipe, is_terminal: false };
        assert!(matches!(output.check_write(), Err(StreamError::Closed)));
        output.ready().await;
    }
}
