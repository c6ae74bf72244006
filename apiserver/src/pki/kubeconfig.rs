//! Kubeconfig files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Credential;

/// A kubeconfig with one cluster, one user and one context, everything inline. JSON strings are YAML strings, so that no
/// value can break out of its place.
pub(super) fn kubeconfig(server_url: &str, user: &str, ca_pem: &str, credential: &Credential) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let encoded = |text: &str| STANDARD.encode(text);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: wherry\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         users:\n\
         - name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n\
         - name: wherry\n  context:\n    cluster: wherry\n    user: {user}\n\
         current-context: wherry\n",
        server = quoted(server_url),
        user = quoted(user),
        ca = encoded(ca_pem),
        certificate = encoded(&credential.certificate_pem),
        key = encoded(&credential.key_pem),
    )
}
