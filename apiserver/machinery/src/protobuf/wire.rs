//! Protobuf's wire form: varints and tagged fields.

use super::Error;

/// The value of a field on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, one by one.
pub(super) struct Fields<'a> {
    message: &'a str,
    rest: &'a [u8],
}

pub(super) fn failure(message: &str, problem: &'static str) -> Error {
    Error::Wire { message: message.to_owned(), problem }
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self, message: &str) -> Result<&'a [u8], Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(failure(message, "wrong wire type")),
        }
    }

    pub(super) fn text(self, message: &str) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(message)?).map_err(|_| failure(message, "text is not UTF-8"))
    }

    pub(super) fn varint(self, message: &str) -> Result<u64, Error> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(failure(message, "wrong wire type")),
        }
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.rest.len() {
            return Err(failure(self.message, "unexpected EOF"));
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first().ok_or_else(|| failure(self.message, "unexpected EOF"))?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(failure(self.message, "integer overflow"))
    }

    fn field(&mut self) -> Result<(u64, Wire<'a>), Error> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(failure(self.message, "illegal tag 0"));
        }
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(array(self.take(8)?))),
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| failure(self.message, "unexpected EOF"))?;
                Wire::Bytes(self.take(length)?)
            }
            // No field of the API has this form; it is skipped.
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(failure(self.message, "illegal wireType")),
        };
        Ok((number, value))
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits always fit a byte.
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

pub(super) fn put_integer(out: &mut Vec<u8>, number: u64, value: i64) {
    put_varint(out, number << 3);
    put_varint(out, value.cast_unsigned());
}

pub(super) fn put_double(out: &mut Vec<u8>, number: u64, value: f64) {
    put_varint(out, number << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
