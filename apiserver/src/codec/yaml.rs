//! Writing YAML: block style, keys sorted, as `sigs.k8s.io/yaml` writes it.

use std::fmt::Write;

use serde_json::Value;

/// The value as a YAML document.
pub(super) fn encode(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(list) if !list.is_empty() => sequence(&mut out, list, 0),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn mapping(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            pad(out, indent);
        }
        out.push_str(&text(key));
        out.push(':');
        entry(out, &map[key], indent);
    }
}

fn entry(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(out, map, indent + 2);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            // Lists stand at the depth of their key.
            sequence(out, list, indent);
        }
        Value::String(lines) if is_block(lines) => block(out, lines, indent + 2),
        other => {
            out.push(' ');
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

fn sequence(out: &mut String, list: &[Value], indent: usize) {
    for (index, item) in list.iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, indent + 2),
            Value::Array(list) if !list.is_empty() => sequence(out, list, indent + 2),
            other => {
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// Whether a text is best written as a literal block.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control())
        && !text.contains(" \n")
}

fn block(out: &mut String, text: &str, indent: usize) {
    let trimmed = text.trim_end_matches('\n');
    let ends = text.len() - trimmed.len();
    out.push_str(match ends {
        0 => " |-\n",
        1 => " |\n",
        _ => " |+\n",
    });
    for line in trimmed.split('\n') {
        if !line.is_empty() {
            pad(out, indent);
        }
        out.push_str(line);
        out.push('\n');
    }
    out.extend(std::iter::repeat_n('\n', ends.saturating_sub(1)));
}

/// A text, quoted where YAML would read something else.
fn text(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    if text.chars().all(|c| !c.is_control()) && looks_like_another_type(text) {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let mut out = String::with_capacity(text.len() + 2);
    if text.chars().all(|c| !c.is_control()) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
        return out;
    }
    // JSON's escapes are YAML's too.
    let _ = write!(out, "{}", Value::from(text));
    out
}

fn looks_like_another_type(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_word = matches!(
        lower.as_str(),
        "" | "~"
            | "null"
            | "true"
            | "false"
            | "yes"
            | "no"
            | "on"
            | "off"
            | "y"
            | "n"
            | ".nan"
            | ".inf"
            | "-.inf"
            | "+.inf"
    );
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        && text.chars().any(|c| c.is_ascii_digit())
        && text.chars().all(|c| {
            c.is_ascii_hexdigit() || matches!(c, '-' | '+' | '.' | '_' | ':' | 'x' | 'o' | 'T' | 'Z' | ' ')
        });
    is_word || is_number
}

fn is_plain(text: &str) -> bool {
    const INDICATORS: &[char] = &[
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', '=',
    ];
    let starts_well = match text.chars().next() {
        None => false,
        Some('-' | '?' | ':') => text.len() > 1 && !text[1..].starts_with(' '),
        Some(first) => !INDICATORS.contains(&first) && !first.is_whitespace(),
    };
    starts_well
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| !c.is_control() && c != '\u{feff}')
        && !looks_like_another_type(text)
        && text != "<<"
        && !text.starts_with("---")
        && !text.starts_with("...")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_read_as_gos_and_read_back() {
        let value = json!({"kind": "X", "metadata": {}, "n": 1, "list": [{"a": "1", "b": ["x", "true"]}, "y"],
            "text": "two\nlines\n", "odd": "- a: b", "colon": "a: b", "none": null, "message": "configmaps \"a\" not found",
            "tab": "a\tb\u{7}", "nested": [[1, 2], []], "time": "2026-01-02T03:04:05Z"});
        let text = encode(&value);
        assert!(text.contains("metadata: {}\n"), "{text}");
        assert!(text.contains("message: configmaps \"a\" not found\n"), "{text}");
        assert!(text.contains("list:\n- a: \"1\"\n  b:\n  - x\n  - \"true\"\n- \"y\"\n"), "{text}");
        assert!(text.contains("text: |\n  two\n  lines\n"), "{text}");
        let limits = wherry_machinery::decode::Limits::default();
        let back = wherry_machinery::decode::decode_yaml(text.as_bytes(), &limits).unwrap().into_value();
        assert_eq!(back, value, "{text}");
    }
}
