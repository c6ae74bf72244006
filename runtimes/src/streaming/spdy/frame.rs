//! Frames: to bytes and from bytes. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Error;
use super::headers::{Encoder, Headers, Inflater};

/// Largest control frame, in bytes without its head.
const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Head of every frame, in bytes.
const HEAD_BYTES: usize = 8;
/// A stream's id has 31 bits.
const ID_MASK: u32 = 0x7fff_ffff;
/// The bit of a head that says "control frame", and version 3.
const CONTROL_VERSION: u16 = 0x8003;
/// The longest piece of data in one frame that we write, in bytes. Source: Go's `io.Copy` writes as much at once.
pub(super) const MAX_DATA_BYTES: usize = 32 * 1024;
/// The setting that says how large the window of a new stream is.
const INITIAL_WINDOW_SIZE: u32 = 7;

const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RstStatus {
    /// What was sent makes no sense.
    ProtocolError,
    /// There is no such stream.
    InvalidStream,
    /// The stream is not wanted.
    RefusedStream,
    /// Nobody reads or writes it any more.
    Cancel,
}

impl RstStatus {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::ProtocolError => 1,
            Self::InvalidStream => 2,
            Self::RefusedStream => 3,
            Self::Cancel => 5,
        }
    }
}

/// One frame, or (data) one piece of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A stream is opened.
    SynStream {
        /// Its id.
        id: u32,
        /// Its headers.
        headers: Headers,
        /// The opener will not send anything on it.
        fin: bool,
        /// The other side must not send anything on it.
        unidirectional: bool,
    },
    /// A stream is accepted.
    SynReply {
        /// Its id.
        id: u32,
        /// Headers of the answer.
        headers: Headers,
        /// The accepter will not send anything on it.
        fin: bool,
    },
    /// A stream ends at once, in both directions.
    RstStream {
        /// Its id.
        id: u32,
        /// Why; see [`RstStatus`].
        status: u32,
    },
    /// Further headers of a stream.
    Headers {
        /// Its id.
        id: u32,
        /// They.
        headers: Headers,
        /// Nothing more will come.
        fin: bool,
    },
    /// Bytes of a stream. A frame that is read may come in several pieces; only the last has `fin`.
    Data {
        /// Its id.
        id: u32,
        /// They.
        bytes: Bytes,
        /// Nothing more will come.
        fin: bool,
    },
    /// The window that new streams have, in bytes, if the settings say so.
    Settings {
        /// In bytes.
        initial_window: Option<u32>,
    },
    /// To be sent back, unless it is one's own that comes back.
    Ping {
        /// Odd: the client's.
        id: u32,
    },
    /// No stream will be accepted any more.
    GoAway {
        /// The last one that was.
        last_id: u32,
        /// 0: all is well.
        status: u32,
    },
    /// More may be sent.
    WindowUpdate {
        /// The stream; 0: all of them together.
        id: u32,
        /// In bytes.
        delta: u32,
    },
}

fn control(into: &mut BytesMut, kind: u16, flags: u8, body: &[u8]) -> Result<(), Error> {
    if body.len() > MAX_CONTROL_BYTES {
        return Err(Error::Protocol("control frame too large"));
    }
    into.put_u16(CONTROL_VERSION);
    into.put_u16(kind);
    into.put_u8(flags);
    into.put_uint(body.len() as u64, 3);
    into.put_slice(body);
    Ok(())
}

fn fin_flag(fin: bool) -> u8 {
    if fin { FLAG_FIN } else { 0 }
}

/// Appends a frame to what is to be sent.
///
/// # Errors
/// Headers that are too large. Data must not be longer than 16 MiB.
pub fn encode(frame: &Frame, encoder: &mut FrameEncoder, into: &mut BytesMut) -> Result<(), Error> {
    let mut body = BytesMut::new();
    match frame {
        Frame::SynStream { id, headers, fin, unidirectional } => {
            body.put_u32(id & ID_MASK);
            // Associated stream, priority and slot: none.
            body.put_u32(0);
            body.put_u16(0);
            body.put_slice(&encoder.headers.encode(headers)?);
            let direction = if *unidirectional { FLAG_UNIDIRECTIONAL } else { 0 };
            control(into, SYN_STREAM, fin_flag(*fin) | direction, &body)
        }
        Frame::SynReply { id, headers, fin } => {
            body.put_u32(id & ID_MASK);
            body.put_slice(&encoder.headers.encode(headers)?);
            control(into, SYN_REPLY, fin_flag(*fin), &body)
        }
        Frame::Headers { id, headers, fin } => {
            body.put_u32(id & ID_MASK);
            body.put_slice(&encoder.headers.encode(headers)?);
            control(into, HEADERS, fin_flag(*fin), &body)
        }
        Frame::RstStream { id, status } => {
            body.put_u32(id & ID_MASK);
            body.put_u32(*status);
            control(into, RST_STREAM, 0, &body)
        }
        Frame::Data { id, bytes, fin } => {
            if bytes.len() >= 1 << 24 {
                return Err(Error::Protocol("data frame too large"));
            }
            into.put_u32(id & ID_MASK);
            into.put_u8(fin_flag(*fin));
            into.put_uint(bytes.len() as u64, 3);
            into.put_slice(bytes);
            Ok(())
        }
        Frame::Settings { initial_window } => {
            match initial_window {
                Some(window) => {
                    body.put_u32(1);
                    body.put_u32(INITIAL_WINDOW_SIZE);
                    body.put_u32(*window);
                }
                None => body.put_u32(0),
            }
            control(into, SETTINGS, 0, &body)
        }
        Frame::Ping { id } => {
            body.put_u32(*id);
            control(into, PING, 0, &body)
        }
        Frame::GoAway { last_id, status } => {
            body.put_u32(last_id & ID_MASK);
            body.put_u32(*status);
            control(into, GOAWAY, 0, &body)
        }
        Frame::WindowUpdate { id, delta } => {
            body.put_u32(id & ID_MASK);
            body.put_u32(delta & ID_MASK);
            control(into, WINDOW_UPDATE, 0, &body)
        }
    }
}

/// The state of the sending direction: headers are compressed across frames.
#[derive(Debug)]
pub struct FrameEncoder {
    headers: Encoder,
}

impl FrameEncoder {
    /// A connection's beginning.
    ///
    /// # Errors
    /// The compressor cannot be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { headers: Encoder::new()? })
    }
}

/// What is left of a data frame whose head was read.
#[derive(Debug)]
struct DataLeft {
    id: u32,
    fin: bool,
    bytes: usize,
}

/// The state of the receiving direction.
#[derive(Debug)]
pub struct Decoder {
    headers: Inflater,
    data: Option<DataLeft>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { headers: Inflater::new(), data: None }
    }
}

impl Decoder {
    /// Takes the next frame, or piece of data, off the bytes that have come; `None`: more must come first.
    ///
    /// # Errors
    /// What has come is not SPDY/3; nothing sensible can follow.
    pub fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(left) = self.data.take() {
                return Ok(self.data_piece(left, from));
            }
            let Some(head) = from.first_chunk::<HEAD_BYTES>().copied() else { return Ok(None) };
            let flags = head[4];
            let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            if first & !ID_MASK == 0 {
                from.advance(HEAD_BYTES);
                self.data = Some(DataLeft { id: first, fin: flags & FLAG_FIN != 0, bytes: length });
                continue;
            }
            if u16::from_be_bytes([head[0], head[1]]) != CONTROL_VERSION {
                return Err(Error::Protocol("not version 3"));
            }
            if length > MAX_CONTROL_BYTES {
                return Err(Error::Protocol("control frame too large"));
            }
            if from.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            from.advance(HEAD_BYTES);
            let body = from.split_to(length).freeze();
            let kind = u16::from_be_bytes([head[2], head[3]]);
            if let Some(frame) = self.control(kind, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn data_piece(&mut self, left: DataLeft, from: &mut BytesMut) -> Option<Frame> {
        let DataLeft { id, fin, bytes } = left;
        if bytes > 0 && from.is_empty() {
            self.data = Some(left);
            return None;
        }
        let piece = from.split_to(bytes.min(from.len())).freeze();
        let bytes = bytes - piece.len();
        if bytes > 0 {
            self.data = Some(DataLeft { id, fin, bytes });
        }
        Some(Frame::Data { id, bytes: piece, fin: fin && bytes == 0 })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, Error> {
        const SHORT: Error = Error::Protocol("control frame too short");
        let fin = flags & FLAG_FIN != 0;
        let mut number = || body.try_get_u32().map_err(|_| SHORT);
        let frame = match kind {
            SYN_STREAM => {
                let id = number()? & ID_MASK;
                number()?;
                body.try_get_u16().map_err(|_| SHORT)?;
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Frame::SynStream { id, headers: self.headers.decode(&body)?, fin, unidirectional }
            }
            SYN_REPLY => {
                let id = number()? & ID_MASK;
                Frame::SynReply { id, headers: self.headers.decode(&body)?, fin }
            }
            HEADERS => {
                let id = number()? & ID_MASK;
                Frame::Headers { id, headers: self.headers.decode(&body)?, fin }
            }
            RST_STREAM => Frame::RstStream { id: number()? & ID_MASK, status: number()? },
            SETTINGS => {
                let count = number()?;
                let mut initial_window = None;
                for _ in 0..count {
                    let (id, value) = (number()? & 0x00ff_ffff, number()?);
                    if id == INITIAL_WINDOW_SIZE {
                        initial_window = Some(value);
                    }
                }
                Frame::Settings { initial_window }
            }
            PING => Frame::Ping { id: number()? },
            GOAWAY => Frame::GoAway { last_id: number()? & ID_MASK, status: number()? },
            WINDOW_UPDATE => Frame::WindowUpdate { id: number()? & ID_MASK, delta: number()? & ID_MASK },
            // Unknown control frames are to be passed over.
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let headers = || Headers::new([("streamtype", "stdout"), ("empty", "")]);
        vec![
            Frame::Settings { initial_window: Some(1 << 20) },
            Frame::SynStream { id: 1, headers: headers(), fin: false, unidirectional: false },
            Frame::SynStream { id: 0x7fff_ffff, headers: headers(), fin: true, unidirectional: true },
            Frame::SynReply { id: 1, headers: Headers::default(), fin: false },
            Frame::Headers { id: 1, headers: headers(), fin: true },
            Frame::Data { id: 1, bytes: Bytes::from_static(b"hello"), fin: false },
            Frame::Data { id: 1, bytes: Bytes::new(), fin: true },
            Frame::RstStream { id: 3, status: RstStatus::Cancel.code() },
            Frame::Ping { id: 7 },
            Frame::GoAway { last_id: 5, status: 0 },
            Frame::WindowUpdate { id: 1, delta: 100 },
        ]
    }

    fn bytes(frames: &[Frame]) -> BytesMut {
        let (mut encoder, mut bytes) = (FrameEncoder::new().unwrap(), BytesMut::new());
        for frame in frames {
            encode(frame, &mut encoder, &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let (mut from, mut decoder) = (bytes(&frames()), Decoder::default());
        for frame in frames() {
            assert_eq!(decoder.decode(&mut from).unwrap(), Some(frame));
        }
        assert_eq!(decoder.decode(&mut from).unwrap(), None);
        assert!(from.is_empty());
    }

    #[test]
    fn frames_may_come_byte_by_byte() {
        let (mut decoder, mut from, mut got) = (Decoder::default(), BytesMut::new(), Vec::new());
        for byte in bytes(&frames()) {
            from.put_u8(byte);
            while let Some(frame) = decoder.decode(&mut from).unwrap() {
                got.push(frame);
            }
        }
        let data: Vec<u8> = got
            .iter()
            .filter_map(
                |frame| if let Frame::Data { bytes, .. } = frame { Some(bytes.to_vec()) } else { None },
            )
            .flatten()
            .collect();
        assert_eq!(data, b"hello");
        let is_other = |frame: &&Frame| !matches!(frame, Frame::Data { .. });
        assert!(got.iter().filter(is_other).eq(frames().iter().filter(is_other)));
        assert_eq!(got.iter().filter(|frame| matches!(frame, Frame::Data { fin: true, .. })).count(), 1);
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        assert_eq!(bytes(&[Frame::Ping { id: 1 }])[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
        let data = Frame::Data { id: 5, bytes: Bytes::from_static(b"ab"), fin: true };
        assert_eq!(bytes(&[data])[..], [0, 0, 0, 5, 1, 0, 0, 2, b'a', b'b']);
        let reset = Frame::RstStream { id: 3, status: 5 };
        assert_eq!(bytes(&[reset])[..], [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5]);
        let window = Frame::WindowUpdate { id: 9, delta: 256 };
        assert_eq!(bytes(&[window])[..], [0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 1, 0]);
    }

    #[test]
    fn unknown_control_frames_are_passed_over_and_wrong_ones_refused() {
        let mut from = BytesMut::from(&[0x80, 3, 0, 99, 0, 0, 0, 1, 42][..]);
        from.extend_from_slice(&bytes(&[Frame::Ping { id: 2 }]));
        assert_eq!(Decoder::default().decode(&mut from).unwrap(), Some(Frame::Ping { id: 2 }));
        for wrong in [
            &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..],
            &[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0],
            &[0x80, 3, 0, 6, 0, 0xff, 0, 0],
            &[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
            &[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1],
        ] {
            assert!(Decoder::default().decode(&mut BytesMut::from(wrong)).is_err(), "{wrong:?}");
        }
    }

    /// Every change of one byte, every cut, and noise: an error or a frame, never a panic or a loop without end.
    #[test]
    fn malformed_input_never_panics() {
        let good = bytes(&frames());
        let drain = |mut from: BytesMut| {
            let mut decoder = Decoder::default();
            for _ in 0..1000 {
                match decoder.decode(&mut from) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                }
            }
            panic!("the decoder does not come to an end");
        };
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xff, 0x40] {
                let mut broken = good.clone();
                broken[at] ^= change;
                drain(broken);
            }
            drain(BytesMut::from(&good[at..]));
        }
        let mut noise = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..2000 {
            let mut bytes = BytesMut::new();
            for _ in 0..8 {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                bytes.put_u64(noise);
            }
            // Half of it looks like a control frame.
            if noise & 1 == 0 {
                bytes[..8].copy_from_slice(&[
                    0x80,
                    3,
                    0,
                    noise.to_le_bytes()[1] % 11,
                    noise.to_le_bytes()[2],
                    0,
                    0,
                    40,
                ]);
            }
            drain(bytes);
        }
    }
}
