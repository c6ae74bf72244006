//! Times as the API writes them: RFC 3339 in UTC, to the second (`Time`) or the microsecond (`MicroTime`).
//!
//! There is no clock here: who calls brings the time.

use ::time::format_description::well_known::Rfc3339;
use ::time::{OffsetDateTime, UtcOffset};

use crate::field::go_quote;

/// A moment, in microseconds since 1970-01-01T00:00:00Z. Order is order in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {} as {}", go_quote(.text), go_quote(.rest), go_quote(.element))]
pub struct ParseError {
    /// The text.
    pub text: String,
    /// The part that could not be read.
    pub rest: String,
    /// What was expected there, in Go's reference time.
    pub element: &'static str,
}

impl Timestamp {
    /// From seconds since the epoch.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// From microseconds since the epoch.
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Microseconds since the epoch.
    pub fn unix_micros(self) -> i64 {
        self.0
    }
}

/// `2026-01-02T03:04:05Z`, the form of `Time`. Years beyond 9999 stop at 9999, as RFC 3339 has no others.
pub fn format_seconds(unix_seconds: i64) -> String {
    let moment = date_time(unix_seconds);
    let (date, time) = (moment.date(), moment.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// `2026-01-02T03:04:05.000006Z`, the form of `MicroTime`.
pub fn format_micros(unix_micros: i64) -> String {
    let seconds = format_seconds(unix_micros.div_euclid(1_000_000));
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), unix_micros.rem_euclid(1_000_000))
}

fn date_time(unix_seconds: i64) -> OffsetDateTime {
    // 0000-01-01 and 9999-12-31T23:59:59, the years RFC 3339 can write.
    let seconds = unix_seconds.clamp(-62_167_219_200, 253_402_300_799);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time in RFC 3339 with any offset and any fraction (cut to microseconds).
///
/// # Errors
/// [`ParseError`], worded as Go's `time.Parse` words it.
pub fn parse(text: &str) -> Result<Timestamp, ParseError> {
    let failure = || first_unreadable(text);
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| failure())?;
    let moment = moment.to_offset(UtcOffset::UTC);
    let micros = moment.unix_timestamp_nanos().div_euclid(1000);
    i64::try_from(micros).map(Timestamp).map_err(|_| failure())
}

/// A time in the form of `MicroTime`, which must have a fraction of six digits.
///
/// # Errors
/// [`ParseError`], worded as Go's `time.Parse` words it with the layout of `MicroTime`.
pub fn parse_micro(text: &str) -> Result<Timestamp, String> {
    let layout = "2006-01-02T15:04:05.000000Z07:00";
    let plain = parse(text).map_err(|error| {
        format!(
            "parsing time {} as {}: cannot parse {} as {}",
            go_quote(text),
            go_quote(layout),
            go_quote(&error.rest),
            go_quote(error.element)
        )
    })?;
    let fraction = text.get(19..).unwrap_or("");
    let digits =
        fraction.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if digits == 6 {
        return Ok(plain);
    }
    Err(format!(
        "parsing time {} as {}: cannot parse {} as \".000000\"",
        go_quote(text),
        go_quote(layout),
        go_quote(fraction)
    ))
}

/// Where Go's parser would stop, element by element of its reference time.
fn first_unreadable(text: &str) -> ParseError {
    let stop = |at: usize, element: &'static str| ParseError {
        text: text.to_owned(),
        rest: text.get(at..).unwrap_or("").to_owned(),
        element,
    };
    let digits = |from: usize, count: usize| {
        text.as_bytes().get(from..from + count).is_some_and(|bytes| bytes.iter().all(u8::is_ascii_digit))
    };
    let elements: [(usize, usize, &'static str, &'static str); 6] = [
        (0, 4, "2006", "-"),
        (5, 2, "01", "-"),
        (8, 2, "02", "T"),
        (11, 2, "15", ":"),
        (14, 2, "04", ":"),
        (17, 2, "05", ""),
    ];
    for (from, count, element, after) in elements {
        if !digits(from, count) {
            return stop(from, element);
        }
        if !after.is_empty() && text.as_bytes().get(from + count) != after.as_bytes().first() {
            return stop(from + count, after);
        }
    }
    let mut at = 19;
    if text.as_bytes().get(at) == Some(&b'.') {
        at += 1 + text.as_bytes().iter().skip(at + 1).take_while(|b| b.is_ascii_digit()).count();
    }
    stop(at, "Z07:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_to_the_second_or_microsecond() {
        assert_eq!(format_seconds(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_seconds(1_767_323_045), "2026-01-02T03:04:05Z");
        assert_eq!(format_seconds(-1), "1969-12-31T23:59:59Z");
        assert_eq!(format_seconds(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(format_micros(1_767_323_045_000_006), "2026-01-02T03:04:05.000006Z");
        assert_eq!(format_micros(-1), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn times_are_read_with_any_offset_and_fraction() {
        let table = [
            ("2026-01-02T03:04:05Z", 1_767_323_045_000_000),
            ("2026-01-02T04:04:05+01:00", 1_767_323_045_000_000),
            ("2026-01-02T03:04:05.5Z", 1_767_323_045_500_000),
            ("1970-01-01T00:00:00.0000019Z", 1),
        ];
        for (text, micros) in table {
            assert_eq!(parse(text).map(Timestamp::unix_micros), Ok(micros), "{text}");
        }
        assert_eq!(parse("2026-01-02T03:04:05.999Z").map(Timestamp::unix_seconds), Ok(1_767_323_045));
    }

    #[test]
    fn unreadable_times_are_refused_in_the_words_of_go() {
        let table = [
            ("x", r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#),
            (
                "2026-1-02T00:00:00Z",
                r#"parsing time "2026-1-02T00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse "1-02T00:00:00Z" as "01""#,
            ),
            (
                "2026-01-02",
                r#"parsing time "2026-01-02" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#,
            ),
            (
                "2026-01-02T03:04:05",
                r#"parsing time "2026-01-02T03:04:05" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#,
            ),
        ];
        for (text, want) in table {
            assert_eq!(parse(text).unwrap_err().to_string(), want);
        }
        assert_eq!(
            parse_micro("2026-01-02T03:04:05Z").unwrap_err(),
            r#"parsing time "2026-01-02T03:04:05Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#
        );
        assert!(parse_micro("2026-01-02T03:04:05.000001Z").is_ok());
    }
}
