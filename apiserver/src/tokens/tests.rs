use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Fake(RwLock<HashMap<String, Value>>);

impl Fake {
    fn put(&self, key: &str, object: Value) {
        self.0.write().unwrap().insert(key.to_owned(), object);
    }
}

impl Objects for Fake {
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.read().unwrap().get(&format!("{resource}/{namespace}/{name}")).cloned()
    }
}

const NOW: i64 = 1_800_000_000;

fn setup() -> (Signer, Arc<Fake>, Verifier) {
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let signer = Signer::new(DEFAULT_ISSUER, &key).unwrap();
    let objects = Arc::new(Fake::default());
    objects.put("serviceaccounts/ns/bot", json!({"metadata": {"name": "bot", "uid": "u1"}}));
    objects.put("nodes//n1", json!({"metadata": {"name": "n1", "uid": "u3"}}));
    objects.put(
        "pods/ns/p",
        json!({"metadata": {"name": "p", "uid": "u2"}, "spec": {"serviceAccountName": "bot", "nodeName": "n1"}}),
    );
    let verifier = Verifier::new(&signer, objects.clone()).unwrap();
    (signer, objects, verifier)
}

fn request(signer: &Signer, objects: &Fake, spec: Value) -> Result<Value, crate::registry::Refusal> {
    let body = json!({"spec": spec});
    let request = TokenRequest { namespace: "ns", name: "bot", body: &body, now_unix_seconds: NOW };
    token_request(signer, objects, &request)
}

fn token(signer: &Signer, objects: &Fake, spec: Value) -> String {
    request(signer, objects, spec).unwrap()["status"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_names_its_account_for_as_long_as_it_lasts() {
    let (signer, objects, verifier) = setup();
    let token = token(&signer, &objects, json!({"expirationSeconds": 600}));
    let verified = verifier.verify(&token, &[], NOW).unwrap();
    assert_eq!(verified.identity.user, "system:serviceaccount:ns:bot");
    assert_eq!(verified.identity.uid, "u1");
    assert!(
        verified.identity.is_in("system:serviceaccounts:ns")
            && verified.identity.is_in("system:authenticated")
    );
    assert!(verifier.verify(&token, &[], NOW + 600).is_ok());
    assert_eq!(verifier.verify(&token, &[], NOW + 661), Err(Rejection::Time));
    assert_eq!(verifier.verify(&token, &[], NOW - 61), Err(Rejection::Time));
    let other = ["a.example.org".to_owned()];
    assert!(matches!(verifier.verify(&token, &other, NOW), Err(Rejection::Audience { .. })));
}

#[test]
fn a_token_ends_with_what_it_is_bound_to() {
    let (signer, objects, verifier) = setup();
    let bound = token(
        &signer,
        &objects,
        json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u2"}}),
    );
    let identity = verifier.verify(&bound, &[], NOW).unwrap().identity;
    assert_eq!(identity.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(identity.extra["authentication.kubernetes.io/node-uid"], ["u3"]);
    let pod = objects.object("pods", "ns", "p").unwrap();
    objects.put("pods/ns/p", json!({"metadata": {"name": "p", "uid": "other"}}));
    assert_eq!(verifier.verify(&bound, &[], NOW), Err(Rejection::Invalidated));
    objects.put("pods/ns/p", pod);
    assert!(verifier.verify(&bound, &[], NOW).is_ok());
    objects.put("serviceaccounts/ns/bot", json!({"metadata": {"name": "bot", "uid": "again"}}));
    assert_eq!(verifier.verify(&bound, &[], NOW), Err(Rejection::Invalidated));
}

#[test]
fn a_token_of_another_key_or_with_changed_claims_is_refused() {
    let (signer, objects, verifier) = setup();
    let (other, ..) = setup();
    assert_eq!(verifier.verify(&token(&other, &objects, json!({})), &[], NOW), Err(Rejection::Malformed));
    let good = token(&signer, &objects, json!({}));
    let mut parts: Vec<&str> = good.split('.').collect();
    let foreign = token(&signer, &objects, json!({"expirationSeconds": 7200}));
    parts[1] = foreign.split('.').nth(1).unwrap();
    assert_eq!(verifier.verify(&parts.join("."), &[], NOW), Err(Rejection::Malformed));
    assert_eq!(verifier.verify("wrong", &[], NOW), Err(Rejection::Foreign));
}

#[test]
fn requests_that_make_no_sense_are_refused_in_kubernetes_words() {
    let (signer, objects, _) = setup();
    let reference = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name, "uid": uid}});
    #[rustfmt::skip]
    let table = [
        (json!({"expirationSeconds": 5}), 422, r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"#),
        (reference("Pod", "none", ""), 404, r#"pods "none" not found"#),
        (reference("Pod", "p", "x"), 409, r#"Operation cannot be fulfilled on pods "p": the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated"#),
    ];
    for (spec, code, message) in table {
        let error = request(&signer, &objects, spec).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }
}
