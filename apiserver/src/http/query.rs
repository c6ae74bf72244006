//! The query string, read as Go's `url.Values` are read.

use std::borrow::Cow;

/// The parameters of a request in the order in which they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string; what does not decode is kept as it is.
    pub fn parse(text: &str) -> Self {
        Self(
            text.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (plus_decode(key), plus_decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The first value, if it is not empty.
    pub fn given(&self, key: &str) -> Option<&str> {
        self.first(key).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A boolean as `meta/v1` options read it: anything but `false` and `0` is true, an empty value too.
    pub fn flag(&self, key: &str) -> bool {
        self.first(key).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }
}

fn plus_decode(text: &str) -> String {
    if text.contains('+') { percent_decode(text.replace('+', " ")) } else { percent_decode(text) }
}

/// Percent-decodes; a malformed escape stays as it is.
pub fn percent_decode(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    match String::from_utf8_lossy(&out) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// Percent-encodes all but unreserved characters. Source: RFC 3986, section 2.3.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["plain-1.2_~", "a b&c=d+e%/ä\n", ""] {
            assert_eq!(percent_decode(percent_encode(text)), text);
        }
        assert_eq!(percent_encode("a b"), "a%20b");
    }

    #[test]
    fn values_decode_as_in_go() {
        let query = Query::parse("a=1&b=x%20y+z&c&watch=0&bad=%zz&a=2");
        assert_eq!(query.first("a"), Some("1"));
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.first("b"), Some("x y z"));
        assert_eq!(query.first("c"), Some(""));
        assert_eq!(query.first("bad"), Some("%zz"));
        assert!(query.flag("c") && !query.flag("watch") && !query.flag("none"));
    }
}
