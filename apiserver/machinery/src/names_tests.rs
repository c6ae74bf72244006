use super::*;

type Rule = fn(&str) -> Vec<String>;

#[test]
fn good_names_have_nothing_wrong() {
    let long = "a".repeat(63);
    let table: &[(Rule, &[&str])] = &[
        (dns1123_label, &["a", "0", "a-b", "1a", &long]),
        (dns1123_subdomain, &["a", "a.b", "a-b.c-d", "1.2"]),
        (dns1035_label, &["a", "a1", "a-1"]),
        (qualified_name, &["a", "A_b.c", "example.com/Name", "1", &long]),
        (label_value, &["", "a", "A.b_c-d"]),
        (config_map_key, &["a", ".bashrc", "A_b-c", "a..b"]),
        (env_var_name, &["A", "a b", "1", "_", "a.b-c"]),
        (strict_env_var_name, &["A", "a.b-c", "_x1"]),
        (c_identifier, &["_", "a1", "A_b"]),
        (http_header_name, &["X-Y", "a"]),
        (port_name, &["http", "a1", "1-a"]),
        (percent, &["0%", "100%"]),
        (path_segment_name, &["system:node", "a b", "UPPER", "...", ""]),
        (is_valid_ip, &["10.0.0.1", "010.0.0.1", "::1", "::ffff:1.2.3.4"]),
        (is_valid_ipv4, &["1.2.3.4", "::ffff:1.2.3.4"]),
        (is_valid_ipv6, &["fd00::1"]),
        (is_valid_cidr, &["10.0.0.0/8", "10.0.0.1/32", "fd00::/64", "::/0"]),
        (wildcard_dns1123_subdomain, &["*.a", "*.a.b"]),
        (dns1123_subdomain_with_underscore, &["_a.b", "a_b.c"]),
    ];
    for (rule, values) in table {
        for value in *values {
            assert_eq!(rule(value), Vec::<String>::new(), "{value:?}");
        }
    }
}

#[test]
fn bad_names_are_refused() {
    let long = "a".repeat(64);
    let longer = "a.".repeat(127);
    let table: &[(Rule, &[&str])] = &[
        (dns1123_label, &["", "-a", "a-", "A", "a_b", "a.b", "ä", &long]),
        (dns1123_subdomain, &["", "a..b", ".a", "a.", "a.-b", "A.b", &longer]),
        (dns1035_label, &["", "1a", "a-", "A", &long]),
        (qualified_name, &["", "/a", "a/", "a/b/c", "A.b/c", "-a", "a-", "a b", &long]),
        (label_value, &["-a", "a ", "a/b", &long]),
        (config_map_key, &["", ".", "..", "..a", "a b", "a/b"]),
        (env_var_name, &["", "a=b", "ä", "a\n"]),
        (strict_env_var_name, &["", "1a", "a b", ".."]),
        (c_identifier, &["", "1", "a-b"]),
        (http_header_name, &["", "a b", "ä"]),
        (port_name, &["", "1", "A", "a--b", "-a", "a-", "abcdefghijklmnop"]),
        (percent, &["", "%", "a%", "1", "1.5%"]),
        (path_segment_name, &[".", "..", "a/b", "a%b"]),
        (is_valid_ip, &["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "a", "1.2.3.4 "]),
        (is_valid_ipv4, &["::1"]),
        (is_valid_ipv6, &["1.2.3.4"]),
        (is_valid_cidr, &["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129"]),
        (wildcard_dns1123_subdomain, &["*", "*.", "a.b", "*.*.x"]),
    ];
    for (rule, values) in table {
        for value in *values {
            assert!(!rule(value).is_empty(), "{value:?}");
        }
    }
}

#[test]
fn refusals_are_worded_as_kubernetes_words_them() {
    let table: &[(Rule, &str, &str)] = &[
        (
            dns1123_label,
            "Bad_Name",
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        (dns1123_label, "dots.in", "must not contain dots"),
        (
            dns1123_subdomain,
            "a..b",
            r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            qualified_name,
            "a/b/c",
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        ),
        (
            config_map_key,
            "a b",
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (port_name, "toolongportnamehere", "must be no more than 15 characters"),
        (
            percent,
            "abc%",
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ),
        (path_segment_name, "with/slash", "may not contain '/'"),
        (is_valid_ip, "not-ip", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        (
            wildcard_dns1123_subdomain,
            "*.*.x",
            r"a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
    ];
    for (rule, value, want) in table {
        assert_eq!(rule(value), vec![(*want).to_owned()], "{value:?}");
    }
    assert_eq!(port_number(70000), vec!["must be between 1 and 65535, inclusive".to_owned()]);
    assert_eq!(qualified_name("")[0], "name part must be non-empty");
}

#[test]
fn a_generated_prefix_is_judged_without_its_trailing_dash() {
    assert_eq!(mask_trailing_dash("ab-"), "aa");
    assert_eq!(mask_trailing_dash("-"), "-");
    assert_eq!(mask_trailing_dash("ab"), "ab");
    assert_eq!(mask_trailing_dash("ä-"), "a");
}
