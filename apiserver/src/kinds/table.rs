//! Cells of the Table form that several kinds share.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{list, text};

/// What stands for nothing in most columns.
pub(crate) const NONE: &str = "<none>";

/// Seconds since the epoch of an RFC 3339 text.
pub(crate) fn unix_seconds(timestamp: &str) -> Option<i64> {
    wherry_machinery::time::parse(timestamp).ok().map(wherry_machinery::time::Timestamp::unix_seconds)
}

/// How long ago a timestamp is; `<unknown>` if there is none.
pub(crate) fn since(timestamp: &str, now_unix_seconds: i64) -> String {
    match unix_seconds(timestamp) {
        Some(then) => human_duration(now_unix_seconds - then),
        None => "<unknown>".to_owned(),
    }
}

/// The age of an object.
pub(crate) fn age(object: &Value, now_unix_seconds: i64) -> Value {
    since(text(object, "/metadata/creationTimestamp"), now_unix_seconds).into()
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

/// A duration with two or three significant figures. Source: `k8s.io/apimachinery/pkg/util/duration.HumanDuration`.
pub(crate) fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return two(minutes, 'm', seconds % 60, 's');
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = seconds / 3600;
    if hours < 8 {
        return two(hours, 'h', minutes % 60, 'm');
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    let days = hours / 24;
    if hours < 24 * 8 {
        return two(days, 'd', hours % 24, 'h');
    }
    if hours < 24 * 365 * 2 {
        return format!("{days}d");
    }
    if hours < 24 * 365 * 8 {
        return two(days / 365, 'y', days % 365, 'd');
    }
    format!("{}y", days / 365)
}

fn two(large: i64, large_unit: char, small: i64, small_unit: char) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

/// The names and the images of a pod spec's containers.
pub(crate) fn container_cells(pod_spec: &Value) -> (String, String) {
    let of = |field: &str| {
        list(pod_spec, "/containers").iter().map(|c| text(c, field)).collect::<Vec<_>>().join(",")
    };
    (of("/name"), of("/image"))
}

/// A map of labels as `a=b,c=d`; `<none>` if empty.
pub(crate) fn label_text(labels: Option<&Value>) -> String {
    let pairs: BTreeMap<&str, &str> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        return NONE.to_owned();
    }
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A `meta/v1.LabelSelector` in the grammar of `kubectl -l`; empty for the selector of everything.
pub(crate) fn selector_text(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut parts: Vec<(&str, String)> = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        for (key, value) in labels {
            parts.push((key, format!("{key}={}", value.as_str().unwrap_or_default())));
        }
    }
    for requirement in list(selector, "/matchExpressions") {
        let key = text(requirement, "/key");
        let mut values: Vec<&str> = list(requirement, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(requirement, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key, part));
    }
    parts.sort_by(|a, b| a.0.cmp(b.0));
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// The first `max` of `items`, and how many more there are.
pub(crate) fn with_more(items: &[String], max: usize) -> String {
    let shown = items.iter().take(max).cloned().collect::<Vec<_>>().join(",");
    if items.len() > max { format!("{shown} + {} more...", items.len() - max) } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        let table = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (8 * 86_400, "8d"),
            (800 * 86_400, "2y70d"),
            (3000 * 86_400, "8y"),
        ];
        for (seconds, expected) in table {
            assert_eq!(human_duration(seconds), expected);
        }
    }

    #[test]
    fn selectors_are_printed_in_kubectls_grammar() {
        let selector = json!({
            "matchLabels": {"tier": "web", "app": "d"},
            "matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["b", "a"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "env", "operator": "Exists"},
            ],
        });
        assert_eq!(selector_text(Some(&selector)), "app=d,env,!old,tier=web,zone in (a,b)");
        assert_eq!(label_text(Some(&json!({}))), "<none>");
    }
}
