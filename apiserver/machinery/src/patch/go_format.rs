//! Values as Go's `%v` prints them: `map[a:1 b:[x y]]`.

use serde_json::Value;

pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(is_true) => is_true.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => list(elements),
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_unstable();
            let entries: Vec<String> =
                keys.iter().map(|key| format!("{key}:{}", self::value(&object[*key]))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

pub(super) fn list(elements: &[Value]) -> String {
    let elements: Vec<String> = elements.iter().map(value).collect();
    format!("[{}]", elements.join(" "))
}
