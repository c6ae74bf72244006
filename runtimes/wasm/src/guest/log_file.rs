//! A container's log file in CRI's format, and the streams that guests write to.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::broadcast;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wherry_runtimes::log::{LineCutter, Stream};

/// Bytes that a guest may write at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Pieces of output that wait for an attached client. One that falls further behind misses some: a guest waits for nobody.
const TAPPED_PIECES: usize = 64;

/// The log of one container; without a path what is written is dropped.
///
/// The file is opened at the first write and closed by nobody writing for long or by rotation, so an idle guest that
/// logs nothing holds no descriptor.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: Option<PathBuf>,
    open: Mutex<Option<File>>,
    /// Whoever watches the output as it is written; made for the first one.
    taps: OnceLock<broadcast::Sender<(Stream, Bytes)>>,
}

impl LogFile {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, open: Mutex::default(), taps: OnceLock::new() }
    }

    /// Makes the file, empty if it is new, so that it can be followed from the start.
    pub(crate) fn create(&self) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        open(path).map(drop)
    }

    /// Goes on in a new file under the same path, after the old one was renamed.
    pub(crate) fn reopen(&self) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = open(path)?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// The output from now on, as guests write it.
    pub(crate) fn tap(&self) -> broadcast::Receiver<(Stream, Bytes)> {
        self.taps.get_or_init(|| broadcast::Sender::new(TAPPED_PIECES)).subscribe()
    }

    fn show(&self, stream: Stream, bytes: &[u8]) {
        if let Some(taps) = self.taps.get()
            && taps.receiver_count() > 0
        {
            let _ = taps.send((stream, Bytes::copy_from_slice(bytes)));
        }
    }

    /// Lets go of the descriptor.
    pub(crate) fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One line of the runtime itself, on standard error.
    pub(crate) fn line(&self, text: &str) {
        let (mut cutter, mut entries) = (LineCutter::new(Stream::Stderr), Vec::new());
        let now = SystemTime::now();
        cutter.write(now, text.trim_end().as_bytes(), &mut entries);
        cutter.finish(now, &mut entries);
        self.append(&entries);
    }

    /// Entries go to the page cache in one write, so they never mix. A disk that takes no more loses lines, not guests.
    fn append(&self, entries: &[u8]) {
        let (false, Some(path)) = (entries.is_empty(), &self.path) else { return };
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            match open(path) {
                Ok(file) => *slot = Some(file),
                Err(error) => {
                    tracing::warn!(path = %path.display(), "cannot open container log: {error}");
                    return;
                }
            }
        }
        if let Some(file) = slot.as_mut()
            && let Err(error) = file.write_all(entries)
        {
            tracing::warn!(path = %path.display(), "cannot write container log: {error}");
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // What guests say is not for every user of the machine.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// One of the two output streams of one instance. All handles to it share the unfinished line.
#[derive(Clone)]
pub(crate) struct GuestOutput(Arc<Output>);

struct Output {
    log: Arc<LogFile>,
    stream: Stream,
    cutter: Mutex<LineCutter>,
}

impl Drop for Output {
    /// The last line, when it did not end in a newline.
    fn drop(&mut self) {
        let mut entries = Vec::new();
        self.cutter.get_mut().unwrap_or_else(PoisonError::into_inner).finish(SystemTime::now(), &mut entries);
        self.log.append(&entries);
    }
}

impl GuestOutput {
    pub(crate) fn new(log: &Arc<LogFile>, stream: Stream) -> Self {
        Self(Arc::new(Output { log: Arc::clone(log), stream, cutter: Mutex::new(LineCutter::new(stream)) }))
    }

    fn put(&self, bytes: &[u8]) {
        let mut entries = Vec::new();
        let mut cutter = self.0.cutter.lock().unwrap_or_else(PoisonError::into_inner);
        cutter.write(SystemTime::now(), bytes, &mut entries);
        self.0.log.append(&entries);
        drop(cutter);
        self.0.log.show(self.0.stream, bytes);
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let taken = bytes.len().min(WRITE_BYTES);
        self.put(&bytes[..taken]);
        Poll::Ready(Ok(taken))
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

    #[test]
    fn instances_write_whole_lines_and_rotation_loses_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/0.log");
        let log = Arc::new(LogFile::new(Some(path.clone())));
        log.create().unwrap();
        let (one, two) = (GuestOutput::new(&log, Stream::Stdout), GuestOutput::new(&log, Stream::Stderr));
        one.put(b"half ");
        two.put(b"other\n");
        one.put(b"line\n");
        let rotated = dir.path().join("pod/0.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        one.put(b"still old\n");
        log.reopen().unwrap();
        two.put(b"unfinished");
        drop(two);
        let text = |path: &Path| -> Vec<String> {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
        };
        assert_eq!(text(&rotated), ["stderr F other", "stdout F half line", "stdout F still old"]);
        assert_eq!(text(&path), ["stderr F unfinished"]);
    }
}
