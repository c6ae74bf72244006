use super::*;

fn q(text: &str) -> Quantity {
    text.parse().unwrap()
}

#[test]
fn quantities_are_written_in_canonical_form() {
    let table = [
        ("0", "0"),
        ("0Ki", "0"),
        ("0.0", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("5.", "5."),
        ("1000", "1k"),
        ("1200", "1200"),
        ("12000", "12k"),
        ("1000k", "1M"),
        ("1Gi", "1Gi"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1024", "1024"),
        ("0.5Gi", "512Mi"),
        ("512Ki", "512Ki"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("12e6", "12e6"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("1e2", "100"),
        ("100e3", "100e3"),
        ("1000e3", "1e6"),
        ("1e-3", "1e-3"),
        ("1u", "1u"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("0.0000000001", "1n"),
        ("-0.1n", "-1n"),
        ("-1.5Gi", "-1536Mi"),
        ("9223372036854775807", "9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("100Ei", "9223372036854775807"),
        ("1000E", "1000E"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("+1", "+1"),
        ("007", "007"),
    ];
    for (text, want) in table {
        assert_eq!(q(text).to_string(), want, "{text}");
    }
}

#[test]
fn malformed_quantities_are_refused_in_the_words_of_kubernetes() {
    let table = [
        ("", ParseError::FormatWrong),
        ("1x", ParseError::FormatWrong),
        ("1.1.1", ParseError::FormatWrong),
        ("1 Gi", ParseError::FormatWrong),
        ("aoeu", ParseError::FormatWrong),
        ("1+1.0M", ParseError::FormatWrong),
        ("1i", ParseError::Suffix),
        ("1mi", ParseError::Suffix),
        ("1ki", ParseError::Suffix),
        ("1e", ParseError::Suffix),
        ("1K", ParseError::Suffix),
        ("1e99999999999999999999", ParseError::Suffix),
    ];
    for (text, want) in table {
        assert_eq!(text.parse::<Quantity>().unwrap_err(), want, "{text}");
    }
    assert_eq!(
        ParseError::FormatWrong.to_string(),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
}

#[test]
fn values_are_rounded_away_from_zero_and_capped() {
    let table = [
        ("1", 1, 1000),
        ("100m", 1, 100),
        ("1100m", 2, 1100),
        ("-1100m", -2, -1100),
        ("1u", 1, 1),
        ("0", 0, 0),
        ("1Ki", 1024, 1_024_000),
        ("1e30", i64::MAX, i64::MAX),
        ("-1e30", i64::MIN, i64::MIN),
        ("1e-30", 1, 1),
        ("0e9999", 0, 0),
    ];
    for (text, value, milli) in table {
        assert_eq!((q(text).value(), q(text).milli_value()), (value, milli), "{text}");
    }
}

#[test]
fn quantities_compare_by_number_not_by_text() {
    assert_eq!(q("1000m"), q("1"));
    assert_eq!(q("1Gi"), q("1073741824"));
    assert_eq!(q("0Ki"), q("0"));
    let ascending = [
        "-1e40", "-2", "-1", "-1m", "0", "1n", "1m", "999m", "1", "1001m", "1k", "1Ki", "1Mi", "1e20", "1e40",
    ];
    for pair in ascending.windows(2) {
        assert!(q(pair[0]) < q(pair[1]), "{pair:?}");
    }
}

#[test]
fn sums_keep_the_format_of_what_is_not_zero() {
    let table = [
        ("0", "1Gi", "1Gi"),
        ("1Gi", "1Gi", "2Gi"),
        ("100m", "900m", "1"),
        ("1", "1Ki", "1025"),
        ("1Ki", "1", "1025"),
        ("1", "-1", "0"),
        ("1e3", "1", "1001"),
    ];
    for (a, b, want) in table {
        assert_eq!(q(a).saturating_add(&q(b)).to_string(), want, "{a} + {b}");
    }
    assert_eq!(q("2Gi").saturating_sub(&q("512Mi")).to_string(), "1536Mi");
    assert_eq!(q("250m").saturating_mul(4).to_string(), "1");
    assert_eq!(q("1e9999").saturating_add(&q("1n")), q("1e9999").saturating_add(&q("2n")));
}

#[test]
fn a_hostile_quantity_costs_little_and_does_not_panic() {
    let long = "9".repeat(100_000);
    for text in [
        long.as_str(),
        &format!("0.{long}"),
        &format!("{long}Ei"),
        &format!("1.{long}Ei"),
        "1e999999999",
        "-1e-999999999",
    ] {
        let quantity = q(text);
        assert!(quantity.to_string().len() < 120_000);
        let _ = quantity.saturating_mul(i64::MIN).saturating_add(&quantity).to_string();
    }
}

#[test]
fn json_may_be_a_text_or_a_number_and_is_written_as_text() {
    let table = [("\"1Gi\"", "\"1Gi\""), ("2", "\"2\""), ("0.5", "\"500m\""), ("\" 1 \"", "\"1\"")];
    for (json, want) in table {
        let quantity: Quantity = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&quantity).unwrap(), want);
    }
    assert!(serde_json::from_str::<Quantity>("true").is_err());
}
