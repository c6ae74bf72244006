use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn selectors_match_as_the_grammar_says() {
    let object = labels(&[("a", "1"), ("b", ""), ("in", "x"), ("e.org/n", "5")]);
    let table = [
        ("", true),
        (" ", true),
        ("a", true),
        ("!a", false),
        ("z", false),
        ("!z", true),
        ("a=1", true),
        ("a==1", true),
        ("a = 1 , b=", true),
        ("a=2", false),
        ("a!=1", false),
        ("a!=2", true),
        ("z!=1", true),
        ("b=", true),
        ("a in (1,2)", true),
        ("a in (2)", false),
        ("a notin (2)", true),
        ("z notin (2)", true),
        ("b in ()", true),
        ("b in (,x)", true),
        ("in in (x)", true),
        ("in=x", true),
        ("a in (in,notin,1)", true),
        ("e.org/n>4", true),
        ("e.org/n<4", false),
        ("a>x1", false),
        ("z>1", false),
        ("a,b,!c", true),
    ];
    for (text, want) in table {
        match Selector::parse(text) {
            Ok(selector) => assert_eq!(selector.matches(&object), want, "{text:?}"),
            Err(error) => assert!(!want && text == "a>x1", "{text:?}: {error}"),
        }
    }
    assert!(!Selector::nothing().matches(&object));
    assert!(Selector::everything().matches(&object));
    assert!(Selector::parse("a=1").unwrap().matches_object(&json!({"metadata": {"labels": {"a": "1"}}})));
    assert!(!Selector::parse("a=1").unwrap().matches_object(&json!({})));
}

#[test]
fn unreadable_selectors_are_refused_in_the_words_of_kubernetes() {
    let name = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let table = [
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'".to_owned()),
        ("a=b=c", "found '=', expected: ',' or 'end of string'".to_owned()),
        (",a", "found ',', expected: !, identifier, or 'end of string'".to_owned()),
        ("-bad=x", format!("unable to parse requirement: <nil>: Invalid value: \"-bad\": {name}")),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"
                .to_owned(),
        ),
        ("a,", "found '', expected: identifier after ','".to_owned()),
        ("!", "unable to parse requirement: found '', expected: identifier".to_owned()),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".to_owned()),
        ("a in b", "unable to parse requirement: found 'b' expected: '('".to_owned()),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier".to_owned()),
        ("a==!b", "unable to parse requirement: found '!', expected: identifier".to_owned()),
    ];
    for (text, want) in table {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), want, "{text:?}");
    }
    assert_eq!(Status::from(Selector::parse(",").unwrap_err()).code, 400);
}

#[test]
fn selectors_are_written_back_sorted() {
    let table = [
        ("b=1,a!=2", "a!=2,b=1"),
        ("a in (y,x,x)", "a in (x,y)"),
        ("a notin (x)", "a notin (x)"),
        ("!b,a", "a,!b"),
        ("a==1", "a==1"),
        ("a>1,b<2", "a>1,b<2"),
    ];
    for (text, want) in table {
        assert_eq!(Selector::parse(text).unwrap().to_string(), want);
    }
    assert_eq!(Selector::parse("a=1,b in (x)").unwrap().exact_match("b"), Some("x"));
    assert_eq!(Selector::parse("a!=1").unwrap().exact_match("a"), None);
}

#[test]
fn label_selectors_of_objects_match_by_labels_and_expressions() {
    let object = labels(&[("a", "1")]);
    let table = [
        (json!(null), false),
        (json!({}), true),
        (json!({"matchLabels": {"a": "1"}}), true),
        (json!({"matchLabels": {"a": "2"}}), false),
        (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}), true),
        (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}), false),
        (json!({"matchExpressions": [{"key": "z", "operator": "NotIn", "values": ["1"]}]}), true),
        (json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), true),
        (json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}), false),
    ];
    for (selector, want) in table {
        assert_eq!(Selector::from_label_selector(&selector).unwrap().matches(&object), want, "{selector}");
    }
    let odd = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    assert_eq!(
        Selector::from_label_selector(&odd).unwrap_err().to_string(),
        "\"Near\" is not a valid label selector operator"
    );
}

#[test]
fn label_selectors_are_validated_in_the_words_of_kubernetes() {
    let selector = json!({
        "matchLabels": {"a": "-"},
        "matchExpressions": [
            {"key": "a", "operator": "Near"},
            {"key": "a", "operator": "In"},
            {"key": "a", "operator": "Exists", "values": ["x"]},
            {"key": "", "operator": "Exists"},
        ],
    });
    let errors = validate_label_selector(&selector, &Path::new("spec").child("selector"));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(texts[0].starts_with("spec.selector.matchLabels: Invalid value: \"-\": a valid label must be"));
    assert_eq!(
        texts[1],
        "spec.selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator"
    );
    assert_eq!(
        texts[2],
        "spec.selector.matchExpressions[1].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
    );
    assert_eq!(
        texts[3],
        "spec.selector.matchExpressions[2].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
    );
    assert_eq!(
        texts[4],
        "spec.selector.matchExpressions[3].key: Invalid value: \"\": name part must be non-empty"
    );
    assert!(validate_label_selector(&json!(null), &Path::root()).is_empty());
}

#[test]
fn field_selectors_are_read_and_matched() {
    let lookup = |field: &str| match field {
        "metadata.name" => Some("a"),
        "spec.x" => Some("1,2"),
        _ => None,
    };
    let table = [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name==a", true),
        ("metadata.name!=a", false),
        ("metadata.name=b", false),
        ("metadata.name=a,spec.y=", true),
        ("spec.x=1\\,2", true),
        (",metadata.name=a,", true),
    ];
    for (text, want) in table {
        assert_eq!(FieldSelector::parse(text).unwrap().matches(lookup), want, "{text:?}");
    }
    let selector = FieldSelector::parse("spec.x=1\\,2,metadata.name!=z").unwrap();
    assert_eq!(selector.to_string(), "metadata.name!=z,spec.x=1\\,2");
    assert_eq!(selector.exact_match("spec.x"), Some("1,2"));
    assert_eq!(selector.exact_match("metadata.name"), None);
    assert_eq!(
        FieldSelector::parse("metadata.name").unwrap_err().to_string(),
        "invalid selector: 'metadata.name'; can't understand 'metadata.name'"
    );
    for bad in ["a=b=c", "a=\\x", "a=\\"] {
        assert!(FieldSelector::parse(bad).is_err(), "{bad:?}");
    }
}
