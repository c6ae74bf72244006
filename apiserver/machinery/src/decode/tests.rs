use serde_json::json;

use super::*;
use crate::protobuf::Messages;
use crate::schema::{GroupVersionKind, Schemas};
use crate::status::Status;

fn schemas() -> Schemas {
    Schemas::builtin().unwrap()
}

fn kind(group: &str, version: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
}

fn decode(expected: &GroupVersionKind, media_type: MediaType, body: &str) -> Result<Decoded, Status> {
    let schemas = schemas();
    let messages = Messages::builtin(&schemas).unwrap();
    decode_object(&schemas, &messages, expected, media_type, body.as_bytes(), &Limits::default())
}

fn config_map(body: &str) -> Result<Decoded, Status> {
    decode(&kind("", "v1", "ConfigMap"), MediaType::Json, body)
}

fn json_error(text: &str) -> String {
    decode_json(text.as_bytes(), &Limits::default()).unwrap_err().to_string()
}

fn yaml(text: &str) -> Value {
    decode_yaml(text.as_bytes(), &Limits::default()).unwrap().into_value()
}

fn yaml_error(text: &str) -> String {
    decode_yaml(text.as_bytes(), &Limits::default()).unwrap_err().to_string()
}

#[test]
fn json_is_read_as_it_was_written() {
    let text = r#" {"b": [1, -0.5e3, "\u00e9\ud83d\ude00\n", true, null], "a": {}, "b": 2} "#;
    let document = decode_json(text.as_bytes(), &Limits::default()).unwrap();
    let Raw::Object(entries) = document.root() else { panic!("{document:?}") };
    assert_eq!(entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["b", "a", "b"]);
    assert_eq!(
        entries[0].1,
        Raw::Array(vec![
            Raw::Number("1".to_owned()),
            Raw::Number("-0.5e3".to_owned()),
            Raw::String("é😀\n".to_owned()),
            Raw::Bool(true),
            Raw::Null,
        ])
    );
    assert_eq!(document.into_value(), json!({"a": {}, "b": 2}));
}

#[test]
fn broken_json_is_refused_in_the_words_of_go() {
    let table = [
        ("", "unexpected end of JSON input"),
        ("{\"apiVersion\":\"v1\",", "unexpected end of JSON input"),
        ("not json", "invalid character 'o' in literal null (expecting 'u')"),
        ("{a}", "invalid character 'a' looking for beginning of object key string"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1]]", "invalid character ']' after top-level value"),
        ("\"\n\"", "invalid character '\\n' in string literal"),
        ("\"\\x\"", "invalid character 'x' in string escape code"),
        ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
        ("-a", "invalid character 'a' in numeric literal"),
        ("1.a", "invalid character 'a' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("'a'", "invalid character '\\'' looking for beginning of value"),
        ("01", "invalid character '1' after top-level value"),
    ];
    for (text, want) in table {
        assert_eq!(json_error(text), want, "{text:?}");
    }
}

#[test]
fn documents_are_bounded_before_they_are_used() {
    let small = Limits { max_bytes: 10, max_depth: 3, max_nodes: 4 };
    assert_eq!(decode_json(b"[1,2,3,4,5,6]", &small), Err(SyntaxError::TooLarge { limit_bytes: 10 }));
    assert_eq!(decode_json(b"[[[[[1]]]]", &small), Err(SyntaxError::Json("exceeded max depth".to_owned())));
    assert_eq!(decode_json(b"[1,2,3,4]", &small), Err(SyntaxError::TooManyValues { limit: 4 }));
    assert!(decode_json("[".repeat(100_000).as_bytes(), &Limits::default()).is_err());
    assert!(decode_yaml("[".repeat(100_000).as_bytes(), &Limits::default()).is_err());
    assert!(decode_yaml("- ".repeat(100_000).as_bytes(), &Limits::default()).is_err());
}

#[test]
fn a_yaml_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(matches!(
        decode_yaml(bomb.as_bytes(), &Limits { max_nodes: 100_000, ..Limits::default() }),
        Err(SyntaxError::TooManyValues { .. })
    ));
}

#[test]
fn yaml_scalars_follow_yaml_1_1() {
    let table = [
        ("y", json!(true)),
        ("yes", json!(true)),
        ("On", json!(true)),
        ("n", json!(false)),
        ("off", json!(false)),
        ("true", json!(true)),
        ("~", json!(null)),
        ("", json!(null)),
        ("'yes'", json!("yes")),
        ("1", json!(1)),
        ("1_000", json!(1000)),
        ("0x1F", json!(31)),
        ("0777", json!(511)),
        ("0o17", json!(15)),
        ("0b11", json!(3)),
        ("-5", json!(-5)),
        ("08", json!(8)),
        ("1.5", json!(1.5)),
        ("1.0", json!(1)),
        ("1e3", json!(1000)),
        ("1.2.3", json!("1.2.3")),
        ("10.0.0.1", json!("10.0.0.1")),
        ("2026-01-02", json!("2026-01-02")),
        ("100m", json!("100m")),
        ("1Gi", json!("1Gi")),
        ("!!str 5", json!("5")),
        ("!!int 5", json!(5)),
        ("!!binary aGk=", json!("hi")),
        ("|\n a\n b\n", json!("a\nb\n")),
        (">\n a\n b\n", json!("a b\n")),
        (".", json!(".")),
        ("-", json!([null])),
        ("18446744073709551615", json!(18_446_744_073_709_551_615u64)),
    ];
    for (text, want) in table {
        assert_eq!(yaml(text), want, "{text:?}");
    }
}

#[test]
fn yaml_maps_merge_alias_and_take_keys_of_any_kind() {
    assert_eq!(yaml("a: &x {b: 1}\nc: *x\n"), json!({"a": {"b": 1}, "c": {"b": 1}}));
    assert_eq!(
        yaml("a: &x {b: 1, d: 2}\nc:\n  <<: *x\n  d: 3\n"),
        json!({"a": {"b": 1, "d": 2}, "c": {"b": 1, "d": 3}})
    );
    assert_eq!(yaml("1: a\ntrue: b\n"), json!({"1": "a", "true": "b"}));
    assert_eq!(yaml("---\na: 1\n---\n"), json!({"a": 1}));
    assert!(yaml_error("a: 1\n---\nb: 2\n").contains("expected a single document"));
    assert!(yaml_error("a: *nothing\n").starts_with("yaml: "));
    assert!(yaml_error("? [a]\n: b\n").contains("invalid map key"));
}

#[test]
fn broken_yaml_is_refused_in_the_words_of_go() {
    assert_eq!(yaml_error("a: [1\nb: }"), "yaml: line 1: did not find expected ',' or ']'");
    assert_eq!(yaml_error("a: ["), "yaml: line 1: did not find expected node content");
}

#[test]
fn a_body_that_does_not_say_what_it_is_is_unrecognized() {
    let target = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let prefix = "the object provided is unrecognized (must be of type ConfigMap): ";
    let table = [
        ("", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)".to_owned()),
        (
            "{\"apiVersion\":\"v1\",",
            "couldn't get version/kind; json parse error: unexpected end of JSON input ({\"apiVersion\":\"v1\",)".to_owned(),
        ),
        (
            "not json",
            "couldn't get version/kind; json parse error: invalid character 'o' in literal null (expecting 'u') (6e6f74206a736f6e)"
                .to_owned(),
        ),
        (
            "[]",
            format!("couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type {target} (5b5d)"),
        ),
        (
            "\"x\"",
            format!("couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type {target} (227822)"),
        ),
        (
            "{\"apiVersion\": \"a/b/c\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"a\"}}",
            "unexpected GroupVersion string: a/b/c ({\"apiVersion\": \"a/b/c\", \"kind\" ...)".to_owned(),
        ),
    ];
    for (body, want) in table {
        let status = config_map(body).unwrap_err();
        assert_eq!((status.code, status.message), (400, format!("{prefix}{want}")), "{body:?}");
    }
    let broken = decode(&kind("", "v1", "ConfigMap"), MediaType::Yaml, "a: [1\nb: }").unwrap_err();
    assert_eq!(
        broken.message,
        format!("{prefix}yaml: line 1: did not find expected ',' or ']' (613a205b310a623a207d)")
    );
}

#[test]
fn a_body_without_kind_is_of_the_kind_that_is_wanted() {
    for body in ["{}", "null", "{\"apiVersion\":\"v1\"}", "{\"kind\":\"ConfigMap\"}"] {
        let decoded = config_map(body).unwrap();
        assert_eq!(
            decoded.object,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
            "{body}"
        );
    }
}

#[test]
fn a_body_of_another_kind_is_refused() {
    let table = [
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}",
            "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
        (
            "{\"apiVersion\":\"v2\",\"kind\":\"ConfigMap\"}",
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "{\"apiVersion\":\"apps/v1\",\"kind\":\"ConfigMap\"}",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"apps/v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"Nothing\"}",
            "Nothing in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nothing\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
    ];
    for (body, want) in table {
        assert_eq!(config_map(body).unwrap_err().message, want);
    }
    let large = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(3 * 1024 * 1024));
    let status = config_map(&large).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (413, "Request entity too large: limit is 3145728"));
}

#[test]
fn options_are_taken_in_any_group() {
    let expected = kind("", "v1", "DeleteOptions");
    for api_version in ["v1", "apps/v1", "meta.k8s.io/v1"] {
        let body =
            json!({"apiVersion": api_version, "kind": "DeleteOptions", "gracePeriodSeconds": 0}).to_string();
        let result = decode(&expected, MediaType::Json, &body);
        assert_eq!(result.unwrap().object["gracePeriodSeconds"], json!(0), "{api_version}");
    }
}

#[test]
fn a_yaml_name_that_is_a_truth_value_does_not_fit() {
    let status = decode(&kind("", "v1", "ConfigMap"), MediaType::Yaml, "metadata: {name: y}\n").unwrap_err();
    assert_eq!(
        status.message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string"
    );
}

#[test]
fn what_the_limits_allow_fits_the_stack() {
    let limits = Limits::default();
    let schemas = schemas();
    let schema = schemas.root("apps", "v1", "ControllerRevision").unwrap();
    let depth = limits.max_depth - 1;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let body = format!("{{\"data\":{nested}}}");
        let document = decode_json(body.as_bytes(), &limits).unwrap();
        let (value, _) = document.object(schema).unwrap();
        assert_eq!(value["data"].to_string(), nested);
    }
    // YAML's parser has a limit of its own, a little lower.
    let yaml = format!("data: {}1{}", "[".repeat(200), "]".repeat(200));
    assert!(decode_yaml(yaml.as_bytes(), &limits).is_ok());
}

#[test]
fn values_that_do_not_fit_are_refused_in_the_words_of_go() {
    let table = [
        (
            "ConfigMap",
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "ConfigMap",
            json!({"metadata": {"name": 5}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
        ),
        ("ConfigMap", json!({"binaryData": {"a": "%%%"}}), "illegal base64 data at input byte 0"),
        (
            "ConfigMap",
            json!({"data": []}),
            "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
        ),
        (
            "Pod",
            json!({"spec": {"containers": {"name": "x"}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "Pod",
            json!({"spec": {"containers": [{"name": "x", "ports": [{"containerPort": "80"}]}]}}),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            "Pod",
            json!({"spec": {"containers": [{"name": "x", "resources": {"limits": {"cpu": "1x"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "Pod",
            json!({"spec": {"activeDeadlineSeconds": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
        ),
        (
            "Pod",
            json!({"spec": {"priority": 3_000_000_000u64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            "Pod",
            json!({"spec": {"hostNetwork": "yes"}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            "Pod",
            json!({"status": {"startTime": "x"}}),
            "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
        ),
        (
            "Pod",
            json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        // The first misfit is told at the end, unless a type's own decoder refuses before.
        (
            "Pod",
            json!({"metadata": {"name": 1}, "spec": {"hostNetwork": 1}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
        ),
    ];
    for (name, mut body, want) in table {
        body["apiVersion"] = json!("v1");
        body["kind"] = json!(name);
        let status = decode(&kind("", "v1", name), MediaType::Json, &body.to_string()).unwrap_err();
        assert_eq!(status.message, format!("{name} in version \"v1\" cannot be handled as a {name}: {want}"));
        assert_eq!(status.code, 400);
    }
}

#[test]
fn unknown_and_duplicate_fields_are_found_in_the_order_of_the_document() {
    let table = [
        (
            "Pod",
            MediaType::Json,
            r#"{"metadata":{"name":"p","labls":{}},"spec":{"containers":[{"name":"c","imagee":"x"}],"nope":1},"extra":1}"#,
            vec![
                "unknown field \"metadata.labls\"",
                "unknown field \"spec.containers[0].imagee\"",
                "unknown field \"spec.nope\"",
                "unknown field \"extra\"",
            ],
        ),
        (
            "ConfigMap",
            MediaType::Json,
            r#"{"metadata":{"name":"d","name":"d1"},"data":{"k":"1","k":"2"}}"#,
            vec!["duplicate field \"metadata.name\"", "duplicate field \"data.k\""],
        ),
        // Names are taken exactly as they are.
        ("ConfigMap", MediaType::Json, r#"{"Data":{"a":"b"}}"#, vec!["unknown field \"Data\""]),
        (
            "ConfigMap",
            MediaType::Yaml,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yy}\ndata: {a: b}\ndata: {c: d}\nodd: 1\n",
            vec![
                "yaml: unmarshal errors:\n  line 5: key \"data\" already set in map",
                "unknown field \"odd\"",
            ],
        ),
    ];
    for (name, media_type, body, want) in table {
        let expected = kind("", "v1", name);
        let decoded = decode(&expected, media_type, body).unwrap();
        assert_eq!(decoded.strict, want);
        let refusal = decoded.strict_error(&expected).unwrap();
        assert_eq!(
            refusal.message,
            format!(
                "{name} in version \"v1\" cannot be handled as a {name}: strict decoding error: {}",
                want.join(", ")
            )
        );
    }
    let decoded = config_map(r#"{"data":{"k":"1","k":"2"},"extra":{}}"#).unwrap();
    assert_eq!(decoded.object["data"], json!({"k": "2"}));
    assert!(decoded.object.get("extra").is_none());
}

#[test]
fn an_object_is_what_go_would_make_of_the_document() {
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "creationTimestamp": null, "labels": {}, "generation": 0, "namespace": ""},
        "spec": {
            "hostNetwork": false, "priority": 0, "nodeName": "", "runtimeClassName": "", "tolerations": [], "nodeSelector": null,
            "securityContext": {},
            "containers": [{
                "name": "c", "stdin": false, "command": [], "args": ["a", null],
                "resources": {"limits": {"memory": "1024Mi", "cpu": 0.5}},
                "env": [{"name": "E", "value": "", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
            }, {}],
        },
        "status": {"startTime": "2026-01-02T04:04:05+01:00", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let decoded = decode(&kind("", "v1", "Pod"), MediaType::Json, &body.to_string()).unwrap();
    assert_eq!(decoded.strict, Vec::<String>::new());
    assert_eq!(
        decoded.object,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {
                "priority": 0, "runtimeClassName": "", "securityContext": {},
                "containers": [{
                    "name": "c", "args": ["a", ""],
                    "resources": {"limits": {"memory": "1Gi", "cpu": "500m"}},
                    "env": [{"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}],
                    "livenessProbe": {"httpGet": {"port": 80}},
                }, {"name": "", "resources": {}}],
            },
            "status": {
                "startTime": "2026-01-02T03:04:05Z",
                "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}],
            },
        })
    );
}

#[test]
fn objects_of_a_real_server_come_back_as_they_are() {
    let schemas = schemas();
    let objects: Vec<Value> = serde_json::from_str(include_str!("../../tests/data/objects.json")).unwrap();
    for object in objects {
        let (api_version, kind) = (crate::metadata::api_version(&object), crate::metadata::kind(&object));
        let schema = schemas.root_of(api_version, kind).unwrap();
        let (decoded, strict) = Document::from_value(object.clone()).object(schema).unwrap();
        assert_eq!(strict, Vec::<String>::new());
        assert_eq!(decoded, object);
        let mut normalized = object.clone();
        normalize(schema, &mut normalized);
        assert_eq!(normalized, object);
        prune(schema, &mut normalized);
        assert_eq!(normalized, object);
    }
}

#[test]
fn pruning_removes_what_the_type_does_not_know() {
    let schemas = schemas();
    let schema = schemas.root("", "v1", "Pod").unwrap();
    let mut pod = json!({"odd": 1, "spec": {"odd": 1, "containers": [{"name": "a", "odd": {}}], "nodeSelector": {"odd": "kept"}}});
    prune(schema, &mut pod);
    assert_eq!(pod, json!({"spec": {"containers": [{"name": "a"}], "nodeSelector": {"odd": "kept"}}}));
}

#[test]
fn schemas_in_custom_resource_definitions_are_checked_too() {
    let schemas = schemas();
    let schema =
        schemas.named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let document = Document::from_value(json!({
        "type": "object", "default": {"any": [null]},
        "additionalProperties": {"type": "string", "oddly": 1},
        "properties": {"a": {"additionalProperties": true, "items": {"type": "string"}}},
    }));
    let (value, strict) = document.object(schema).unwrap();
    assert_eq!(strict, vec!["unknown field \"additionalProperties.oddly\""]);
    assert_eq!(value["properties"]["a"], json!({"additionalProperties": true, "items": {"type": "string"}}));
    assert_eq!(value["default"], json!({"any": [null]}));
}
