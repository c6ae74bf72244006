//! The whole server, in process and over TLS.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use wherry_storage::embedded::{Embedded, Options};

use super::*;
use crate::pki::{ClientIdentity, ServingNames};

struct Fixture {
    directory: PathBuf,
    pki: Arc<Pki>,
    server: ApiServer,
}

impl Fixture {
    async fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("wherry-server-{}", uuid::Uuid::new_v4()));
        let pki = Arc::new(Pki::open(&directory).unwrap());
        let store = Arc::new(Embedded::in_memory(Options::default()).unwrap());
        let server = ApiServer::start(Config::new(store, Arc::clone(&pki), "127.0.0.1:1")).await.unwrap();
        Self { directory, pki, server }
    }

    async fn stop(self) {
        self.server.stop().await;
        std::fs::remove_dir_all(&self.directory).unwrap();
    }

    async fn call(&self, identity: Identity, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let response = self.server.router_as(identity).oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn components_in_the_same_process_are_authorised_like_everybody() {
    let fixture = Fixture::start().await;
    let admin = || Identity::admin("root");
    assert_eq!(fixture.call(admin(), "POST", CONFIG_MAPS, Some(config_map("a"))).await.0, 201);
    let (code, refusal) = fixture.call(Identity::new("ann", [""; 0]), "GET", CONFIG_MAPS, None).await;
    assert_eq!(code, 403);
    assert_eq!(
        refusal["message"],
        r#"configmaps is forbidden: User "ann" cannot list resource "configmaps" in API group "" in the namespace "default""#
    );
    let (code, namespaces) = fixture.call(admin(), "GET", "/api/v1/namespaces", None).await;
    assert_eq!((code, namespaces["items"].as_array().unwrap().len()), (200, 4));
    fixture.stop().await;
}

#[tokio::test]
async fn reviews_say_who_one_is_and_what_one_may() {
    let fixture = Fixture::start().await;
    let ann = || Identity::new("ann", [""; 0]);
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "list", "resource": "configmaps"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, review) = fixture.call(Identity::admin("root"), "POST", path, Some(body)).await;
    assert_eq!((code, &review["status"]), (201, &json!({"allowed": true})));
    let (code, _) = fixture.call(Identity::admin("root"), "GET", path, None).await;
    assert_eq!(code, 405);
    let (code, refusal) = fixture.call(ann(), "GET", "/metrics", None).await;
    assert_eq!(
        (code, &refusal["message"]),
        (403, &json!(r#"forbidden: User "ann" cannot get path "/metrics""#))
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_timeout_that_does_not_parse_and_paths_that_do_not_exist_answer_as_kubernetes() {
    let fixture = Fixture::start().await;
    let get = |path: &'static str| fixture.call(Identity::admin("root"), "GET", path, None);
    let (code, refusal) = get("/api/v1/namespaces?timeout=abc").await;
    let text = r#"invalid timeout specified in the request URL - time: invalid duration "abc""#;
    assert_eq!((code, &refusal["message"]), (400, &json!(text)));
    for (path, reason) in [
        ("/nothing", Value::Null),
        ("/apis/none.example.org", Value::Null),
        ("/apis/none.example.org/v1/things", Value::Null),
        ("/api/v2", json!("NotFound")),
        ("/api/v1/nothings", json!("NotFound")),
    ] {
        let (code, body) = get(path).await;
        assert_eq!((code, &body["reason"]), (404, &reason), "{path}");
    }
    let (code, version) = get("/version").await;
    assert_eq!((code, version["gitVersion"].as_str().unwrap().starts_with("v1.36.0+wherry")), (200, true));
    fixture.stop().await;
}

async fn connect(
    fixture: &Fixture,
    address: std::net::SocketAddr,
    identity: Option<&ClientIdentity>,
) -> hyper::client::conn::http1::SendRequest<Full<bytes::Bytes>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(fixture.pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let credential = fixture.pki.client(identity).unwrap();
            let chain = vec![CertificateDer::from_pem_slice(credential.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("kubernetes.default.svc").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn clients_are_known_by_certificate_over_tls_and_streams_end_with_the_server() {
    let fixture = Fixture::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls::new(&fixture.pki, &ServingNames::default()).unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn({
        let (server, shutdown) = (fixture.server.clone(), shutdown.clone());
        async move { server.serve(listener, tls, shutdown).await }
    });
    let get = |path: &str, token: Option<&str>| {
        let mut request = Request::get(path).header("host", "127.0.0.1");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(Full::new(bytes::Bytes::new())).unwrap()
    };
    let mut anonymous = connect(&fixture, address, None).await;
    for (path, token, code) in [
        ("/healthz", None, 200),
        ("/version", None, 200),
        ("/apis", None, 403),
        ("/version", Some("wrong"), 401),
    ] {
        let answer = anonymous.send_request(get(path, token)).await.unwrap();
        assert_eq!(answer.status().as_u16(), code, "{path}");
        assert!(answer.headers().contains_key("audit-id"));
        answer.into_body().collect().await.unwrap();
    }
    let mut admin = connect(&fixture, address, Some(&ClientIdentity::Admin)).await;
    let watch = admin.send_request(get(&format!("{CONFIG_MAPS}?watch=true"), None)).await.unwrap();
    assert_eq!(watch.status(), StatusCode::OK);
    shutdown.cancel();
    watch.into_body().collect().await.unwrap();
    serving.await.unwrap();
    fixture.stop().await;
}
