//! Credentials for registries, from the pod's pull secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use wherry_runtimes::AuthConfig;

use super::reference::registry_and_repository;

/// Credentials that fit an image, most specific first.
///
/// Reads Secrets of the types `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`; others are ignored.
pub fn credentials<'a>(image: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<AuthConfig> {
    let (registry, repository) = registry_and_repository(image);
    let mut found: Vec<(usize, AuthConfig)> = secrets
        .into_iter()
        .filter_map(entries)
        .flatten()
        .filter_map(|(server, entry)| {
            Some((specificity(&server, &registry, &repository)?, auth_config(&server, &entry)?))
        })
        .collect();
    found.sort_by_key(|(specificity, _)| std::cmp::Reverse(*specificity));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> Option<Vec<(String, Value)>> {
    let data = secret.data.as_ref()?;
    let parse = |key: &str| serde_json::from_slice::<Value>(&data.get(key)?.0).ok();
    let entries = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => parse(".dockerconfigjson")?.get("auths")?.clone(),
        Some("kubernetes.io/dockercfg") => parse(".dockercfg")?,
        _ => return None,
    };
    let Value::Object(entries) = entries else { return None };
    Some(entries.into_iter().collect())
}

fn specificity(server: &str, registry: &str, repository: &str) -> Option<usize> {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let matches_host = match host.strip_prefix("*.") {
        Some(domain) => registry.strip_suffix(domain).is_some_and(|label| {
            label.strip_suffix('.').is_some_and(|label| !label.is_empty() && !label.contains('.'))
        }),
        None => host == registry,
    };
    let matches_path = path.is_empty() || repository == path || repository.starts_with(&format!("{path}/"));
    (matches_host && matches_path).then_some(path.len())
}

fn auth_config(server: &str, entry: &Value) -> Option<AuthConfig> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut username, mut password) = (text("username"), text("password"));
    if username.is_empty() {
        let decoded = STANDARD.decode(text("auth")).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((user, secret)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) {
            username = user.to_owned();
            password = secret.trim_end_matches('\0').to_owned();
        }
    }
    let auth = AuthConfig {
        username,
        password,
        server_address: server.to_owned(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..AuthConfig::default()
    };
    let is_empty =
        auth.username.is_empty() && auth.identity_token.is_empty() && auth.registry_token.is_empty();
    (!is_empty).then_some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_that_matches_comes_first() {
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:pw")},
            "example.com": {"username": "all", "password": "p"},
            "example.com/team": {"username": "team", "password": "p"},
            "*.example.org": {"username": "wild", "password": "p"},
        }});
        let secret: Secret = serde_json::from_value(serde_json::json!({
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode(config.to_string())},
        }))
        .unwrap();
        for (image, users) in [
            ("busybox", vec!["hub"]),
            ("example.com/team/app:1", vec!["team", "all"]),
            ("example.com/teams/app", vec!["all"]),
            ("eu.example.org/a", vec!["wild"]),
            ("a.eu.example.org/a", vec![]),
            ("other.net/a", vec![]),
        ] {
            let found: Vec<String> = credentials(image, [&secret]).into_iter().map(|a| a.username).collect();
            assert_eq!(found, users, "{image}");
        }
    }
}
