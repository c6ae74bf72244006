//! Objects as bytes: JSON and YAML. Both depend on the object alone, so equal objects have equal bytes.

use serde_json::Value;

use crate::decode::is_plain_yaml_text;

/// An object as JSON: `kind`, `apiVersion` and `metadata` first, as Kubernetes writes them, then the rest by name.
pub fn encode_json(value: &Value) -> Vec<u8> {
    let Value::Object(object) = value else { return value.to_string().into_bytes() };
    let first = ["kind", "apiVersion", "metadata"];
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    let mut write = |key: &str, value: &Value| {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(Value::from(key).to_string().as_bytes());
        out.push(b':');
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut out, value);
    };
    for key in first {
        if let Some(value) = object.get(key) {
            write(key, value);
        }
    }
    let mut rest: Vec<(&String, &Value)> =
        object.iter().filter(|(key, _)| !first.contains(&key.as_str())).collect();
    rest.sort_unstable_by_key(|(key, _)| *key);
    for (key, value) in rest {
        write(key, value);
    }
    out.push(b'}');
    out
}

/// A value as a YAML document, laid out as Kubernetes lays it out: by name, lists not indented.
pub fn encode_yaml(value: &Value) -> String {
    let mut out = String::with_capacity(512);
    match value {
        Value::Object(object) if !object.is_empty() => block(value, 0, &mut out),
        Value::Array(elements) if !elements.is_empty() => block(value, 0, &mut out),
        _ => {
            out.push_str(&scalar(value, 0));
            out.push('\n');
        }
    }
    out
}

/// A list or object that is not empty, every line indented.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<(&String, &Value)> = object.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            for (index, (key, value)) in entries.into_iter().enumerate() {
                // The first entry of a list element stands on the dash's line.
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str(&text(key, indent + 2, false));
                out.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        out.push('\n');
                        block(value, indent + 2, out);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        out.push('\n');
                        block(value, indent, out);
                    }
                    _ => {
                        out.push(' ');
                        out.push_str(&scalar(value, indent + 2));
                        out.push('\n');
                    }
                }
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str("- ");
                let is_block = match element {
                    Value::Object(inner) => !inner.is_empty(),
                    Value::Array(inner) => !inner.is_empty(),
                    _ => false,
                };
                if is_block {
                    block(element, indent + 2, out);
                } else {
                    out.push_str(&scalar(element, indent + 2));
                    out.push('\n');
                }
            }
        }
        _ => {}
    }
}

fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::String(value) => text(value, indent, true),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A text: plain where it reads back as the same text, as a block where it has lines, else quoted.
fn text(value: &str, indent: usize, can_be_block: bool) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    let has_lines = value.trim_end_matches('\n').contains('\n');
    let is_printable = !value.chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || c == '\u{feff}');
    let starts_well = !value.starts_with([' ', '\n', '\t']);
    if can_be_block && has_lines && is_printable && starts_well {
        let body = value.trim_end_matches('\n');
        let chomping = match value.len() - body.len() {
            0 => "-",
            1 => "",
            _ => "+",
        };
        let mut out = format!("|{chomping}");
        for line in value.strip_suffix('\n').unwrap_or(value).split('\n') {
            out.push('\n');
            if !line.is_empty() {
                out.push_str(&" ".repeat(indent));
                out.push_str(line);
            }
        }
        return out;
    }
    // JSON's quoting is YAML's as well.
    Value::from(value).to_string()
}

fn is_plain(value: &str) -> bool {
    let is_indicator = value.starts_with([
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' ',
        '=',
    ]);
    let is_dashed_word = value.starts_with('-') && value[1..].starts_with(|c: char| c.is_ascii_alphabetic());
    (!is_indicator || is_dashed_word)
        && !value.ends_with([' ', ':'])
        && !value.contains(": ")
        && !value.contains(" #")
        && !value.chars().any(|c| c.is_control() || c == '\u{feff}')
        && is_plain_yaml_text(value)
        && !starts_like_a_date(value)
}

/// Kubernetes quotes what YAML 1.1 could take for a time.
fn starts_like_a_date(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-'
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::{Limits, decode_yaml};

    #[test]
    fn json_starts_with_what_the_object_is() {
        let object = json!({"a": 1, "metadata": {"name": "n"}, "kind": "K", "apiVersion": "v1", "z": "<"});
        let bytes = encode_json(&object);
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"kind":"K","apiVersion":"v1","metadata":{"name":"n"},"a":1,"z":"<"}"#
        );
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), object);
        assert_eq!(encode_json(&json!({})), b"{}");
        assert_eq!(encode_json(&json!([1])), b"[1]");
    }

    #[test]
    fn yaml_is_laid_out_as_kubernetes_lays_it_out() {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "configmaps \"absent\" not found", "reason": "NotFound",
            "details": {"name": "absent", "kind": "configmaps"}, "code": 404,
        });
        assert_eq!(
            encode_yaml(&status),
            "apiVersion: v1\ncode: 404\ndetails:\n  kind: configmaps\n  name: absent\nkind: Status\nmessage: configmaps \"absent\" not found\nmetadata: {}\nreason: NotFound\nstatus: Failure\n"
        );
        let pod = json!({"spec": {"containers": [{"args": ["-v", "a b"], "name": "a"}, {"name": "b", "ports": [{"port": 1}]}]}});
        assert_eq!(
            encode_yaml(&pod),
            "spec:\n  containers:\n  - args:\n    - -v\n    - a b\n    name: a\n  - name: b\n    ports:\n    - port: 1\n"
        );
    }

    #[test]
    fn yaml_reads_back_as_what_was_written() {
        let texts = [
            "",
            " ",
            "y",
            "yes",
            "null",
            "~",
            "1",
            "1.5",
            "0x1",
            "1e3",
            "true",
            "a: b",
            "a #b",
            "#a",
            "- a",
            "-",
            "--flag",
            "a:",
            "a\nb",
            "a\nb\n",
            "a\n\nb\n\n",
            " a\nb",
            "\n",
            "a\tb",
            "\u{1}",
            "é😀",
            "2026-01-02T03:04:05Z",
            "<<",
            "=",
            "*a",
            "&a",
            "'a'",
            "\"a\"",
            "[a]",
            "{a}",
            "%a",
            "@a",
            "`a`",
            "a ",
            "!a",
            "|",
            ">",
            "10.0.0.1",
            "a,b",
            "\r\n",
            "a\r\nb",
            "\u{feff}a",
            "a\n # b\n",
        ];
        for text in texts {
            let value =
                json!({"a": text, "list": [text, [text], {"k": text}], "nested": {text: [], "x": {}}});
            let yaml = encode_yaml(&value);
            let read = decode_yaml(yaml.as_bytes(), &Limits::default());
            assert_eq!(
                read.unwrap_or_else(|e| panic!("{text:?}: {e}\n{yaml}")).into_value(),
                value,
                "{text:?}\n{yaml}"
            );
        }
        for value in [json!(null), json!([]), json!({}), json!("a"), json!([[1, [2]], null, 1.5, false])] {
            assert_eq!(
                decode_yaml(encode_yaml(&value).as_bytes(), &Limits::default()).unwrap().into_value(),
                value
            );
        }
    }
}
