use serde_json::json;

use super::*;

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn check(object: &Value) -> Vec<String> {
    texts(&validate_object_meta(object, true, names::dns1123_subdomain, &Path::new("metadata")))
}

#[test]
fn metadata_is_read_where_it_is_and_empty_where_it_is_not() {
    let object = json!({"apiVersion": "apps/v1", "kind": "X", "metadata": {
        "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "5", "generation": 2,
        "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["f"], "deletionTimestamp": "t",
        "deletionGracePeriodSeconds": 30,
        "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "w", "controller": true}],
    }});
    assert_eq!((name(&object), namespace(&object), uid(&object)), ("n", "ns", "u"));
    assert_eq!((resource_version(&object), generation(&object)), ("5", 2));
    assert_eq!((label(&object, "a"), annotation(&object, "c")), (Some("b"), Some("d")));
    assert_eq!((deletion_timestamp(&object), deletion_grace_period_seconds(&object)), (Some("t"), Some(30)));
    assert_eq!(controller_of(&object).unwrap().name, "o");
    assert_eq!((api_version(&object), kind(&object)), ("apps/v1", "X"));
    for odd in
        [json!({}), json!(null), json!({"metadata": null}), json!({"metadata": {"name": 1, "labels": []}})]
    {
        assert_eq!((name(&odd), deletion_timestamp(&odd)), ("", None));
        assert!(labels(&odd).is_empty() && finalizers(&odd).is_empty() && owner_references(&odd).is_empty());
    }
}

#[test]
fn metadata_is_changed_in_place() {
    let mut object = json!({});
    set(&mut object, "uid", "u");
    assert_eq!(object, json!({"metadata": {"uid": "u"}}));
    assert_eq!(remove(&mut object, "uid"), Some(json!("u")));
    assert_eq!(remove(&mut object, "uid"), None);
}

#[test]
fn api_versions_split_into_group_and_version() {
    assert_eq!(split_api_version("v1"), Ok(("", "v1")));
    assert_eq!(split_api_version("apps/v1"), Ok(("apps", "v1")));
    assert_eq!(split_api_version("a/b/c"), Err("unexpected GroupVersion string: a/b/c".to_owned()));
}

#[test]
fn good_metadata_has_nothing_wrong() {
    let object = json!({"metadata": {
        "name": "a", "namespace": "ns", "labels": {"e.org/a": "b"}, "annotations": {"E.org/A": "any thing"},
        "finalizers": ["kubernetes", "e.org/x"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "w"}],
        "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1"}],
    }});
    assert_eq!(check(&object), Vec::<String>::new());
}

#[test]
fn bad_metadata_is_refused_in_the_words_and_order_of_kubernetes() {
    let object = json!({"metadata": {
        "name": "c", "namespace": "ns", "labels": {"a/b/c": "x"}, "annotations": {"UP per": "x"}, "finalizers": ["nodomain"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "", "name": "x", "uid": ""}],
    }});
    let name = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    assert_eq!(
        check(&object),
        vec![
            format!(
                "metadata.labels: Invalid value: \"a/b/c\": a valid label key {name} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ),
            format!("metadata.annotations: Invalid value: \"UP per\": name part {name}"),
            "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty".to_owned(),
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty".to_owned(),
            "metadata.finalizers[0]: Invalid value: \"nodomain\": name is neither a standard finalizer name nor is it fully qualified"
                .to_owned(),
        ]
    );
}

#[test]
fn names_and_namespaces_are_required_where_they_belong() {
    assert_eq!(
        check(&json!({"metadata": {}})),
        vec![
            "metadata.name: Required value: name or generateName is required",
            "metadata.namespace: Required value",
        ]
    );
    let cluster = json!({"metadata": {"name": "a", "namespace": "ns"}});
    assert_eq!(
        texts(&validate_object_meta(&cluster, false, names::path_segment_name, &Path::new("metadata"))),
        vec!["metadata.namespace: Forbidden: not allowed on this type"]
    );
    let generated = json!({"metadata": {"name": "web-abcde", "namespace": "ns", "generateName": "web-"}});
    assert_eq!(check(&generated), Vec::<String>::new());
    let bad = json!({"metadata": {"name": "a", "namespace": "ns", "generateName": "Web-"}});
    assert!(
        check(&bad)[0].starts_with("metadata.generateName: Invalid value: \"Web-\": a lowercase RFC 1123")
    );
}

#[test]
fn two_controllers_are_one_too_many() {
    let owner = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "1", "controller": true});
    let object = json!({"metadata": {"name": "a", "namespace": "n", "ownerReferences": [owner("X", "o"), owner("Y", "p")]}});
    assert_eq!(
        check(&object),
        vec![
            "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"kind\":\"X\",\"name\":\"o\",\"uid\":\"1\",\"controller\":true},{\"apiVersion\":\"v1\",\"kind\":\"Y\",\"name\":\"p\",\"uid\":\"1\",\"controller\":true}]: Only one reference can have Controller set to true. Found \"true\" in references for X/o and Y/p"
        ]
    );
}

#[test]
fn annotations_are_bounded_together() {
    let object =
        json!({"metadata": {"name": "a", "namespace": "n", "annotations": {"a": "x".repeat(262_144)}}});
    assert_eq!(check(&object), vec!["metadata.annotations: Too long: may not be more than 262144 bytes"]);
}

#[test]
fn field_managers_are_short_and_printable() {
    let path = Path::new("fieldManager");
    assert!(validate_field_manager("kubectl", &path).is_empty());
    assert_eq!(
        texts(&validate_field_manager(&"x".repeat(129), &path)),
        vec!["fieldManager: Too long: may not be more than 128 bytes"]
    );
    assert_eq!(validate_field_manager("a\u{1}", &path).len(), 1);
}

#[test]
fn updates_may_not_change_what_the_server_owns() {
    let old = json!({"metadata": {"name": "a", "namespace": "n", "uid": "1", "resourceVersion": "1", "generation": 2,
        "finalizers": ["e.org/a"], "deletionTimestamp": "t"}});
    let with = |field: &str, value: Value| {
        let mut object = old.clone();
        set(&mut object, field, value);
        texts(&validate_object_meta_update(&object, &old, &Path::new("metadata")))
    };
    assert_eq!(with("uid", json!("1")), Vec::<String>::new());
    assert_eq!(with("uid", json!("2")), vec!["metadata.uid: Invalid value: \"2\": field is immutable"]);
    assert_eq!(
        with("resourceVersion", json!("")),
        vec!["metadata.resourceVersion: Invalid value: \"\": must be specified for an update"]
    );
    assert_eq!(
        with("generation", json!(1)),
        vec!["metadata.generation: Invalid value: 1: must not be decremented"]
    );
    assert_eq!(
        with("deletionTimestamp", json!("2001-01-01T00:00:00Z")),
        vec!["metadata.deletionTimestamp: Invalid value: \"2001-01-01T00:00:00Z\": field is immutable"]
    );
    assert_eq!(
        with("finalizers", json!(["e.org/c", "e.org/a"])),
        vec![
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"e.org/c\"}"
        ]
    );
}
