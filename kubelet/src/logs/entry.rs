//! One entry of a log file: `<time> <stream> <tag> <text>`.

use k8s_openapi::jiff::Timestamp;

/// An entry, borrowed from its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Time, as written.
    pub time: &'a str,
    /// Whether of standard error.
    pub is_stderr: bool,
    /// Whether the guest's line goes on in the next entry.
    pub is_partial: bool,
    /// The text, without line end.
    pub text: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads a line (with or without its line end); `None` when it is not of the format.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (time, rest) = split_at_space(line)?;
        let (stream, rest) = split_at_space(rest)?;
        let (tags, text) = split_at_space(rest).unwrap_or((rest, b""));
        let is_stderr = match stream {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        let is_partial = match tags.split(|b| *b == b':').next() {
            Some(b"P") => true,
            Some(b"F") => false,
            _ => return None,
        };
        Some(Self { time: std::str::from_utf8(time).ok()?, is_stderr, is_partial, text })
    }

    /// The time.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// Appends what a reader of the log gets.
    pub fn write_to(&self, with_time: bool, output: &mut Vec<u8>) {
        if with_time {
            output.extend_from_slice(self.time.as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(self.text);
        if !self.is_partial {
            output.push(b'\n');
        }
    }
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_format_are_read_and_others_are_not() {
        let line = b"2026-01-02T03:04:05.000000006Z stderr F hello world\n";
        let entry = Entry::parse(line).unwrap();
        assert!(entry.is_stderr && !entry.is_partial);
        assert_eq!(entry.text, b"hello world");
        let mut output = Vec::new();
        entry.write_to(true, &mut output);
        assert_eq!(output, b"2026-01-02T03:04:05.000000006Z hello world\n");
        let partial = Entry::parse(b"2026-01-02T03:04:05Z stdout P part").unwrap();
        let mut output = Vec::new();
        partial.write_to(false, &mut output);
        assert_eq!(output, b"part");
        assert_eq!(Entry::parse(b"2026-01-02T03:04:05Z stdout F").unwrap().text, b"");
        for bad in [&b"hello"[..], b"t stdin F x", b"t stdout X x", b""] {
            assert_eq!(Entry::parse(bad), None);
        }
    }
}
