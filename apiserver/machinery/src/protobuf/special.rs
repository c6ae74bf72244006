//! Messages whose JSON is not an object of their fields.

/// Such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// A text in JSON.
    Quantity,
    /// A number or a text in JSON.
    IntOrString,
    /// A time to the second.
    Time,
    /// A time to the microsecond.
    MicroTime,
    /// A duration in Go's notation.
    Duration,
    /// Any JSON; its bytes may be an object with envelope.
    RawExtension,
    /// Any JSON.
    Json,
    /// A schema, or a list of schemas.
    SchemaOrArray,
    /// A schema, or a truth value.
    SchemaOrBool,
    /// A schema, or a list of texts.
    SchemaOrTexts,
}

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.";
const EXTENSIONS: &str = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.";

/// The schema message of [`Special::SchemaOrArray`] and its like.
pub(super) fn schema_message() -> String {
    format!("{EXTENSIONS}JSONSchemaProps")
}

pub(super) fn of(name: &str) -> Option<Special> {
    if let Some(kind) = name.strip_prefix(META) {
        return Some(match kind {
            "Time" | "Timestamp" => Special::Time,
            "MicroTime" => Special::MicroTime,
            "Duration" => Special::Duration,
            "FieldsV1" => Special::Json,
            _ => return None,
        });
    }
    if let Some(kind) = name.strip_prefix(EXTENSIONS) {
        return Some(match kind {
            "JSON" => Special::Json,
            "JSONSchemaPropsOrArray" => Special::SchemaOrArray,
            "JSONSchemaPropsOrBool" => Special::SchemaOrBool,
            "JSONSchemaPropsOrStringArray" => Special::SchemaOrTexts,
            _ => return None,
        });
    }
    Some(match name {
        "k8s.io.apimachinery.pkg.api.resource.Quantity"
        | "k8s.io.apimachinery.pkg.api.resource.QuantityValue" => Special::Quantity,
        "k8s.io.apimachinery.pkg.util.intstr.IntOrString" => Special::IntOrString,
        "k8s.io.apimachinery.pkg.runtime.RawExtension" => Special::RawExtension,
        _ => return None,
    })
}

/// A duration as Go writes it: `1h30m0s`, `1.5s`, `100ms`.
pub(super) fn format_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let decimal = |value: u64, unit: u64, suffix: &str| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", value % unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{suffix}", value / unit)
    };
    let second = 1_000_000_000;
    let text = match total {
        0..1_000 => format!("{total}ns"),
        1_000..1_000_000 => decimal(total, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(total, 1_000_000, "ms"),
        _ => {
            let seconds = decimal(total % (60 * second), second, "s");
            let minutes = total / (60 * second);
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A duration in Go's notation, in nanoseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let units = [
            ("ns", 1),
            ("us", 1_000),
            ("µs", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("m", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ];
        let (unit, nanos) = units.into_iter().find(|(unit, _)| {
            tail.strip_prefix(unit).is_some_and(|after| {
                after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            })
        })?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(nanos)?)?;
        let mut scale: i64 = nanos;
        for digit in fraction.bytes() {
            scale /= 10;
            total = total.checked_add(i64::from(digit.checked_sub(b'0').filter(|d| *d < 10)?) * scale)?;
        }
        rest = &tail[unit.len()..];
    }
    Some(if is_negative { -total } else { total })
}
