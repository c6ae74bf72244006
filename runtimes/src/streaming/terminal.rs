//! Sizes of terminals, as they come on the resize stream: JSON objects, one after the other.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of one size: more are noise.
const MAX_SIZE_BYTES: usize = 1024;

/// Columns and rows. Source: `remotecommand.TerminalSize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Reads sizes off a stream.
#[derive(Debug)]
pub struct Sizes<R> {
    from: R,
    bytes: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Sizes<R> {
    /// Sizes that come on this stream.
    pub fn new(from: R) -> Self {
        Self { from, bytes: Vec::new() }
    }

    /// The next size; `None` at the end of the stream, and after what is not a size.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'}') {
                let object: Vec<u8> = self.bytes.drain(..=end).collect();
                return serde_json::from_slice(&object).ok();
            }
            if self.bytes.len() > MAX_SIZE_BYTES {
                return None;
            }
            let mut piece = [0; 256];
            match self.from.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.bytes.extend_from_slice(&piece[..length]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sizes_are_read_however_they_are_cut() {
        let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":120,\"Height\":50}".as_slice();
        let mut sizes = Sizes::new(tokio_util::io::StreamReader::new(futures::stream::iter(
            text.chunks(5).map(|chunk| Ok::<_, std::io::Error>(bytes::Bytes::from_static(chunk))),
        )));
        assert_eq!(sizes.next().await, Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(sizes.next().await, Some(TerminalSize { width: 120, height: 50 }));
        assert_eq!(sizes.next().await, None);
        assert_eq!(Sizes::new([b'x'; 5000].as_slice()).next().await, None);
    }
}
