use serde_json::json;

use super::*;
use crate::schema::Schemas;

fn schemas() -> Schemas {
    Schemas::builtin().unwrap()
}

fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}})
}

fn patch_config_map(patch_type: PatchType, patch: &str) -> Result<Patched, Status> {
    let schemas = schemas();
    let schema = schemas.root("", "v1", "ConfigMap").unwrap();
    apply(schema, patch_type, &config_map(), patch.as_bytes(), &Limits::default())
}

#[test]
fn json_patches_apply_as_kubernetes_applies_them() {
    let table = [
        (r#"[{"op":"add","path":"/data/c","value":"3"}]"#, json!({"a": "1", "b": "2", "c": "3"})),
        (r#"[{"op":"remove","path":"/data/a"}]"#, json!({"b": "2"})),
        (r#"[{"op":"replace","path":"/data/a","value":"x"}]"#, json!({"a": "x", "b": "2"})),
        // Not so in RFC 6902.
        (r#"[{"op":"replace","path":"/data/none","value":"x"}]"#, json!({"a": "1", "b": "2", "none": "x"})),
        (r#"[{"op":"move","from":"/data/a","path":"/data/z"}]"#, json!({"b": "2", "z": "1"})),
        (r#"[{"op":"copy","from":"/data/a","path":"/data/z"}]"#, json!({"a": "1", "b": "2", "z": "1"})),
        (
            r#"[{"op":"test","path":"/data/a","value":"1"},{"op":"remove","path":"/data/b"}]"#,
            json!({"a": "1"}),
        ),
        (r#"[{"op":"test","path":"/data/none","value":null}]"#, json!({"a": "1", "b": "2"})),
        (r#"[{"op":"add","path":"/data/x~1y~0z","value":"3"}]"#, json!({"a": "1", "b": "2", "x/y~z": "3"})),
        ("[]", json!({"a": "1", "b": "2"})),
    ];
    for (patch, want) in table {
        assert_eq!(patch_config_map(PatchType::Json, patch).unwrap().object["data"], want, "{patch}");
    }
    let lists = [
        (json!([{"op": "add", "path": "/-", "value": 3}]), Ok(json!([1, 2, 3]))),
        (json!([{"op": "add", "path": "/0", "value": 0}]), Ok(json!([0, 1, 2]))),
        (json!([{"op": "remove", "path": "/1"}]), Ok(json!([1]))),
        (json!([{"op": "replace", "path": "/1", "value": 5}]), Ok(json!([1, 5]))),
        (json!([{"op": "add", "path": "/3", "value": 0}]), Err(JsonPatchError::Index("3".to_owned()))),
        (json!([{"op": "remove", "path": "/-1"}]), Err(JsonPatchError::Index("-1".to_owned()))),
        (json!([{"op": "test", "path": "/0", "value": 1.0}]), Ok(json!([1, 2]))),
    ];
    for (patch, want) in lists {
        assert_eq!(json_patch(json!([1, 2]), &patch), want, "{patch}");
    }
}

#[test]
fn json_patches_that_fail_are_refused_without_a_word_of_why() {
    let failing = [
        r#"[{"op":"test","path":"/data/a","value":"zz"}]"#,
        r#"[{"op":"remove","path":"/data/none"}]"#,
        r#"[{"op":"add","path":"/nope/x","value":1}]"#,
        r#"[{"op":"odd","path":"/a","value":1}]"#,
        r#"[{"path":"/a","value":1}]"#,
        r#"[{"op":"add","path":"data","value":1}]"#,
    ];
    for patch in failing {
        let status = patch_config_map(PatchType::Json, patch).unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str(), status.reason.as_str(), status.details),
            (
                422,
                "the server rejected our request due to an error in our request",
                "Invalid",
                Some(StatusDetails::default())
            ),
            "{patch}"
        );
    }
    let not_a_list = patch_config_map(PatchType::Json, r#"{"op":"add"}"#).unwrap_err();
    assert_eq!(
        (not_a_list.code, not_a_list.message.as_str()),
        (
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    );
    let many = vec![json!({"op": "test", "path": "/metadata/name", "value": "c"}); 10_001];
    let too_many = patch_config_map(PatchType::Json, &Value::from(many).to_string()).unwrap_err();
    assert_eq!(
        (too_many.code, too_many.message.as_str()),
        (413, "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001")
    );
}

#[test]
fn copies_cannot_grow_without_bound() {
    let doubling: Vec<Value> =
        (0..64).map(|n| json!({"op": "copy", "from": "", "path": format!("/x{n}")})).collect();
    assert_eq!(
        json_patch(json!({"x": "y".repeat(1000)}), &Value::from(doubling)),
        Err(JsonPatchError::CopyLimit)
    );
    let deepening: Vec<Value> = (0..1000).map(|_| json!({"op": "copy", "from": "", "path": "/x"})).collect();
    assert_eq!(json_patch(json!({}), &Value::from(deepening)), Err(JsonPatchError::TooDeep("/x".to_owned())));
}

#[test]
fn what_a_patch_leaves_that_is_not_known_is_told() {
    let patched = patch_config_map(PatchType::Json, r#"[{"op":"copy","path":"/x","from":"/none"}]"#).unwrap();
    assert_eq!(patched.strict, vec!["unknown field \"x\""]);
    assert_eq!(patched.object, config_map());
    let refusal = patched.strict_error().unwrap();
    assert_eq!((refusal.code, refusal.reason.as_str()), (422, "Invalid"));
    assert!(
        refusal.message.starts_with(" \"\" is invalid: patch: Invalid value: \"[{"),
        "{}",
        refusal.message
    );
    assert!(refusal.message.ends_with("strict decoding error: unknown field \"x\""), "{}", refusal.message);
    let merged = patch_config_map(PatchType::Merge, r#"{"data":{"a":"1","a":"2"},"y":1}"#).unwrap();
    assert_eq!(merged.strict, vec!["duplicate field \"data.a\"", "unknown field \"y\""]);
    let odd = patch_config_map(PatchType::Json, r#"[{"op":"remove","path":"/data/a","odd":1}]"#).unwrap();
    assert_eq!(odd.strict, vec!["json patch unknown field \"[0].odd\""]);
}

#[test]
fn merge_patches_follow_rfc_7386() {
    let table = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a": "foo"}), json!(null), json!(null)),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (mut target, patch, want) in table {
        merge_patch(&mut target, &patch);
        assert_eq!(target, want, "{patch}");
    }
}

#[test]
fn bad_merge_patches_are_refused_in_the_words_of_kubernetes() {
    let table = [
        (
            "[]",
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        ("{", 400, "error decoding patch: unexpected end of JSON input"),
        (
            "\"x\"",
            400,
            "error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}",
        ),
    ];
    for (patch, code, message) in table {
        let status = patch_config_map(PatchType::Merge, patch).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message));
    }
    for patch in [r#"{"metadata":"x"}"#, r#"{"apiVersion":"v9"}"#] {
        let status = patch_config_map(PatchType::Merge, patch).unwrap_err();
        let cause = &status.details.unwrap().causes[0];
        assert_eq!(
            (status.code, cause.field.as_str(), cause.reason.as_str()),
            (422, "patch", "FieldValueInvalid")
        );
    }
}

/// What the recorded server fills into containers and ports that a patch adds, or fields it removes.
fn default_parts(object: &mut Value) {
    let ports = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        let number = port["port"].clone();
        port.entry("targetPort").or_insert(number);
    }
    let Some(spec) = object.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut) else { return };
    spec.entry("terminationGracePeriodSeconds").or_insert(json!(30));
    for container in spec["containers"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut)
    {
        let has_tag = container["image"].as_str().unwrap().contains(':');
        let pull_policy = if has_tag { "IfNotPresent" } else { "Always" };
        container.entry("imagePullPolicy").or_insert(json!(pull_policy));
        container.entry("terminationMessagePath").or_insert(json!("/dev/termination-log"));
        container.entry("terminationMessagePolicy").or_insert(json!("File"));
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        for source in ["configMap", "secret"] {
            if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
                source.entry("defaultMode").or_insert(json!(420));
            }
        }
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.entry("replicas").or_insert(json!(1));
    }
}

#[test]
fn strategic_patches_do_what_a_real_server_does() {
    let schemas = schemas();
    let recorded: Value = serde_json::from_str(include_str!("../../tests/data/strategic.json")).unwrap();
    let mut steps = 0;
    for scenario in recorded["scenarios"].as_array().unwrap() {
        let mut object = scenario.get("base").unwrap_or(&recorded["base"]).clone();
        let schema = schemas.root_of(metadata::api_version(&object), metadata::kind(&object)).unwrap();
        for step in scenario["steps"].as_array().unwrap() {
            steps += 1;
            let label = format!("{}: {}", scenario["name"], step["patch"]);
            let patch = step["patch"].to_string();
            let result =
                apply(schema, PatchType::StrategicMerge, &object, patch.as_bytes(), &Limits::default());
            match (result, step.get("message").and_then(Value::as_str)) {
                (Err(status), Some(message)) => {
                    assert_eq!(
                        (status.message.as_str(), Value::from(status.code)),
                        (message, step["code"].clone()),
                        "{label}"
                    );
                }
                (Ok(mut patched), None) => {
                    crate::decode::apply_defaults(schema, &mut patched.object);
                    default_parts(&mut patched.object);
                    assert_eq!(patched.object["spec"], step["spec"], "{label}");
                    object["spec"] = step["spec"].clone();
                }
                (result, _) => panic!("{label}: {result:?}"),
            }
        }
    }
    assert!(steps > 20, "{steps}");
}

#[test]
fn strategic_directives_do_what_they_say() {
    let schemas = schemas();
    let pod = schemas.root("", "v1", "Pod").unwrap();
    let table = [
        // Scalars in merged lists: set union, and deletion by a parallel list.
        (
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["c", "a"]}}),
            json!({"metadata": {"finalizers": ["c", "a", "b"]}}),
        ),
        (
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b"]}}),
        ),
        (
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"]}}),
            json!({"metadata": {"finalizers": ["b", "c", "a"]}}),
        ),
        // An object replaced, and one emptied.
        (
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        ),
        (
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}}),
        ),
        // List elements: deleted, replaced as a list.
        (
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b"}]}}),
        ),
        (
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "c"}]}}),
        ),
        // Where there is nothing to merge with, nulls mean nothing, and an object with a directive is none.
        (json!({}), json!({"spec": {"nodeSelector": {"$patch": "replace", "a": "b"}}}), json!({"spec": {}})),
        (
            json!({}),
            json!({"spec": {"containers": [{"name": "a", "image": null, "$patch": "delete"}, {"name": "b", "tty": null}]}}),
            json!({"spec": {"containers": [{"name": "b"}]}}),
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
        ),
        // The merge key alone decides, though the list's own keys are two.
        (
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "TCP"}]}]}}),
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP"}]}]}}),
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP"}]}]}}),
        ),
        // A list without merge strategy is replaced.
        (
            json!({"spec": {"tolerations": [{"key": "a"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
        ),
        (json!({"spec": {"nodeName": "a"}}), json!({"spec": null}), json!({})),
    ];
    for (original, patch, want) in table {
        assert_eq!(strategic_merge_patch(pod, &original, &patch), Ok(want), "{patch}");
    }
    let nested = json!({"metadata": {"finalizers": [["a"]]}});
    let error = strategic_merge_patch(pod, &nested, &nested).unwrap_err();
    assert_eq!(Status::from(error).code, 422);
}

#[test]
fn what_a_strategic_patch_leaves_is_judged_in_the_words_of_the_converter() {
    let schemas = schemas();
    let pod = schemas.root("", "v1", "Pod").unwrap();
    let table = [
        (json!({"spec": "x"}), "cannot restore struct from: string"),
        (json!({"spec": {"containers": {}}}), "cannot restore slice from map"),
        (json!({"metadata": {"labels": []}}), "cannot restore map from slice"),
        (json!({"spec": {"priority": "x"}}), "unrecognized type: int32"),
        (json!({"spec": {"nodeName": 1}}), "cannot convert int64 to string"),
        (json!({"spec": {"priority": 1.5}}), "cannot convert float64 to int32"),
        (json!({"spec": {"hostNetwork": "x"}}), "unrecognized type: bool"),
    ];
    for (value, want) in table {
        assert_eq!(restore(pod, &value).unwrap_err().to_string(), want, "{value}");
    }
    let (_, strict) = restore(pod, &json!({"spec": {"odd": 1}})).unwrap();
    assert_eq!(strict, vec!["unknown field \"spec.odd\""]);
}
