use super::*;

fn everything() -> OpenApi {
    OpenApi::new(|_, _, _, _| Some(Served::Stored), "v1.36.0")
}

async fn json(path: &str, headers: &HeaderMap) -> (StatusCode, HeaderMap, Value) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let response = everything().answer(path, headers, &Query::parse(query)).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn the_index_leads_to_documents_that_never_change() {
    let none = HeaderMap::new();
    let (_, _, index) = json("/openapi/v3", &none).await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let (code, headers, document) = json(url, &none).await;
    assert_eq!(code, 200);
    assert!(headers[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    assert_eq!(document["openapi"], "3.0.0");
    let again = HeaderMap::from_iter([(IF_NONE_MATCH, headers[ETAG].clone())]);
    assert_eq!(json(url, &again).await.0, 304);
    let (code, headers, _) = json("/openapi/v3/apis/apps/v1?hash=old", &none).await;
    assert_eq!((code.as_u16(), headers[LOCATION].to_str().unwrap()), (301, url));
    assert_eq!(json("/openapi/v3/apis/nothing/v1", &none).await.0, 404);
    let protobuf = HeaderMap::from_iter([(
        ACCEPT,
        HeaderValue::from_static("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
    )]);
    assert_eq!(json(url, &protobuf).await.0, 406);
    let response = everything().answer("/openapi/v2", &protobuf, &Query::default()).await.unwrap();
    let (parts, body) = response.into_parts();
    assert_eq!(
        (parts.status.as_u16(), parts.headers[CONTENT_TYPE].as_bytes()),
        (200, &b"application/octet-stream"[..])
    );
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    assert!(bytes.starts_with(b"\x0a\x032.0") && bytes.len() > 100_000, "{} bytes", bytes.len());
}

/// Every reference in a document, wherever it is.
fn check_references(value: &Value, known: &serde_json::Map<String, Value>, prefix: &str) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let name = reference.strip_prefix(prefix).unwrap_or_else(|| panic!("{reference}"));
                assert!(known.contains_key(name), "{name}");
            }
            fields.values().for_each(|value| check_references(value, known, prefix));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, known, prefix)),
        _ => {}
    }
}

#[tokio::test]
async fn documents_hold_every_type_that_they_name_and_say_what_it_means() {
    let none = HeaderMap::new();
    let (_, _, index) = json("/openapi/v3", &none).await;
    for path in index["paths"].as_object().unwrap().keys() {
        let (_, _, document) = json(&format!("/openapi/v3/{path}"), &none).await;
        let schemas = document["components"]["schemas"].as_object().unwrap();
        check_references(&document, schemas, "#/components/schemas/");
    }
    let (_, _, apps) = json("/openapi/v3/apis/apps/v1", &none).await;
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let spec = &apps["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
    let text = spec["properties"]["replicas"]["description"].as_str().unwrap();
    assert!(text.starts_with("Number of desired pods."), "{text}");
    let (_, _, whole) = json("/openapi/v2", &none).await;
    let definitions = whole["definitions"].as_object().unwrap();
    check_references(&whole, definitions, "#/definitions/");
    assert!(definitions.contains_key("io.k8s.api.core.v1.Pod"));
}
