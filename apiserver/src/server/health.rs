//! `/healthz`, `/livez`, `/readyz`, and the checks behind them.
//!
//! Source: `k8s.io/apiserver/pkg/server/healthz`.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;

use super::respond;
use crate::http::query::Query;

/// A check: well, or what is wrong.
type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// Whether the process should go on living: all three endpoints.
    Liveness,
    /// Whether it can do its work: `/healthz` and `/readyz`.
    Readiness,
}

struct Entry {
    name: String,
    about: About,
    check: Check,
}

/// The checks of a server; components in the same process report in here. Clones share the checks.
#[derive(Clone, Default)]
pub struct HealthRegistry {
    checks: Arc<RwLock<Vec<Entry>>>,
}

impl std::fmt::Debug for HealthRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(checks.iter().map(|entry| &entry.name)).finish()
    }
}

impl HealthRegistry {
    /// Adds a check of readiness, or replaces the one of that name. It is called at every request: it must not wait.
    pub fn register(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.add(name.into(), About::Readiness, Arc::new(check));
    }

    /// Adds a check without which the process should be restarted.
    pub fn register_liveness(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.add(name.into(), About::Liveness, Arc::new(check));
    }

    fn add(&self, name: String, about: About, check: Check) {
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { name, about, check };
        match checks.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => checks.push(entry),
        }
    }

    /// Takes a check away.
    pub fn unregister(&self, name: &str) {
        self.checks.write().unwrap_or_else(PoisonError::into_inner).retain(|entry| entry.name != name);
    }

    /// The names of the checks that are not well, with what is wrong.
    pub fn failing(&self) -> Vec<(String, String)> {
        self.of("readyz")
            .into_iter()
            .filter_map(|(name, check)| check().err().map(|error| (name, error)))
            .collect()
    }

    /// The paths of all checks.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for endpoint in ["healthz", "livez", "readyz"] {
            paths.push(format!("/{endpoint}"));
            paths.extend(self.of(endpoint).into_iter().map(|(name, _)| format!("/{endpoint}/{name}")));
        }
        paths
    }

    fn of(&self, endpoint: &str) -> Vec<(String, Check)> {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        checks
            .iter()
            .filter(|entry| endpoint != "livez" || entry.about == About::Liveness)
            .map(|entry| (entry.name.clone(), Arc::clone(&entry.check)))
            .collect()
    }

    /// Answers `/healthz`, `/livez` or `/readyz` (`endpoint`), or one of their checks (`rest`).
    pub fn answer(&self, endpoint: &str, rest: &str, query: &Query) -> Response {
        let checks = self.of(endpoint);
        if rest.is_empty() {
            let excluded: BTreeSet<String> = query.all("exclude").map(str::to_owned).collect();
            return report(endpoint, &checks, excluded, query.first("verbose").is_some());
        }
        match checks.iter().find(|(name, _)| name == rest) {
            None => respond::plain_not_found(),
            Some((_, check)) => match check() {
                Ok(()) => respond::plain(StatusCode::OK, "ok"),
                Err(error) => respond::plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {error}\n"),
                ),
            },
        }
    }
}

fn report(
    endpoint: &str,
    checks: &[(String, Check)],
    mut excluded: BTreeSet<String>,
    verbose: bool,
) -> Response {
    let mut text = String::new();
    let mut failed = false;
    for (name, check) in checks {
        if excluded.remove(name) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check() {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                // The endpoint is public: the reason goes to the log.
                tracing::warn!(endpoint, check = name, error, "a health check fails");
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed = true;
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> =
            excluded.iter().map(|name| wherry_machinery::field::go_quote(name)).collect();
        text.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            names.join(", ")
        ));
    }
    if failed {
        return respond::plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{endpoint} check failed\n"));
    }
    if verbose {
        return respond::plain(StatusCode::OK, Body::from(format!("{text}{endpoint} check passed\n")));
    }
    respond::plain(StatusCode::OK, "ok")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn get(registry: &HealthRegistry, endpoint: &str, rest: &str, query: &str) -> (u16, String) {
        let response = registry.answer(endpoint, rest, &Query::parse(query));
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_endpoints_report_as_kubernetes_does() {
        let registry = HealthRegistry::default();
        registry.register_liveness("ping", || Ok(()));
        registry.register("scheduler", || Err("caches not synced".to_owned()));
        let broken = "[+]ping ok\n[-]scheduler failed: reason withheld\nreadyz check failed\n";
        #[rustfmt::skip]
        let table = [
            ("livez", "", "", 200, "ok"),
            ("livez", "", "verbose", 200, "[+]ping ok\nlivez check passed\n"),
            ("readyz", "", "", 500, broken),
            ("readyz", "", "exclude=scheduler", 200, "ok"),
            ("readyz", "", "verbose&exclude=scheduler&exclude=x", 200, "[+]ping ok\n[+]scheduler excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n"),
            ("readyz", "scheduler", "", 500, "internal server error: caches not synced\n"),
            ("readyz", "ping", "", 200, "ok"),
            ("livez", "scheduler", "", 404, "404 page not found\n"),
        ];
        for (endpoint, rest, query, code, text) in table {
            assert_eq!(
                get(&registry, endpoint, rest, query).await,
                (code, text.to_owned()),
                "{endpoint}/{rest}?{query}"
            );
        }
        registry.register("scheduler", || Ok(()));
        assert_eq!(get(&registry, "readyz", "", "").await.0, 200);
    }
}
