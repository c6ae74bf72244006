//! Reading YAML as `sigs.k8s.io/yaml` reads it: one document, turned into JSON, with the scalars of YAML 1.1.
//!
//! Bounded: by bytes, depth and the number of values after aliases are expanded.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::{Limits, Raw, SyntaxError};
use crate::field::go_quote;

/// A document and the keys that stand in it twice, in Go's words.
pub(super) struct Parsed {
    pub(super) root: Raw,
    pub(super) duplicates: Vec<String>,
}

/// A resolved scalar.
enum Scalar {
    Null,
    Merge,
    Value(Raw),
}

struct Reader<'a> {
    events: Vec<(Event<'a>, usize)>,
    at: usize,
    limits: &'a Limits,
    nodes: usize,
    /// Anchored nodes that are complete, with the number of values in them.
    anchors: HashMap<usize, (Raw, usize)>,
    duplicates: Vec<String>,
}

fn failure(line: usize, message: &str) -> SyntaxError {
    SyntaxError::Yaml(format!("yaml: line {line}: {message}"))
}

/// The parser's words, in those of libyaml where that is known.
fn translate(error: &ScanError) -> SyntaxError {
    let info = error.info();
    let line = error.marker().line();
    let has = |part: &str| info.contains(part);
    let message = if has("',' or ']'") || has("illegal placement of ':' indicator") {
        "did not find expected ',' or ']'"
    } else if has("',' or '}'") {
        "did not find expected ',' or '}'"
    } else if has("unclosed bracket") || has("node content") || has("unexpected end of") {
        "did not find expected node content"
    } else if has("expected <block end>") || has("expected key") {
        "did not find expected key"
    } else if has("mapping values are not allowed") {
        return failure(line, "mapping values are not allowed in this context");
    } else {
        return failure(line, &info);
    };
    // Go counts lines from zero where the grammar, not the scanner, fails.
    failure(line.saturating_sub(1).max(1), message)
}

pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, SyntaxError> {
    if bytes.len() > limits.max_bytes {
        return Err(SyntaxError::TooLarge { limit_bytes: limits.max_bytes });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| SyntaxError::Yaml("yaml: invalid leading UTF-8 octet".to_owned()))?;
    let nesting = limits.max_depth.min(255);
    let options = serde_saphyr::granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: nesting,
        block_nesting_limit: nesting,
    };
    let mut events = Vec::new();
    for item in Parser::new_from_str_with_options(text, options) {
        let (event, span) = item.map_err(|error| translate(&error))?;
        if events.len() > limits.max_nodes.saturating_mul(2) {
            return Err(SyntaxError::TooManyValues { limit: limits.max_nodes });
        }
        events.push((event, span.start.line()));
    }
    let mut reader =
        Reader { events, at: 0, limits, nodes: 0, anchors: HashMap::new(), duplicates: Vec::new() };
    reader.document()
}

impl Reader<'_> {
    fn next(&mut self) -> Option<(Event<'static>, usize)> {
        let (event, line) = self.events.get_mut(self.at)?;
        self.at += 1;
        let event = std::mem::replace(event, Event::StreamEnd);
        Some((owned(event), *line))
    }

    fn document(&mut self) -> Result<Parsed, SyntaxError> {
        let mut root: Option<Raw> = None;
        while let Some((event, line)) = self.next() {
            match event {
                Event::DocumentStart(..) => {
                    self.anchors.clear();
                    let node =
                        self.next().ok_or_else(|| failure(line, "did not find expected node content"))?;
                    let value = self.node(node, 0)?;
                    match (&root, &value) {
                        (None, _) => root = Some(value),
                        // `---` at the end of a file starts a document of nothing.
                        (Some(_), Raw::Null) => {}
                        (Some(_), _) => {
                            return Err(failure(line, "expected a single document in the stream"));
                        }
                    }
                }
                Event::StreamEnd => break,
                _ => {}
            }
        }
        let mut duplicates = Vec::new();
        std::mem::swap(&mut duplicates, &mut self.duplicates);
        Ok(Parsed { root: root.unwrap_or(Raw::Null), duplicates })
    }

    fn count(&mut self, nodes: usize) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > self.limits.max_nodes {
            return Err(SyntaxError::TooManyValues { limit: self.limits.max_nodes });
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, value: &Raw, before: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), self.nodes.saturating_sub(before)));
        }
    }

    fn node(&mut self, (event, line): (Event<'static>, usize), depth: usize) -> Result<Raw, SyntaxError> {
        if depth > self.limits.max_depth {
            return Err(SyntaxError::Yaml("yaml: exceeded max depth".to_owned()));
        }
        let before = self.nodes;
        self.count(1)?;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = match resolve(&text, style, tag.as_deref(), line)? {
                    Scalar::Null => Raw::Null,
                    Scalar::Merge => Raw::String(text.into_owned()),
                    Scalar::Value(value) => value,
                };
                self.anchor(anchor, &value, before);
                Ok(value)
            }
            Event::Alias(id) => {
                let (value, nodes) = self
                    .anchors
                    .get(&id)
                    .cloned()
                    .ok_or_else(|| failure(line, "anchor value contains itself"))?;
                self.count(nodes)?;
                Ok(value)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut elements = Vec::new();
                loop {
                    let next =
                        self.next().ok_or_else(|| failure(line, "did not find expected node content"))?;
                    if matches!(next.0, Event::SequenceEnd) {
                        break;
                    }
                    elements.push(self.node(next, depth + 1)?);
                }
                let value = Raw::Array(elements);
                self.anchor(anchor, &value, before);
                Ok(value)
            }
            Event::MappingStart(_, anchor, _) => {
                let value = self.mapping(line, depth)?;
                self.anchor(anchor, &value, before);
                Ok(value)
            }
            _ => Err(failure(line, "did not find expected node content")),
        }
    }

    fn mapping(&mut self, line: usize, depth: usize) -> Result<Raw, SyntaxError> {
        let mut entries: Vec<(String, Raw)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut merged: Vec<Raw> = Vec::new();
        loop {
            let missing = || failure(line, "did not find expected key");
            let (event, key_line) = self.next().ok_or_else(missing)?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node((event, key_line), depth + 1)?;
            let value = self.next().ok_or_else(missing)?;
            let value = self.node(value, depth + 1)?;
            if is_merge {
                match value {
                    Raw::Array(values) => merged.extend(values),
                    value => merged.push(value),
                }
                continue;
            }
            let (key, shown) = key_text(key, key_line)?;
            // The last one counts, in its own place; strict decoding says so.
            if let Some(place) = places.insert(key.clone(), entries.len()) {
                self.duplicates.push(format!("line {key_line}: key {shown} already set in map"));
                entries[place].1 = value;
                places.insert(key, place);
            } else {
                entries.push((key, value));
            }
        }
        for source in merged {
            let Raw::Object(source) = source else {
                return Err(SyntaxError::Yaml(
                    "yaml: map merge requires map or sequence of maps as the value".to_owned(),
                ));
            };
            for (key, value) in source {
                if !places.contains_key(&key) {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Raw::Object(entries))
    }
}

/// A key in JSON, and as Go shows it.
fn key_text(key: Raw, line: usize) -> Result<(String, String), SyntaxError> {
    match key {
        Raw::String(text) => {
            let shown = go_quote(&text);
            Ok((text, shown))
        }
        Raw::Bool(is_true) => Ok((is_true.to_string(), is_true.to_string())),
        Raw::Number(text) => Ok((text.clone(), text)),
        Raw::Null => Ok(("null".to_owned(), "<nil>".to_owned())),
        Raw::Array(_) | Raw::Object(_) => Err(failure(line, "invalid map key")),
    }
}

fn owned(event: Event<'_>) -> Event<'static> {
    use std::borrow::Cow;
    let tag = |tag: Option<Cow<'_, Tag>>| tag.map(|tag| Cow::Owned(tag.into_owned()));
    match event {
        Event::Scalar(text, style, anchor, t) => {
            Event::Scalar(Cow::Owned(text.into_owned()), style, anchor, tag(t))
        }
        Event::SequenceStart(style, anchor, t) => Event::SequenceStart(style, anchor, tag(t)),
        Event::MappingStart(style, anchor, t) => Event::MappingStart(style, anchor, tag(t)),
        Event::Alias(id) => Event::Alias(id),
        Event::SequenceEnd => Event::SequenceEnd,
        Event::MappingEnd => Event::MappingEnd,
        Event::DocumentStart(is_explicit, version) => Event::DocumentStart(is_explicit, version),
        Event::DocumentEnd => Event::DocumentEnd,
        Event::StreamStart => Event::StreamStart,
        _ => Event::StreamEnd,
    }
}

fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Scalar, SyntaxError> {
    match tag.and_then(Tag::core_suffix) {
        Some("str") => return Ok(Scalar::Value(Raw::String(text.to_owned()))),
        Some(kind @ ("int" | "float" | "bool" | "null")) => {
            let value = plain(text);
            let fits = matches!(
                (&value, kind),
                (Scalar::Value(Raw::Number(_)), "int" | "float")
                    | (Scalar::Value(Raw::Bool(_)), "bool")
                    | (Scalar::Null, "null")
            );
            let message = format!("cannot decode !!str `{text}` as a !!{kind}");
            return if fits { Ok(value) } else { Err(failure(line, &message)) };
        }
        _ => {}
    }
    if let Some(tag) = tag
        && tag.suffix() == "binary"
    {
        return binary(text);
    }
    if style != ScalarStyle::Plain {
        return Ok(Scalar::Value(Raw::String(text.to_owned())));
    }
    Ok(plain(text))
}

/// `!!binary`: base64 of a text.
fn binary(text: &str) -> Result<Scalar, SyntaxError> {
    use base64::Engine as _;
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let wrong = || SyntaxError::Yaml("yaml: !!binary value contains invalid base64 data".to_owned());
    let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(|_| wrong())?;
    String::from_utf8(bytes).map(|text| Scalar::Value(Raw::String(text))).map_err(|_| wrong())
}

/// A scalar without quotes or tag, by the rules of YAML 1.1.
fn plain(text: &str) -> Scalar {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "<<" => return Scalar::Merge,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Raw::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Raw::Bool(false)
        }
        _ => number(text).map_or_else(|| Raw::String(text.to_owned()), Raw::Number),
    };
    Scalar::Value(value)
}

/// Whether a text without quotes is read as that text, and not as a number, a truth value or nothing.
pub(crate) fn is_plain_yaml_text(text: &str) -> bool {
    // Infinity and "not a number" are numbers to Go.
    let lower = text.to_ascii_lowercase();
    let is_float_word = matches!(lower.trim_start_matches(['+', '-']), ".inf" | ".nan");
    !is_float_word && matches!(plain(text), Scalar::Value(Raw::String(_)))
}

/// A number in JSON's form, if the text is a number to YAML 1.1.
fn number(text: &str) -> Option<String> {
    if !text.bytes().next().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.')) {
        return None;
    }
    let compact = text.replace('_', "");
    if let Some(integer) = integer(&compact) {
        return Some(integer);
    }
    if !is_float(&compact) {
        return None;
    }
    let float: f64 = compact.parse().ok()?;
    if !float.is_finite() {
        return None;
    }
    let shown = serde_json::Number::from_f64(float)?.to_string();
    Some(shown.strip_suffix(".0").map_or(shown.clone(), str::to_owned))
}

fn integer(text: &str) -> Option<String> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |digits: &str, radix: u32| -> Option<u64> {
        // `from_str_radix` would take a sign of its own.
        digits.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| u64::from_str_radix(digits, radix).ok())?
    };
    let lower = digits.to_ascii_lowercase();
    let magnitude = if let Some(hex) = lower.strip_prefix("0x") {
        radix(hex, 16)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        radix(binary, 2)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        radix(octal, 8)
    } else if lower.len() > 1 && lower.starts_with('0') {
        radix(&lower[1..], 8)
    } else {
        radix(&lower, 10)
    }?;
    if !is_negative {
        return Some(magnitude.to_string());
    }
    let negative = -i128::from(magnitude);
    i64::try_from(negative).ok().map(|value| value.to_string())
}

/// Sign, digits, at most one point, and an exponent that must have a sign.
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let has_number = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            (whole.is_empty() || digits(whole))
                && (digits(fraction) || (fraction.is_empty() && digits(whole)))
        }
        None => digits(mantissa),
    };
    has_number
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}
