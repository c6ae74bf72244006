//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use crate::kinds::fields::{invalid_each, non_negative, port_number_or_name, s};

/// What a probe or a hook does.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

/// Which probe it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the container out of Services when it fails.
    Readiness,
    /// Holds back the other two until it succeeds.
    Startup,
}

impl ProbeKind {
    /// The name of the container's field.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Liveness => "livenessProbe",
            Self::Readiness => "readinessProbe",
            Self::Startup => "startupProbe",
        }
    }
}

/// A probe of a container.
pub(crate) fn probe(probe: &Probe, kind: ProbeKind, grace_seconds: Option<i64>, path: &Path) -> ErrorList {
    let parts = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    let mut errors = handler(&parts, grace_seconds, path);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.extend(non_negative(i64::from(value.unwrap_or_default()), &path.child(field)));
    }
    let grace_path = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        errors.push(Error::invalid(&grace_path, seconds, "must be greater than 0"));
    }
    if kind == ProbeKind::Readiness {
        if let Some(seconds) = probe.termination_grace_period_seconds {
            errors.push(Error::invalid(&grace_path, seconds, "must not be set for readinessProbes"));
        }
    } else {
        let threshold = probe.success_threshold.unwrap_or_default();
        if threshold != 1 {
            errors.push(Error::invalid(&path.child("successThreshold"), threshold, "must be 1"));
        }
    }
    errors
}

/// The hooks of a container.
pub(crate) fn lifecycle(
    lifecycle: &Lifecycle,
    grace_seconds: Option<i64>,
    os: &str,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            errors.extend(handler(&handler_of(hook), grace_seconds, &path.child(field)));
        }
    }
    if let Some(signal) = lifecycle.stop_signal.as_deref() {
        errors.extend(stop_signal(signal, os, &path.child("stopSignal")));
    }
    errors
}

fn handler_of(hook: &LifecycleHandler) -> Handler<'_> {
    Handler {
        exec: hook.exec.as_ref(),
        http_get: hook.http_get.as_ref(),
        tcp_socket: hook.tcp_socket.as_ref(),
        grpc: None,
        sleep: hook.sleep.as_ref(),
    }
}

fn stop_signal(signal: &str, os: &str, path: &Path) -> ErrorList {
    const WINDOWS: &[&str] = &["SIGKILL", "SIGTERM"];
    match os {
        "" => vec![Error::forbidden(path, "may not be set for containers with empty `spec.os.name`")],
        "windows" if !WINDOWS.contains(&signal) => vec![Error::not_supported(path, signal, WINDOWS)],
        "linux" if !is_linux_signal(signal) => vec![Error::not_supported(path, signal, LINUX_SIGNALS)],
        _ => ErrorList::new(),
    }
}

/// The named signals of Linux, sorted; real-time signals come on top.
const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn is_linux_signal(signal: &str) -> bool {
    let offset = |prefix: &str, max: u8| {
        signal.strip_prefix(prefix).and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| (1..=max).contains(&n))
    };
    LINUX_SIGNALS.contains(&signal) || offset("SIGRTMIN+", 15) || offset("SIGRTMAX-", 14)
}

fn handler(handler: &Handler<'_>, grace_seconds: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut checks: Vec<(&str, ErrorList)> = Vec::new();
    if let Some(exec) = handler.exec {
        let missing = exec.command.as_deref().unwrap_or_default().is_empty();
        let required = || Error::required(&path.child("exec").child("command"), "");
        checks.push(("exec", missing.then(required).into_iter().collect()));
    }
    if let Some(action) = handler.http_get {
        checks.push(("httpGet", http_get(action, &path.child("httpGet"))));
    }
    if let Some(action) = handler.tcp_socket {
        let path = path.child("tcpSocket").child("port");
        checks.push(("tcpSocket", port_number_or_name(&action.port, &path)));
    }
    if let Some(action) = handler.grpc {
        let path = path.child("grpc").child("port");
        checks.push(("grpc", port_number_or_name(&IntOrString::Int(action.port), &path)));
    }
    if let Some(action) = handler.sleep {
        checks.push(("sleep", sleep(action.seconds, grace_seconds, &path.child("sleep"))));
    }
    if checks.is_empty() {
        errors.push(Error::required(path, "must specify a handler type"));
    }
    for (i, (field, found)) in checks.into_iter().enumerate() {
        if i == 0 {
            errors.extend(found);
        } else {
            errors.push(Error::forbidden(&path.child(field), "may not specify more than 1 handler type"));
        }
    }
    errors
}

fn http_get(action: &HTTPGetAction, path: &Path) -> ErrorList {
    const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
    let mut errors = ErrorList::new();
    if s(&action.path).is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    errors.extend(port_number_or_name(&action.port, &path.child("port")));
    if !SCHEMES.contains(&s(&action.scheme)) {
        errors.push(Error::not_supported(&path.child("scheme"), s(&action.scheme), SCHEMES));
    }
    for header in action.http_headers.iter().flatten() {
        let path = path.child("httpHeaders");
        errors.extend(invalid_each(&path, &header.name, names::http_header_name(&header.name)));
    }
    errors
}

fn sleep(seconds: i64, grace_seconds: Option<i64>, path: &Path) -> ErrorList {
    match grace_seconds {
        Some(grace) if !(0..=grace).contains(&seconds) => {
            let detail =
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            vec![Error::invalid(path, seconds, &detail)]
        }
        _ => ErrorList::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn a_probe_needs_exactly_one_handler_and_valid_numbers() {
        let table = [
            (
                ProbeKind::Liveness,
                json!({"successThreshold": 1}),
                vec!["p: Required value: must specify a handler type"],
            ),
            (
                ProbeKind::Readiness,
                json!({"httpGet": {"port": 0, "path": "/", "scheme": "HTTP"}, "tcpSocket": {"port": 1}, "timeoutSeconds": -1}),
                vec![
                    "p.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "p.tcpSocket: Forbidden: may not specify more than 1 handler type",
                    "p.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                ProbeKind::Startup,
                json!({"exec": {"command": []}, "successThreshold": 2}),
                vec!["p.exec.command: Required value", "p.successThreshold: Invalid value: 2: must be 1"],
            ),
        ];
        for (kind, value, expected) in table {
            let value: Probe = serde_json::from_value(value).unwrap();
            assert_eq!(messages(&probe(&value, kind, Some(30), &Path::new("p"))), expected);
        }
    }

    #[test]
    fn a_hook_may_not_sleep_longer_than_the_grace_period() {
        let hook: Lifecycle = serde_json::from_value(json!({"preStop": {"sleep": {"seconds": 31}}})).unwrap();
        assert_eq!(
            messages(&lifecycle(&hook, Some(30), "", &Path::new("lifecycle"))),
            [
                "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"
            ]
        );
    }
}
