//! Leader election by a Lease: of several replicas of a component, one works.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::jitter;
use crate::retry::{is_already_exists, is_conflict, is_not_found};

/// Which Lease, who wants it, and how long it lasts. The durations are Kubernetes' defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who wants to lead: unique among the replicas.
    pub identity: String,
    /// How long after the last renewal others may take over.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// The pause between attempts.
    pub retry_period: Duration,
}

impl Config {
    /// The Lease `name` in `kube-system`, wanted by `identity`.
    pub fn new(name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Runs a function only while it holds a Lease.
pub struct LeaderElector {
    leases: Api<Lease>,
    config: Config,
    /// What was seen of the Lease, and when: expiry is judged by one's own clock.
    observed: Option<(LeaseSpec, Instant)>,
}

/// What an attempt to get or keep the Lease came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Held,
    HeldByAnother,
}

impl LeaderElector {
    /// An elector that does not lead yet.
    pub fn new(client: Client, config: Config) -> Self {
        Self { leases: Api::namespaced(client, &config.namespace), config, observed: None }
    }

    /// Waits for the Lease, runs `lead` with a token that is cancelled when the Lease is lost or `shutdown` begins, waits
    /// until it has returned, and gives the Lease back. Returns what `lead` returned, or `None` if shut down before.
    pub async fn run<F, Fut>(mut self, shutdown: &CancellationToken, lead: F) -> Option<Fut::Output>
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future,
    {
        shutdown.run_until_cancelled(self.acquire()).await?;
        tracing::info!(lease = %self.config.name, identity = %self.config.identity, "leading");
        let term = shutdown.child_token();
        let outcome = {
            let leading = lead(term.clone());
            let renewing = async {
                term.run_until_cancelled(self.keep()).await;
                term.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                outcome = leading => outcome,
                () = renewing => unreachable!("renewing never completes"),
            }
        };
        self.release().await;
        Some(outcome)
    }

    async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(Attempt::Held) => return,
                Ok(Attempt::HeldByAnother) => {}
                Err(error) => tracing::debug!(lease = %self.config.name, %error, "lease not acquired"),
            }
            tokio::time::sleep(self.config.retry_period + jitter(self.config.retry_period)).await;
        }
    }

    /// Renews until the Lease is lost.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let deadline = renewed + self.config.renew_deadline;
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Ok(Attempt::Held)) => renewed = Instant::now(),
                Ok(Ok(Attempt::HeldByAnother)) => {
                    tracing::warn!(lease = %self.config.name, "lease was taken by another");
                    return;
                }
                Ok(Err(error)) if Instant::now() < deadline => {
                    tracing::debug!(lease = %self.config.name, %error, "lease not renewed");
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(lease = %self.config.name, "lease could not be renewed in time");
                    return;
                }
            }
        }
    }

    async fn attempt(&mut self) -> kube::Result<Attempt> {
        let now = MicroTime(Timestamp::now());
        let lease = match self.leases.get(&self.config.name).await {
            Err(error) if is_not_found(&error) => return self.create(now).await,
            outcome => outcome?,
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.observed.as_ref().is_none_or(|(known, _)| *known != spec) {
            self.observed = Some((spec.clone(), Instant::now()));
        }
        let since = self.observed.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        let Some(spec) = claim(&spec, &self.config, since, now) else { return Ok(Attempt::HeldByAnother) };
        let mut claimed = lease;
        claimed.spec = Some(spec);
        match self.leases.replace(&self.config.name, &PostParams::default(), &claimed).await {
            Err(error) if is_conflict(&error) => return Ok(Attempt::HeldByAnother),
            outcome => outcome?,
        };
        self.observed = claimed.spec.map(|spec| (spec, Instant::now()));
        Ok(Attempt::Held)
    }

    async fn create(&mut self, now: MicroTime) -> kube::Result<Attempt> {
        let spec = claim(&LeaseSpec::default(), &self.config, Duration::ZERO, now);
        let metadata = ObjectMeta {
            name: Some(self.config.name.clone()),
            namespace: Some(self.config.namespace.clone()),
            ..ObjectMeta::default()
        };
        match self.leases.create(&PostParams::default(), &Lease { metadata, spec: spec.clone() }).await {
            Err(error) if is_already_exists(&error) => Ok(Attempt::HeldByAnother),
            Err(error) => Err(error),
            Ok(_) => {
                self.observed = spec.map(|spec| (spec, Instant::now()));
                Ok(Attempt::Held)
            }
        }
    }

    /// Lets others lead at once. Best effort: otherwise they wait until the Lease expires.
    async fn release(&self) {
        let Ok(mut lease) = self.leases.get(&self.config.name).await else { return };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() == Some(&self.config.identity) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            let _ = self.leases.replace(&self.config.name, &PostParams::default(), &lease).await;
        }
    }
}

/// The Lease as held by `config.identity`, if it may be: it is free, its own already, or was unchanged for longer than
/// it lasts.
fn claim(current: &LeaseSpec, config: &Config, unchanged_for: Duration, now: MicroTime) -> Option<LeaseSpec> {
    let holder = current.holder_identity.as_deref().unwrap_or_default();
    let is_own = holder == config.identity;
    let lasts =
        Duration::from_secs(u64::try_from(current.lease_duration_seconds.unwrap_or_default()).unwrap_or(0));
    if !is_own && !holder.is_empty() && unchanged_for < lasts {
        return None;
    }
    let transitions = current.lease_transitions.unwrap_or_default();
    Some(LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: Some(
            i32::try_from(config.lease_duration.as_secs()).unwrap_or(i32::MAX).max(1),
        ),
        acquire_time: if is_own { current.acquire_time.clone() } else { Some(now.clone()) },
        renew_time: Some(now),
        lease_transitions: Some(if is_own || current.holder_identity.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..current.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_claimed_when_free_own_or_expired() {
        let config = Config::new("scheduler", "me");
        let now = MicroTime(Timestamp::from_second(1_700_000_000).expect("a time"));
        let held = |by: &str| LeaseSpec {
            holder_identity: Some(by.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        let seconds = Duration::from_secs;
        for (what, current, unchanged, transitions) in [
            ("new", LeaseSpec::default(), seconds(0), Some(0)),
            ("released", held(""), seconds(0), Some(4)),
            ("own", held("me"), seconds(1), Some(3)),
            ("another's", held("you"), seconds(14), None),
            ("another's, expired", held("you"), seconds(15), Some(4)),
        ] {
            let claimed = claim(&current, &config, unchanged, now.clone());
            assert_eq!(claimed.as_ref().and_then(|spec| spec.lease_transitions), transitions, "{what}");
            assert!(claimed.is_none_or(|spec| spec.holder_identity.as_deref() == Some("me")), "{what}");
        }
    }
}
