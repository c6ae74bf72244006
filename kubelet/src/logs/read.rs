//! Reading a container's log as `kubectl logs` wants it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use wherry_runtimes::files::open_file;

use super::entry::Entry;
use super::rotate::rotated_files;

/// How often a followed file is looked at while nothing comes.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);
/// Output is handed on in pieces of about this size, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// A line longer than this is handed on in pieces, in bytes. Entries are at most 16 KiB of text.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Most lines of `tailLines` that are held in memory, in bytes; beyond it the oldest are left out.
const MAX_TAIL_BYTES: usize = 64 << 20;

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only so many lines from the end.
    pub tail_lines: Option<usize>,
    /// Only entries from then on.
    pub since: Option<Timestamp>,
    /// At most so many bytes.
    pub limit_bytes: Option<usize>,
    /// Each line with its time.
    pub timestamps: bool,
    /// Go on as the container writes.
    pub follow: bool,
}

/// A log, and whether its container still writes.
pub struct LogSource {
    /// The current file.
    pub path: PathBuf,
    /// Turns true once the container has ended.
    pub has_ended: Box<dyn Fn() -> bool + Send + Sync>,
}

struct Output {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    buffer: Vec<u8>,
    left: Option<usize>,
    timestamps: bool,
    starts_line: bool,
}

impl Output {
    /// Adds an entry; false when nobody wants more.
    fn entry(&mut self, entry: &Entry<'_>) -> bool {
        let before = self.buffer.len();
        // A line in several entries carries one time.
        entry.write_to(self.timestamps && self.starts_line, &mut self.buffer);
        self.starts_line = !entry.is_partial;
        if let Some(left) = &mut self.left {
            let added = self.buffer.len() - before;
            if added >= *left {
                self.buffer.truncate(before + *left);
                *left = 0;
                self.flush();
                return false;
            }
            *left -= added;
        }
        self.buffer.len() < CHUNK_BYTES || self.flush()
    }

    fn flush(&mut self) -> bool {
        if self.buffer.is_empty() {
            return !self.sender.is_closed();
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.sender.blocking_send(Ok(chunk)).is_ok()
    }
}

/// Writes the log to `sender`; blocking, to be run on a thread of its own. Ends when the log does, when the reader is
/// gone, or (followed) when the container has ended.
pub fn stream(source: &LogSource, options: &LogOptions, sender: mpsc::Sender<std::io::Result<Bytes>>) {
    let mut output = Output {
        sender,
        buffer: Vec::new(),
        left: options.limit_bytes,
        timestamps: options.timestamps,
        starts_line: true,
    };
    if let Err(error) = write_log(source, options, &mut output) {
        output.flush();
        let _ = output.sender.blocking_send(Err(error));
    }
}

fn write_log(source: &LogSource, options: &LogOptions, output: &mut Output) -> std::io::Result<()> {
    let mut wanted = options.since;
    let mut held: VecDeque<Vec<u8>> = VecDeque::new();
    let mut held_bytes = 0;
    let mut lines_held = 0_usize;
    // What exists now: rotated files first, then the current one. A file that vanishes between is skipped.
    let mut current: Option<BufReader<File>> = None;
    let mut files = rotated_files(&source.path);
    files.push(source.path.clone());
    for path in files {
        let Ok(file) = open_file(&path) else { continue };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line)? {
            let Some(entry) = Entry::parse(&line) else { continue };
            if !is_wanted(&entry, &mut wanted) {
                continue;
            }
            match options.tail_lines {
                None => {
                    if !output.entry(&entry) {
                        return Ok(());
                    }
                }
                Some(0) => {}
                Some(count) => {
                    held_bytes += line.len();
                    lines_held += usize::from(!entry.is_partial);
                    held.push_back(line.clone());
                    while lines_held > count || held_bytes > MAX_TAIL_BYTES {
                        let Some(oldest) = held.pop_front() else { break };
                        held_bytes -= oldest.len();
                        lines_held -= usize::from(Entry::parse(&oldest).is_some_and(|e| !e.is_partial));
                    }
                }
            }
        }
        current = Some(reader);
    }
    for line in held {
        if let Some(entry) = Entry::parse(&line)
            && !output.entry(&entry)
        {
            return Ok(());
        }
    }
    if !output.flush() || !options.follow {
        return Ok(());
    }
    follow(source, current, wanted, output)
}

fn follow(
    source: &LogSource,
    mut current: Option<BufReader<File>>,
    mut wanted: Option<Timestamp>,
    output: &mut Output,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    let mut is_replaced = false;
    loop {
        // Asked before reading: what was written before the end is read once more.
        let has_ended = (source.has_ended)();
        let mut has_read = false;
        if let Some(reader) = &mut current {
            while read_line(reader, &mut line)? {
                has_read = true;
                if let Some(entry) = Entry::parse(&line)
                    && is_wanted(&entry, &mut wanted)
                    && !output.entry(&entry)
                {
                    return Ok(());
                }
            }
        }
        if !output.flush() {
            return Ok(());
        }
        if has_read {
            continue;
        }
        if is_replaced {
            current = next_file(&source.path, current.as_ref()).map(BufReader::new);
            is_replaced = false;
            continue;
        }
        is_replaced = match (&current, std::fs::metadata(&source.path)) {
            (Some(reader), Ok(metadata)) => identity(&reader.get_ref().metadata()?) != identity(&metadata),
            (None, Ok(_)) => true,
            (_, Err(_)) => false,
        };
        if is_replaced {
            // What was written between the last look and the rotation is read before the file is left.
            continue;
        }
        if has_ended {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The file that was written after the one that was read: not always the current one, when reading is slow.
fn next_file(path: &std::path::Path, read: Option<&BufReader<File>>) -> Option<File> {
    let Some(read) = read else { return open_file(path).ok() };
    let read = identity(&read.get_ref().metadata().ok()?);
    let mut files = rotated_files(path);
    files.push(path.to_owned());
    let is_read = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|metadata| identity(&metadata) == read);
    // One that was removed already was older than all that are left.
    let next = files.iter().position(is_read).map_or(0, |at| at + 1);
    files[next..].iter().find_map(|file| open_file(file).ok())
}

fn is_wanted(entry: &Entry<'_>, since: &mut Option<Timestamp>) -> bool {
    let Some(from) = *since else { return true };
    let is_late_enough = entry.timestamp().is_none_or(|time| time >= from);
    if is_late_enough {
        // Entries are in order: the rest need not be looked at.
        *since = None;
    }
    is_late_enough
}

/// Reads one whole line; an unfinished one is left for later.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let start = reader.stream_position()?;
    loop {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            reader.seek(SeekFrom::Start(start))?;
            return Ok(false);
        }
        let end = available.iter().position(|b| *b == b'\n').map(|at| at + 1);
        let used = end.unwrap_or(available.len());
        line.extend_from_slice(&available[..used]);
        reader.consume(used);
        if end.is_some() || line.len() >= MAX_LINE_BYTES {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn read(source: &LogSource, options: &LogOptions) -> String {
        let (sender, mut receiver) = mpsc::channel(100);
        stream(source, options, sender);
        let mut text = Vec::new();
        while let Ok(chunk) = receiver.try_recv() {
            text.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn line(second: u32, tag: char, text: &str) -> String {
        format!("2026-01-02T03:04:{second:02}.000000000Z stdout {tag} {text}\n")
    }

    #[test]
    fn options_choose_what_is_read_across_rotated_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(directory.path().join("0.log.20260102-000000"), line(1, 'F', "one")).unwrap();
        let current =
            [line(2, 'P', "tw"), line(2, 'F', "o"), "garbage\n".to_owned(), line(3, 'F', "three")].concat();
        std::fs::write(&path, current + "2026-01-02T03:04:04Z stdout F unfinished").unwrap();
        let source = LogSource { path, has_ended: Box::new(|| true) };
        let since = Some("2026-01-02T03:04:03Z".parse().unwrap());
        for (options, expected) in [
            (LogOptions::default(), "one\ntwo\nthree\n"),
            (LogOptions { tail_lines: Some(2), ..LogOptions::default() }, "two\nthree\n"),
            (LogOptions { tail_lines: Some(0), ..LogOptions::default() }, ""),
            (LogOptions { since, ..LogOptions::default() }, "three\n"),
            (LogOptions { limit_bytes: Some(6), ..LogOptions::default() }, "one\ntw"),
            (
                LogOptions { timestamps: true, tail_lines: Some(2), ..LogOptions::default() },
                "2026-01-02T03:04:02.000000000Z two\n2026-01-02T03:04:03.000000000Z three\n",
            ),
            (LogOptions { follow: true, ..LogOptions::default() }, "one\ntwo\nthree\n"),
        ] {
            assert_eq!(read(&source, &options), expected, "{options:?}");
        }
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_through_a_rotation_until_the_container_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, line(1, 'F', "a")).unwrap();
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = has_ended.clone();
        let source =
            LogSource { path: path.clone(), has_ended: Box::new(move || ended.load(Ordering::SeqCst)) };
        let (sender, mut receiver) = mpsc::channel(10);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let reader = tokio::task::spawn_blocking(move || stream(&source, &options, sender));
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "a\n");
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        std::fs::write(&path, line(2, 'F', "b")).unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "b\n");
        // Written just before a rotation, and two rotations in a row: nothing is passed over.
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, line(3, 'F', "c").as_bytes()).unwrap();
        std::fs::rename(&path, directory.path().join("0.log.2")).unwrap();
        std::fs::write(directory.path().join("0.log.3"), line(4, 'F', "d")).unwrap();
        std::fs::write(&path, line(5, 'F', "e")).unwrap();
        let mut text = Vec::new();
        while text.len() < 6 {
            text.extend_from_slice(&receiver.recv().await.unwrap().unwrap());
        }
        assert_eq!(text, b"c\nd\ne\n");
        has_ended.store(true, Ordering::SeqCst);
        assert!(receiver.recv().await.is_none());
        reader.await.unwrap();
    }
}
