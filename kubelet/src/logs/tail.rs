//! The end of a log file.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::entry::Entry;

/// The last lines of a log as text, at most so many lines and bytes; empty when it cannot be read.
pub fn last_lines(path: &Path, max_lines: usize, max_bytes: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = wherry_runtimes::files::open_file(path)?;
        // Every entry has some 45 bytes before its text.
        let window = u64::try_from(max_bytes + 64 * max_lines).unwrap_or(u64::MAX);
        let start = file.metadata()?.len().saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(window).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let entries: Vec<Entry<'_>> = bytes.split_inclusive(|b| *b == b'\n').filter_map(Entry::parse).collect();
    let mut output = Vec::new();
    for entry in &entries[entries.len().saturating_sub(max_lines)..] {
        entry.write_to(false, &mut output);
    }
    let from = output.len().saturating_sub(max_bytes);
    String::from_utf8_lossy(&output[from..]).into_owned()
}
