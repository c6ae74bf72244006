//! Blocks of names and values, compressed with one state for all blocks of a connection's direction.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;
use super::dictionary::{ADLER32, dictionary};

/// Largest block after inflation, in bytes. Streams of Kubernetes have some three headers of a few dozen bytes.
const MAX_BLOCK_BYTES: usize = 64 * 1024;
/// Most names of a block.
const MAX_NAMES: u32 = 256;
/// Output is made room for in such steps.
const STEP_BYTES: usize = 4096;

/// Names (in lower case) and values of a stream, in the order in which they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// These names and values. Names are made lower case.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
    }

    /// The value of a name in lower case; the first where there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        Some(value.split('\0').next().unwrap_or_default())
    }
}

/// Compresses blocks.
#[derive(Debug)]
pub(super) struct Encoder(Compress);

impl Encoder {
    pub(super) fn new() -> Result<Self, Error> {
        let mut compress = Compress::new(Compression::best(), true);
        let dictionary = compress.set_dictionary(&dictionary());
        dictionary.map_err(|_| Error::Protocol("the dictionary cannot be set"))?;
        Ok(Self(compress))
    }

    /// The block's compressed bytes.
    pub(super) fn encode(&mut self, headers: &Headers) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        let length = |length: usize| u32::try_from(length).map_err(|_| Error::Protocol("headers too large"));
        plain.extend_from_slice(&length(headers.0.len())?.to_be_bytes());
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&length(text.len())?.to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let before = self.0.total_in();
        loop {
            packed.reserve(STEP_BYTES);
            let used = usize::try_from(self.0.total_in() - before).unwrap_or(plain.len());
            let done = self.0.compress_vec(&plain[used..], &mut packed, FlushCompress::Sync);
            done.map_err(|_| Error::Protocol("headers do not deflate"))?;
            let used = usize::try_from(self.0.total_in() - before).unwrap_or(plain.len());
            // Room left over says that everything has been flushed.
            if used == plain.len() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
        }
    }
}

/// Inflates blocks.
#[derive(Debug)]
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The names and values of a compressed block.
    pub(super) fn decode(&mut self, packed: &[u8]) -> Result<Headers, Error> {
        let plain = self.inflate(packed)?;
        parse(&plain).ok_or(Error::Protocol("malformed headers"))
    }

    fn inflate(&mut self, packed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        let mut rest = packed;
        loop {
            if plain.len() > MAX_BLOCK_BYTES {
                return Err(Error::Protocol("headers too large"));
            }
            plain.reserve(STEP_BYTES);
            let (before_in, before_out) = (self.0.total_in(), plain.len());
            let inflated = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let used = usize::try_from(self.0.total_in() - before_in).unwrap_or(rest.len());
            rest = rest.get(used..).unwrap_or_default();
            match inflated {
                Ok(Status::StreamEnd) => return Err(Error::Protocol("compressed headers end")),
                Ok(_) if rest.is_empty() && plain.len() < plain.capacity() => return Ok(plain),
                Ok(_) if used == 0 && plain.len() == before_out => {
                    return Err(Error::Protocol("headers do not inflate"));
                }
                Ok(_) => {}
                Err(error) if error.needs_dictionary() == Some(ADLER32) => {
                    let set = self.0.set_dictionary(&dictionary());
                    set.map_err(|_| Error::Protocol("the dictionary cannot be set"))?;
                }
                Err(_) => return Err(Error::Protocol("headers do not inflate")),
            }
        }
    }
}

/// Reads a block that is no longer compressed.
fn parse(mut plain: &[u8]) -> Option<Headers> {
    let count = take_number(&mut plain)?;
    if count > MAX_NAMES {
        return None;
    }
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = take_text(&mut plain)?;
        let value = take_text(&mut plain)?;
        if name.is_empty() {
            return None;
        }
        headers.push((name.to_ascii_lowercase(), value));
    }
    plain.is_empty().then_some(Headers(headers))
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*head))
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: usize) -> Headers {
        let id = number.to_string();
        Headers::new([("streamType", "data"), ("port", "8080"), ("requestID", &id)])
    }

    #[test]
    fn blocks_come_back_as_they_were_and_later_ones_are_small() {
        let (mut encoder, mut inflater) = (Encoder::new().unwrap(), Inflater::new());
        let mut sizes = Vec::new();
        for number in 0..50 {
            let packed = encoder.encode(&block(number)).unwrap();
            assert_eq!(inflater.decode(&packed).unwrap(), block(number));
            sizes.push(packed.len());
        }
        assert!(sizes[49] < sizes[0], "{sizes:?}");
        assert_eq!(block(7).get("requestid"), Some("7"));
        let large = Headers::new([("x", "y".repeat(20_000).as_str())]);
        assert_eq!(inflater.decode(&encoder.encode(&large).unwrap()).unwrap(), large);
        assert_eq!(
            inflater.decode(&encoder.encode(&Headers::default()).unwrap()).unwrap(),
            Headers::default()
        );
    }

    #[test]
    fn the_first_block_begins_as_zlib_with_the_dictionary_of_the_specification() {
        let packed = Encoder::new().unwrap().encode(&block(0)).unwrap();
        assert_eq!((packed[0], packed[1] & 0x20), (0x78, 0x20));
        assert_eq!(packed[2..6], ADLER32.to_be_bytes());
    }

    #[test]
    fn a_block_that_another_implementation_packed_is_read() {
        // Packed by zlib 1.2 with the dictionary, level 9, sync flush.
        let packed = [
            0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0x25, 0x3a, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc,
            0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x86, 0x14, 0xcb, 0x45, 0xa0, 0x24, 0xcc, 0x64, 0x61,
            0x00, 0x24, 0x39, 0x8b, 0x20, 0x91, 0x98, 0x09, 0x4a, 0xdc, 0x8c, 0x06, 0x00, 0x00, 0x00, 0x00,
            0xff, 0xff,
        ];
        assert_eq!(
            Inflater::new().decode(&packed).unwrap(),
            Headers::new([("streamtype", "error"), ("port", "80"), ("requestid", "0")])
        );
    }

    #[test]
    fn what_does_not_inflate_or_inflates_to_too_much_is_refused() {
        let mut encoder = Encoder::new().unwrap();
        let good = encoder.encode(&block(1)).unwrap();
        for cut in 0..good.len() {
            // The last bytes only mark the end of what was flushed.
            assert!(cut + 5 >= good.len() || Inflater::new().decode(&good[..cut]).is_err(), "{cut}");
            let mut broken = good.clone();
            broken[cut] ^= 0x55;
            // Some of these still say something; none may panic.
            let _ = Inflater::new().decode(&broken);
        }
        let bomb = Headers::new([("x", "y".repeat(MAX_BLOCK_BYTES * 2).as_str())]);
        let bomb = Encoder::new().unwrap().encode(&bomb).unwrap();
        assert!(bomb.len() < 1024);
        assert!(Inflater::new().decode(&bomb).is_err());
    }
}
