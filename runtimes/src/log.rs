//! The CRI log format: `<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P> <text>`, one entry a line.
//!
//! A guest's line that is longer than [`MAX_LINE_BYTES`] becomes several entries, all but the last tagged `P`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest text of one entry, in bytes. Source: containerd and CRI-O cut at 16 KiB, readers expect it.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Which of a container's streams an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`, as written in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts the bytes of one stream into log entries, holding at most [`MAX_LINE_BYTES`] of an unfinished line.
#[derive(Debug)]
pub struct LineCutter {
    stream: Stream,
    unfinished: Vec<u8>,
}

impl LineCutter {
    /// A cutter for one stream of one container.
    pub fn new(stream: Stream) -> Self {
        Self { stream, unfinished: Vec::new() }
    }

    /// Appends to `log` the entries that `bytes` completes, all with the time `now`.
    pub fn write(&mut self, now: SystemTime, mut bytes: &[u8], log: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_LINE_BYTES - self.unfinished.len();
            let end = bytes.iter().take(room + 1).position(|b| *b == b'\n');
            match end {
                Some(end) if end <= room => {
                    let (line, rest) = bytes.split_at(end);
                    self.entry(now, b'F', line, log);
                    bytes = &rest[1..];
                }
                _ if bytes.len() > room => {
                    let (part, rest) = bytes.split_at(room);
                    self.entry(now, b'P', part, log);
                    bytes = rest;
                }
                _ => {
                    self.unfinished.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// Appends a last line that did not end in a newline.
    pub fn finish(&mut self, now: SystemTime, log: &mut Vec<u8>) {
        if !self.unfinished.is_empty() {
            self.entry(now, b'F', &[], log);
        }
        self.unfinished = Vec::new();
    }

    fn entry(&mut self, now: SystemTime, tag: u8, text: &[u8], log: &mut Vec<u8>) {
        log.extend_from_slice(timestamp(now).as_bytes());
        log.push(b' ');
        log.extend_from_slice(self.stream.as_str().as_bytes());
        log.extend_from_slice(&[b' ', tag, b' ']);
        log.extend_from_slice(&self.unfinished);
        log.extend_from_slice(text);
        log.push(b'\n');
        self.unfinished.clear();
    }
}

/// `2026-01-02T03:04:05.123456789Z`.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// Nanoseconds since the epoch, as CRI's timestamps are.
pub fn unix_nanos(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

/// Year, month and day of a day counted from 1970-01-01. Source: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn civil_date(days_since_epoch: u64) -> (u64, u64, u64) {
    let days = days_since_epoch + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn timestamps_have_nine_digits_and_follow_the_calendar() {
        for (seconds, nanos, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_767_323_045, 123_456_789, "2026-01-02T03:04:05.123456789Z"),
            (4_107_542_399, 999_999_999, "2100-02-28T23:59:59.999999999Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(timestamp(at(seconds, nanos)), expected);
        }
    }

    #[test]
    fn lines_are_cut_where_the_guest_ends_them_whatever_the_pieces() {
        for pieces in [vec!["one\ntwo\n"], vec!["o", "ne", "\n", "tw", "o\n"], vec!["one\ntw", "o\n"]] {
            let mut cutter = LineCutter::new(Stream::Stdout);
            let mut log = Vec::new();
            for piece in pieces {
                cutter.write(at(0, 0), piece.as_bytes(), &mut log);
            }
            cutter.finish(at(0, 0), &mut log);
            let text = String::from_utf8(log).unwrap();
            assert_eq!(
                text,
                "1970-01-01T00:00:00.000000000Z stdout F one\n1970-01-01T00:00:00.000000000Z stdout F two\n"
            );
        }
    }

    #[test]
    fn a_line_beyond_the_limit_becomes_partial_entries_and_memory_stays_bounded() {
        let mut cutter = LineCutter::new(Stream::Stderr);
        let mut log = Vec::new();
        for _ in 0..40 {
            cutter.write(at(0, 0), &[b'x'; 1000], &mut log);
            assert!(cutter.unfinished.len() <= MAX_LINE_BYTES);
        }
        cutter.write(at(0, 0), b"\nend", &mut log);
        cutter.finish(at(0, 0), &mut log);
        let text = String::from_utf8(log).unwrap();
        let tags: Vec<(&str, usize)> = text
            .lines()
            .map(|line| {
                let mut fields = line.splitn(4, ' ').skip(2);
                (fields.next().unwrap(), fields.next().unwrap().len())
            })
            .collect();
        assert_eq!(tags, [("P", 16384), ("P", 16384), ("F", 40_000 - 2 * 16384), ("F", 3)]);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_full_entry() {
        let mut cutter = LineCutter::new(Stream::Stdout);
        let mut log = Vec::new();
        let mut line = vec![b'y'; MAX_LINE_BYTES];
        line.push(b'\n');
        cutter.write(at(0, 0), &line, &mut log);
        assert_eq!(log.iter().filter(|b| **b == b'\n').count(), 1);
        assert!(log.starts_with(b"1970-01-01T00:00:00.000000000Z stdout F y"));
    }
}
