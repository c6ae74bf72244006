//! Checks of single fields that many kinds share, worded as Kubernetes words them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, ErrorType, Path};
use wherry_machinery::names;

/// A number that may not be negative is.
pub(crate) const NEGATIVE: &str = "must be greater than or equal to 0";
/// A number that must be positive is not.
pub(crate) const NOT_POSITIVE: &str = "must be greater than zero";
/// A field that is fixed at creation changed.
pub(crate) const IMMUTABLE: &str = "field is immutable";
/// A file mode out of range.
pub(crate) const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// The protocols of a port, in the order Kubernetes lists them.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// The text of an optional field.
pub(crate) fn s(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

/// One `Invalid value` per problem.
pub(crate) fn invalid_each(path: &Path, value: &str, problems: Vec<String>) -> ErrorList {
    problems.iter().map(|problem| Error::invalid(path, value, problem)).collect()
}

/// A struct as Go prints it in an error: as JSON, in the order of its fields.
pub(crate) fn go_struct(parts: &[(&str, Value)]) -> String {
    let parts: Vec<String> = parts.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", parts.join(","))
}

/// `Duplicate value` of a value that is printed already.
pub(crate) fn duplicate_printed(path: &Path, value: &str) -> Error {
    Error { path: path.clone(), error_type: ErrorType::Duplicate, body: format!("Duplicate value: {value}") }
}

/// `Invalid value` of a value that is printed already.
pub(crate) fn invalid_printed(path: &Path, value: &str, detail: &str) -> Error {
    Error {
        path: path.clone(),
        error_type: ErrorType::Invalid,
        body: format!("Invalid value: {value}: {detail}"),
    }
}

/// A DNS-1123 label.
pub(crate) fn dns_label(value: &str, path: &Path) -> ErrorList {
    invalid_each(path, value, names::dns1123_label(value))
}

/// A DNS-1123 subdomain.
pub(crate) fn dns_subdomain(value: &str, path: &Path) -> ErrorList {
    invalid_each(path, value, names::dns1123_subdomain(value))
}

/// A name with an optional DNS subdomain before a slash.
pub(crate) fn qualified_name(value: &str, path: &Path) -> ErrorList {
    invalid_each(path, value, names::qualified_name(value))
}

/// The key of a label.
pub(crate) fn label_key(value: &str, path: &Path) -> ErrorList {
    invalid_each(path, value, names::qualified_name(value))
}

/// Labels, or a map that must look like labels.
pub(crate) fn labels(labels: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        errors.extend(label_key(key, path));
        errors.extend(invalid_each(path, value, names::label_value(value)));
    }
    errors
}

/// The keys of annotations; their values may hold anything up to a total size.
pub(crate) fn annotations(annotations: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    /// Bytes; `TotalAnnotationSizeLimitB` of apimachinery.
    const MAX_TOTAL_BYTES: usize = 256 * 1024;
    let mut errors = ErrorList::new();
    let mut total = 0;
    for (key, value) in annotations {
        errors.extend(invalid_each(path, key, names::qualified_name(&key.to_lowercase())));
        total += key.len() + value.len();
    }
    if total > MAX_TOTAL_BYTES {
        errors.push(Error::too_long(path, MAX_TOTAL_BYTES));
    }
    errors
}

/// A port number.
pub(crate) fn port_number(port: i64, path: &Path) -> ErrorList {
    names::port_number(port).iter().map(|problem| Error::invalid(path, port, problem)).collect()
}

/// A port number or the name of a port.
pub(crate) fn port_number_or_name(port: &IntOrString, path: &Path) -> ErrorList {
    match port {
        IntOrString::Int(number) => port_number(i64::from(*number), path),
        IntOrString::String(name) => invalid_each(path, name, names::port_name(name)),
    }
}

/// A number that may not be negative.
pub(crate) fn non_negative(value: i64, path: &Path) -> ErrorList {
    if value < 0 { vec![Error::invalid(path, value, NEGATIVE)] } else { ErrorList::new() }
}

/// A field that is fixed at creation.
pub(crate) fn immutable(new: Option<&Value>, old: Option<&Value>, path: &Path) -> ErrorList {
    let absent = Value::Null;
    let (new, old) = (new.unwrap_or(&absent), old.unwrap_or(&absent));
    if new == old { ErrorList::new() } else { vec![Error::invalid(path, new.clone(), IMMUTABLE)] }
}

/// An IP address in its usual form.
pub(crate) fn ip(value: &str, path: &Path) -> ErrorList {
    invalid_each(path, value, names::is_valid_ip(value))
}

/// A network in CIDR form.
pub(crate) fn cidr(value: &str, path: &Path) -> ErrorList {
    invalid_each(path, value, names::is_valid_cidr(value))
}

/// An address that a Service or endpoint may name. `loopback` is allowed where the cluster's own network lies in it.
pub(crate) fn non_special_ip(value: &str, path: &Path, loopback_allowed: bool) -> ErrorList {
    let Some(address) = names::parse_ip(value) else {
        return vec![Error::invalid(path, value, "must be a valid IP address")];
    };
    let mut errors = ErrorList::new();
    if address.is_unspecified() {
        errors.push(Error::invalid(path, value, &format!("may not be unspecified ({value})")));
    }
    if address.is_loopback() && !loopback_allowed {
        errors.push(Error::invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.push(Error::invalid(
            path,
            value,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ));
    }
    if link_local_multicast {
        let text = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errors.push(Error::invalid(path, value, text));
    }
    errors
}

/// A path that must stay inside its directory.
pub(crate) fn no_backsteps(value: &str, path: &Path) -> ErrorList {
    if value.split('/').any(|part| part == "..") {
        vec![Error::invalid(path, value, "must not contain '..'")]
    } else {
        ErrorList::new()
    }
}

/// A relative path that stays inside its directory.
pub(crate) fn local_path(value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if value.starts_with('/') {
        errors.push(Error::invalid(path, value, "must be a relative path"));
    }
    errors.extend(no_backsteps(value, path));
    errors
}

/// A relative path that stays inside its directory and does not start with the reserved `..`.
pub(crate) fn local_non_reserved_path(value: &str, path: &Path) -> ErrorList {
    let mut errors = local_path(value, path);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(Error::invalid(path, value, "must not start with '..'"));
    }
    errors
}

/// A file mode.
pub(crate) fn file_mode(mode: Option<i32>, path: &Path) -> ErrorList {
    match mode {
        Some(mode) if !(0..=0o777).contains(&mode) => vec![Error::invalid(path, mode, FILE_MODE)],
        _ => ErrorList::new(),
    }
}

/// A label selector.
pub(crate) fn label_selector(selector: Option<&LabelSelector>, path: &Path) -> ErrorList {
    let Some(selector) = selector else { return ErrorList::new() };
    let mut errors = ErrorList::new();
    if let Some(match_labels) = &selector.match_labels {
        errors.extend(labels(match_labels, &path.child("matchLabels")));
    }
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    let text = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(Error::required(&path.child("values"), text));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(Error::forbidden(&path.child("values"), text));
                }
            }
            other => {
                errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator"))
            }
        }
        errors.extend(label_key(&requirement.key, &path.child("key")));
        for (j, value) in values.iter().enumerate() {
            errors.extend(invalid_each(&path.child("values").index(j), value, names::label_value(value)));
        }
    }
    errors
}

/// A number or a percentage, neither negative.
pub(crate) fn non_negative_or_percent(value: &IntOrString, path: &Path) -> ErrorList {
    match value {
        IntOrString::Int(number) => non_negative(i64::from(*number), path),
        IntOrString::String(text) => invalid_each(path, text, names::percent(text)),
    }
}

/// The value of a percentage; nothing for a plain number.
pub(crate) fn percentage(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
    }
}

/// How an `IntOrString` stands in an error.
pub(crate) fn int_or_string(value: &IntOrString) -> Value {
    match value {
        IntOrString::Int(number) => json!(number),
        IntOrString::String(text) => json!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused_by_range() {
        let path = Path::new("ip");
        let table = [
            ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
            ("169.254.1.1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
            ("224.0.0.5", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
            ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ];
        for (address, detail) in table {
            assert_eq!(non_special_ip(address, &path, false), vec![Error::invalid(&path, address, detail)]);
        }
        assert!(non_special_ip("127.64.0.3", &path, true).is_empty());
        assert!(non_special_ip("10.0.0.1", &path, false).is_empty());
    }

    #[test]
    fn paths_stay_inside_their_directory() {
        let path = Path::new("p");
        let table = [
            ("a/b", ""),
            ("../up", "must not contain '..'"),
            ("/abs", "must be a relative path"),
            ("..data", "must not start with '..'"),
        ];
        for (value, detail) in table {
            let expected =
                if detail.is_empty() { vec![] } else { vec![Error::invalid(&path, value, detail)] };
            assert_eq!(local_non_reserved_path(value, &path), expected);
        }
    }
}
