//! What names, label keys, ports and addresses may look like, and Kubernetes' words where they do not.
//!
//! Each function gives the list of what is wrong, empty when nothing is.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation` and `.../api/validate/content`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest DNS-1123 label, in bytes (RFC 1123).
pub const DNS1123_LABEL_MAX_BYTES: usize = 63;
/// The longest DNS-1123 subdomain, in bytes (RFC 1123).
pub const DNS1123_SUBDOMAIN_MAX_BYTES: usize = 253;
/// The longest label value, in bytes.
pub const LABEL_VALUE_MAX_BYTES: usize = 63;

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const UNDERSCORE_FORMAT: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// `must be no more than N characters`, as Kubernetes words a name that is too long.
pub fn max_length_error(length: usize) -> String {
    format!("must be no more than {length} characters")
}

fn max_bytes_error(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// `must be between A and B, inclusive`.
pub fn inclusive_range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A sentence about a format, with its examples and its regular expression, spaced as Kubernetes spaces it.
pub fn regex_error(words: &str, format: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{words} (regex used for validation is '{format}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{words} (e.g. {}regex used for validation is '{format}')", examples.join(" or "))
}

fn is_lower_alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Whether `text` starts with a byte of `first`, ends with one of `last`, and has only bytes of `middle` between.
fn is_shaped(text: &str, first: fn(u8) -> bool, middle: fn(u8) -> bool, last: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => first(*one),
        [head, inner @ .., tail] => first(*head) && last(*tail) && inner.iter().all(|b| middle(*b)),
    }
}

fn is_label_shaped(text: &str) -> bool {
    is_shaped(text, is_lower_alphanumeric, |b| is_lower_alphanumeric(b) || b == b'-', is_lower_alphanumeric)
}

fn is_subdomain_shaped(text: &str) -> bool {
    text.split('.').all(is_label_shaped)
}

fn is_qualified_shaped(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_alphanumeric();
    is_shaped(
        text,
        alphanumeric,
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
        alphanumeric,
    )
}

fn qualified_error() -> String {
    regex_error(QUALIFIED_WORDS, QUALIFIED_FORMAT, &["MyName", "my.name", "123-abc"])
}

/// A DNS-1123 label: the name of a container, a namespace.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > DNS1123_LABEL_MAX_BYTES {
        wrong.push(max_length_error(DNS1123_LABEL_MAX_BYTES));
    }
    if !is_label_shaped(value) {
        wrong.push(if is_subdomain_shaped(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_FORMAT,
                &["my-name", "123-abc"],
            )
        });
    }
    wrong
}

/// A DNS-1123 subdomain: the name of most objects.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX_BYTES {
        wrong.push(max_length_error(DNS1123_SUBDOMAIN_MAX_BYTES));
    }
    if !is_subdomain_shaped(value) {
        wrong.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_FORMAT,
            &["example.com"],
        ));
    }
    wrong
}

/// A DNS-1123 subdomain in which labels may have underscores: DNS search domains of a pod.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX_BYTES {
        wrong.push(max_length_error(DNS1123_SUBDOMAIN_MAX_BYTES));
    }
    let is_label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        is_shaped(
            label,
            is_lower_alphanumeric,
            |b| is_lower_alphanumeric(b) || matches!(b, b'-' | b'_'),
            is_lower_alphanumeric,
        )
    };
    if !value.split('.').all(is_label) {
        wrong.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            UNDERSCORE_FORMAT,
            &["example.com"],
        ));
    }
    wrong
}

/// A DNS-1035 label: the name of a Service.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > DNS1123_LABEL_MAX_BYTES {
        wrong.push(max_length_error(DNS1123_LABEL_MAX_BYTES));
    }
    let is_label = is_shaped(
        value,
        |b| b.is_ascii_lowercase(),
        |b| is_lower_alphanumeric(b) || b == b'-',
        is_lower_alphanumeric,
    );
    if !is_label {
        wrong.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

/// `*.` and a DNS-1123 subdomain: a wildcard host of an Ingress.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX_BYTES {
        wrong.push(max_length_error(DNS1123_SUBDOMAIN_MAX_BYTES));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain_shaped) {
        wrong.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_FORMAT}"),
            &["*.example.com"],
        ));
    }
    wrong
}

/// A label key: an optional DNS subdomain and `/`, and a name.
pub fn qualified_name(value: &str) -> Vec<String> {
    let parts: Vec<&str> = value.split('/').collect();
    let mut wrong = Vec::new();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                // The lengths within label keys are counted in bytes, in Kubernetes' words as well.
                wrong.extend(dns1123_subdomain(prefix).into_iter().map(|message| {
                    let message = if message == max_length_error(DNS1123_SUBDOMAIN_MAX_BYTES) {
                        max_bytes_error(DNS1123_SUBDOMAIN_MAX_BYTES)
                    } else {
                        message
                    };
                    format!("prefix part {message}")
                }));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                qualified_error()
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_VALUE_MAX_BYTES {
        wrong.push(format!("name part {}", max_bytes_error(LABEL_VALUE_MAX_BYTES)));
    }
    if !is_qualified_shaped(name) {
        wrong.push(format!("name part {}", qualified_error()));
    }
    wrong
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > LABEL_VALUE_MAX_BYTES {
        wrong.push(max_bytes_error(LABEL_VALUE_MAX_BYTES));
    }
    if !value.is_empty() && !is_qualified_shaped(value) {
        wrong.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

fn change_directory_prefix(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX_BYTES {
        wrong.push(max_length_error(DNS1123_SUBDOMAIN_MAX_BYTES));
    }
    let is_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if value.is_empty() || !value.bytes().all(is_key) {
        wrong.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    wrong.extend(change_directory_prefix(value));
    wrong
}

/// The name of an environment variable, by the rule in force since 1.34: printable ASCII without `=`.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.is_empty() {
        wrong.push("environment variable name must be non-empty".to_owned());
    }
    if value.bytes().any(|b| !(b' '..=b'~').contains(&b) || b == b'=') {
        wrong.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    wrong
}

/// The name of an environment variable by the older, stricter rule, which still decides what `envFrom` takes over.
pub fn strict_env_var_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_first = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'-' | b'.' | b'_');
    let is_name = value.as_bytes().split_first().is_some_and(|(first, rest)| {
        is_first(*first) && rest.iter().all(|b| is_first(*b) || b.is_ascii_digit())
    });
    if !is_name {
        wrong.push(regex_error(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    wrong.extend(change_directory_prefix(value));
    wrong
}

/// An identifier of the C language.
pub fn c_identifier(value: &str) -> Vec<String> {
    let is_identifier = value.as_bytes().split_first().is_some_and(|(first, rest)| {
        (first.is_ascii_alphabetic() || *first == b'_')
            && rest.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
    });
    if is_identifier {
        return Vec::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The name of an HTTP header, as Go's HTTP library takes it.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// The name of a container port (an IANA service name).
pub fn port_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 15 {
        wrong.push(max_length_error(15));
    }
    if value.is_empty() || !value.bytes().all(|b| is_lower_alphanumeric(b) || b == b'-') {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_owned());
    }
    wrong
}

/// The number of a port.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![inclusive_range_error(1, 65535)] }
}

/// A user or group id.
pub fn user_id(id: i64) -> Vec<String> {
    let max = i64::from(u32::MAX);
    if (0..=max).contains(&id) { Vec::new() } else { vec![inclusive_range_error(0, max)] }
}

/// Digits and `%`.
pub fn percent(value: &str) -> Vec<String> {
    let is_percent = value
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if is_percent {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// A name that can stand in a URL's path: the names of RBAC objects.
pub fn path_segment_name(value: &str) -> Vec<String> {
    match value {
        "." => vec!["may not be '.'".to_owned()],
        ".." => vec!["may not be '..'".to_owned()],
        _ => ["/", "%"]
            .iter()
            .filter(|part| value.contains(**part))
            .map(|part| format!("may not contain '{part}'"))
            .collect(),
    }
}

/// An IP address, read as Kubernetes reads it: leading zeros in IPv4 are decimal.
pub fn parse_ip(value: &str) -> Option<IpAddr> {
    if value.contains(':') {
        let address: Ipv6Addr = value.parse().ok()?;
        // An IPv4 address in IPv6 clothes is an IPv4 address to Go.
        return Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4));
    }
    let mut octets = [0u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// An address and a prefix length, with the host bits as they were written.
pub fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let is_v6 = address.contains(':');
    let parsed = parse_ip(address)?;
    (length <= if is_v6 { 128 } else { 32 }).then_some((parsed, length))
}

/// An IP address of either family.
pub fn is_valid_ip(value: &str) -> Vec<String> {
    match parse_ip(value) {
        Some(_) => Vec::new(),
        None => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// An IPv4 address.
pub fn is_valid_ipv4(value: &str) -> Vec<String> {
    match parse_ip(value) {
        Some(IpAddr::V4(_)) => Vec::new(),
        _ => vec!["must be a valid IPv4 address".to_owned()],
    }
}

/// An IPv6 address.
pub fn is_valid_ipv6(value: &str) -> Vec<String> {
    match parse_ip(value) {
        Some(IpAddr::V6(_)) => Vec::new(),
        _ => vec!["must be a valid IPv6 address".to_owned()],
    }
}

/// An address range.
pub fn is_valid_cidr(value: &str) -> Vec<String> {
    match parse_cidr(value) {
        Some(_) => Vec::new(),
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
    }
}

/// A `generateName` with its trailing dash made a letter, so that the rule for whole names can judge it.
pub fn mask_trailing_dash(prefix: &str) -> String {
    if prefix.len() > 1 && prefix.ends_with('-') {
        let kept: String = prefix.chars().take(prefix.chars().count().saturating_sub(2)).collect();
        return format!("{kept}a");
    }
    prefix.to_owned()
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
