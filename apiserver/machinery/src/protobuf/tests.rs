use serde_json::json;

use super::*;
use crate::decode::{Document, Limits, MediaType, decode_object};
use crate::schema::Schemas;

fn tables() -> (Schemas, Messages) {
    let schemas = Schemas::builtin().unwrap();
    let messages = Messages::builtin(&schemas).unwrap();
    (schemas, messages)
}

/// Through protobuf and back, as a request's body is.
fn round_trip(schemas: &Schemas, messages: &Messages, object: &Value) -> Value {
    let bytes = messages.encode(object).unwrap();
    let decoded = messages.decode(&bytes).unwrap();
    let schema = schemas.root_of(metadata::api_version(object), metadata::kind(object)).unwrap();
    let (value, strict) = Document::from_value(decoded).object(schema).unwrap();
    assert_eq!(strict, Vec::<String>::new());
    value
}

#[test]
fn every_kind_has_its_message() {
    let (schemas, messages) = tables();
    assert_eq!(messages.names().count(), 643);
    for (api_version, kind) in [
        ("v1", "Pod"),
        ("apps/v1", "DeploymentList"),
        ("v1", "Status"),
        ("meta.k8s.io/v1", "PartialObjectMetadata"),
        ("v1", "DeleteOptions"),
    ] {
        assert!(messages.knows(api_version, kind), "{api_version} {kind}");
    }
    assert!(!messages.knows("example.org/v1", "Widget"));
    for name in schemas.names() {
        for kind in schemas.named(name).unwrap().kinds() {
            let group = if kind.group.is_empty() { String::new() } else { format!("{}/", kind.group) };
            assert!(messages.knows(&format!("{group}{}", kind.version), &kind.kind), "{kind:?}");
        }
    }
}

#[test]
fn objects_of_a_real_server_survive_protobuf() {
    let (schemas, messages) = tables();
    let objects: Vec<Value> = serde_json::from_str(include_str!("../../tests/data/objects.json")).unwrap();
    assert!(objects.len() > 30);
    for mut object in objects {
        // Protobuf has no room for the kind of an embedded object; the kind's defaults put it back.
        if let Some(claims) = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut) {
            for claim in claims.iter_mut().filter_map(Value::as_object_mut) {
                claim.retain(|field, _| field != "apiVersion" && field != "kind");
            }
        }
        assert_eq!(round_trip(&schemas, &messages, &object), object);
    }
}

#[test]
fn the_bytes_are_those_of_kubernetes() {
    let (_, messages) = tables();
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    let bytes = messages.encode(&object).unwrap();
    let want: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x05\x0a\x03\x0a\x01a\x1a\x00\x22\x00";
    assert_eq!(bytes, want);
    assert_eq!(messages.decode(&bytes).unwrap(), object);
}

#[test]
fn zeroes_that_a_go_client_writes_are_not_stored() {
    let (schemas, messages) = tables();
    // As client-go writes a Deployment: fields held by value are there even when zero.
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "generateName": "", "namespace": "", "uid": "", "generation": 0},
        "spec": {
            "replicas": 0, "minReadySeconds": 0, "paused": false, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i", "workingDir": "", "stdin": false}], "nodeName": "", "hostPID": false}},
        },
        "status": {"replicas": 0, "observedGeneration": 0},
    });
    let bytes = messages.encode(&object).unwrap();
    let expected = GroupVersionKind {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        kind: "Deployment".to_owned(),
    };
    let decoded =
        decode_object(&schemas, &messages, &expected, MediaType::Protobuf, &bytes, &Limits::default())
            .unwrap();
    assert_eq!(
        decoded.object,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "strategy": {},
                "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}},
            },
            "status": {},
        })
    );
}

#[test]
fn the_bodies_of_the_real_kubectl_are_the_objects_that_it_prints() {
    let (schemas, messages) = tables();
    let recorded: Vec<Value> = serde_json::from_str(include_str!("../../tests/data/kubectl.json")).unwrap();
    assert!(recorded.len() > 10);
    for request in recorded {
        let body = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            request["body"].as_str().unwrap(),
        );
        let object = &request["object"];
        let schema = schemas.root_of(metadata::api_version(object), metadata::kind(object)).unwrap();
        let expected = schema.kinds()[0].clone();
        let limits = Limits::default();
        let decoded =
            decode_object(&schemas, &messages, &expected, MediaType::Protobuf, &body.unwrap(), &limits)
                .unwrap();
        assert_eq!(&decoded.object, object, "{}", request["command"]);
        assert_eq!(decoded.strict, Vec::<String>::new());
    }
}

#[test]
fn lists_statuses_and_schemas_survive_protobuf() {
    let (schemas, messages) = tables();
    let table = [
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "5", "remainingItemCount": 3},
            "items": [{"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}}]}),
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "no", "reason": "NotFound",
            "details": {"name": "a", "kind": "pods", "causes": [{"reason": "x", "message": "y", "field": "z"}]}, "code": 404}),
        json!({"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"], "shortNames": ["po"]}]}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {"user": "u", "extra": {"k": ["a", "b"]}}, "status": {"allowed": true}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"renewTime": "2026-01-02T03:04:05.000006Z", "holderIdentity": "h"}}),
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "data": {"a": [1, {"b": null}]}, "revision": 3}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AAEC/w==", "b": ""}, "type": "Opaque"}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "c"},
            "spec": {"group": "g", "names": {"plural": "p", "kind": "K"}, "scope": "Namespaced", "versions": [{"name": "v1", "served": true,
                "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "default": {"a": 1}, "enum": [1, "x", null],
                    "properties": {"a": {"items": {"type": "string"}, "additionalProperties": true, "maximum": 1.5,
                        "x-kubernetes-preserve-unknown-fields": true},
                    "b": {"additionalProperties": {"type": "integer"}, "items": [{"type": "string"}], "dependencies": {"x": ["y"], "z": {"type": "object"}}}}}}}]},
            "status": {"acceptedNames": {"plural": "p", "kind": "K"}, "conditions": null, "storedVersions": null}}),
    ];
    for object in table {
        let mut want = object.clone();
        let schema = schemas.root_of(metadata::api_version(&object), metadata::kind(&object)).unwrap();
        crate::decode::normalize(schema, &mut want);
        assert_eq!(round_trip(&schemas, &messages, &object), want);
    }
}

#[test]
fn a_list_of_anything_holds_objects_with_their_own_envelope() {
    let (_, messages) = tables();
    let inner = messages
        .encode(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}))
        .unwrap();
    let mut raw = Vec::new();
    wire::put_bytes(&mut raw, 1, &inner);
    let mut list = Vec::new();
    wire::put_bytes(&mut list, 2, &raw);
    let decoded = messages.decode(&seal("v1", "List", &list)).unwrap();
    assert_eq!(
        decoded["items"],
        json!([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}])
    );
}

#[test]
fn watch_events_hold_the_bytes_of_their_object() {
    let (_, messages) = tables();
    let object = messages
        .encode(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}))
        .unwrap();
    let event = Messages::encode_watch_event("ADDED", &object);
    assert_eq!(Messages::decode_watch_event(&event).unwrap(), ("ADDED".to_owned(), object));
    assert!(Messages::decode_watch_event(b"\x0a\xff").is_err());
}

#[test]
fn malformed_bytes_are_refused_and_never_panic() {
    let (_, messages) = tables();
    let good = messages
        .encode(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}))
        .unwrap();
    for length in 0..good.len() {
        let _ = messages.decode(&good[..length]);
    }
    let mut bad = good.clone();
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            bad[at] ^= flip;
            let _ = messages.decode(&bad);
            bad[at] ^= flip;
        }
    }
    assert!(matches!(messages.decode(b"{}"), Err(Error::NoPrefix)));
    assert!(matches!(messages.decode(b"k8s\0"), Err(Error::NoMessage { .. })));
    assert!(matches!(messages.decode(b"k8s\0\x12\xff\xff\xff\xff\x0f"), Err(Error::Wire { .. })));
    // Schemas within schemas, far beyond what a stack holds.
    let mut nested = Vec::new();
    for _ in 0..2_000 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, 28, &nested);
        nested = outer;
    }
    for number in [3, 1, 7, 4, 1] {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, number, &nested);
        nested = outer;
    }
    let deep = seal("apiextensions.k8s.io/v1", "CustomResourceDefinition", &nested);
    let _ = messages.decode(&deep);
}

#[test]
fn a_value_that_does_not_fit_its_field_is_named() {
    let (_, messages) = tables();
    let error = messages
        .encode(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": 5}}))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "proto: k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta.name: cannot encode a number"
    );
}

#[test]
fn durations_are_written_as_go_writes_them() {
    let table = [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (5_400_000_000_000, "1h30m0s"),
        (-1_000_000_000, "-1s"),
    ];
    for (nanos, text) in table {
        assert_eq!(special::format_duration(nanos), text);
        assert_eq!(special::parse_duration(text), Some(nanos), "{text}");
    }
    for bad in ["", "-", "1", "1x", "s", "99999999999999h"] {
        assert_eq!(special::parse_duration(bad), None, "{bad:?}");
    }
}
