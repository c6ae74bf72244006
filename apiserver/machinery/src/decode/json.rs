//! Reading JSON, with the words of Go where it is broken.
//!
//! Source: the scanner of Go's `encoding/json`.

use super::{Limits, Raw, SyntaxError};

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: &'a Limits,
    nodes: usize,
}

pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Raw, SyntaxError> {
    if bytes.len() > limits.max_bytes {
        return Err(SyntaxError::TooLarge { limit_bytes: limits.max_bytes });
    }
    let mut parser = Parser { bytes, at: 0, limits, nodes: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(value),
        Some(b) => Err(invalid(b, "after top-level value")),
    }
}

fn invalid(byte: u8, context: &str) -> SyntaxError {
    let shown = match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        // A byte is shown as the character of the same number.
        byte => {
            let quoted = crate::field::go_quote(&char::from(byte).to_string());
            format!("'{}'", quoted.trim_matches('"'))
        }
    };
    SyntaxError::Json(format!("invalid character {shown} {context}"))
}

fn end() -> SyntaxError {
    SyntaxError::Json("unexpected end of JSON input".to_owned())
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self) -> Result<u8, SyntaxError> {
        let byte = self.peek().ok_or_else(end)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Raw, SyntaxError> {
        if depth > self.limits.max_depth {
            return Err(SyntaxError::Json("exceeded max depth".to_owned()));
        }
        self.nodes += 1;
        if self.nodes > self.limits.max_nodes {
            return Err(SyntaxError::TooManyValues { limit: self.limits.max_nodes });
        }
        self.skip_space();
        let start = self.at;
        match self.take()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Raw::String),
            b't' => self.literal("true", Raw::Bool(true)),
            b'f' => self.literal("false", Raw::Bool(false)),
            b'n' => self.literal("null", Raw::Null),
            b'-' | b'0'..=b'9' => {
                self.at = start;
                self.number()
            }
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str, value: Raw) -> Result<Raw, SyntaxError> {
        for want in word.bytes().skip(1) {
            let byte = self.take()?;
            if byte != want {
                return Err(invalid(byte, &format!("in literal {word} (expecting '{}')", char::from(want))));
            }
        }
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Raw, SyntaxError> {
        let mut entries = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Raw::Object(entries));
        }
        loop {
            self.skip_space();
            match self.take()? {
                b'"' => {}
                byte => return Err(invalid(byte, "looking for beginning of object key string")),
            }
            let key = self.string()?;
            self.skip_space();
            match self.take()? {
                b':' => {}
                byte => return Err(invalid(byte, "after object key")),
            }
            entries.push((key, self.value(depth + 1)?));
            self.skip_space();
            match self.take()? {
                b',' => {}
                b'}' => return Ok(Raw::Object(entries)),
                byte => return Err(invalid(byte, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Raw, SyntaxError> {
        let mut elements = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Raw::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.skip_space();
            match self.take()? {
                b',' => {}
                b']' => return Ok(Raw::Array(elements)),
                byte => return Err(invalid(byte, "after array element")),
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Raw, SyntaxError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.take()? {
            b'0' => {}
            b'1'..=b'9' => {
                self.digits();
            }
            byte => return Err(invalid(byte, "in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self
                    .peek()
                    .map_or_else(end, |b| invalid(b, "after decimal point in numeric literal")));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.peek().map_or_else(end, |b| invalid(b, "in exponent of numeric literal")));
            }
        }
        let text = String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned();
        Ok(Raw::Number(text))
    }

    /// The rest of a string whose opening quote is read. Bytes that are no UTF-8 become U+FFFD, as in Go.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let mut out: Vec<u8> = Vec::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|b| b >= 0x20 && b != b'"' && b != b'\\') {
                self.at += 1;
            }
            out.extend_from_slice(&self.bytes[start..self.at]);
            match self.take()? {
                b'"' => {
                    return Ok(String::from_utf8(out)
                        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()));
                }
                b'\\' => {
                    let c = self.escape()?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                byte => return Err(invalid(byte, "in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        Ok(match self.take()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
                    let back = self.at;
                    self.at += 2;
                    let second = self.hex()?;
                    if (0xdc00..0xe000).contains(&second) {
                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = back;
                }
                char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            byte => return Err(invalid(byte, "in string escape code")),
        })
    }

    fn hex(&mut self) -> Result<u32, SyntaxError> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.take()?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| invalid(byte, "in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
        }
        Ok(code)
    }
}
