//! Lifecycle hooks: `postStart` and `preStop`.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::kubelet::Kubelet;
use crate::probes::http::{HttpRequest, http_request};
use crate::runtimes::NodeRuntime;

/// Whose hook is run.
pub(crate) struct Target<'a> {
    pub(crate) kubelet: &'a Kubelet,
    pub(crate) runtime: &'a NodeRuntime,
    pub(crate) container: &'a Container,
    pub(crate) container_id: &'a str,
    pub(crate) pod_ip: Option<&'a str>,
}

/// A hook over HTTP is given up after this long. Source: Kubernetes.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a hook to its end; the error is for people.
pub(crate) async fn run(target: &Target<'_>, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = target
            .runtime
            .service
            .exec_sync(target.container_id, &command, Duration::ZERO)
            .await
            .map_err(|error| error.to_string())?;
        return match output.exit_code {
            0 => Ok(()),
            code => Err(format!(
                "command '{}' exited with {code}: {}",
                command.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )),
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.unsigned_abs())).await;
        return Ok(());
    }
    if let Some(action) = &hook.http_get {
        let request: HttpRequest =
            http_request(action, target.container, target.pod_ip.unwrap_or("127.0.0.1"))?;
        let answer = target.kubelet.http.get(&request, HTTP_TIMEOUT).await;
        return match answer {
            Ok(answer) if (200..400).contains(&answer.status) => Ok(()),
            Ok(answer) => Err(format!("HTTP hook failed with statuscode: {}", answer.status)),
            Err(error) => Err(error),
        };
    }
    // `tcpSocket` is in the API and does nothing in Kubernetes either.
    Err("invalid handler: no exec, httpGet or sleep".to_owned())
}

/// How long a pod's containers may take to stop.
pub(crate) fn grace_period(pod: &Pod) -> Duration {
    let of_deletion =
        pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds);
    let of_spec = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    Duration::from_secs(u64::try_from(of_deletion.or(of_spec).unwrap_or(30)).unwrap_or(0))
}
