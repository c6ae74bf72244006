//! Kernel parameters that a pod may set.
//!
//! Source: Kubernetes' `pkg/kubelet/sysctl`.

use k8s_openapi::api::core::v1::PodSpec;

/// The namespace that a parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

impl Namespace {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ipc => "ipc",
            Self::Net => "net",
        }
    }
}

/// Parameters that touch nobody but the pod. Source: Kubernetes' `SafeSysctlAllowlist`.
const SAFE: [(&str, Namespace); 12] = [
    ("kernel.shm_rmid_forced", Namespace::Ipc),
    ("net.ipv4.ip_local_port_range", Namespace::Net),
    ("net.ipv4.tcp_syncookies", Namespace::Net),
    ("net.ipv4.ping_group_range", Namespace::Net),
    ("net.ipv4.ip_unprivileged_port_start", Namespace::Net),
    ("net.ipv4.ip_local_reserved_ports", Namespace::Net),
    ("net.ipv4.tcp_keepalive_time", Namespace::Net),
    ("net.ipv4.tcp_fin_timeout", Namespace::Net),
    ("net.ipv4.tcp_keepalive_intvl", Namespace::Net),
    ("net.ipv4.tcp_keepalive_probes", Namespace::Net),
    ("net.ipv4.tcp_rmem", Namespace::Net),
    ("net.ipv4.tcp_wmem", Namespace::Net),
];

/// A parameter with dots, whichever separator the manifest has.
pub fn normalized(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The text for the first parameter that a pod may not set.
pub fn forbidden(spec: &PodSpec) -> Option<String> {
    let sysctls = spec.security_context.as_ref().and_then(|s| s.sysctls.as_deref()).unwrap_or_default();
    sysctls.iter().find_map(|sysctl| {
        let name = normalized(&sysctl.name);
        let Some((_, namespace)) = SAFE.iter().find(|(safe, _)| *safe == name) else {
            return Some(format!("forbidden sysctl: {name:?} not allowlisted"));
        };
        let is_shared = match namespace {
            Namespace::Ipc => spec.host_ipc,
            Namespace::Net => spec.host_network,
        };
        (is_shared == Some(true)).then(|| {
            format!("forbidden sysctl: {name:?} not allowed with host {} enabled", namespace.as_str())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_what_touches_nobody_else_may_be_set() {
        let check = |name: &str, more: Value| {
            let mut spec = more;
            spec["containers"] = json!([]);
            spec["securityContext"] = json!({"sysctls": [{"name": name, "value": "1"}]});
            forbidden(&serde_json::from_value(spec).unwrap())
        };
        assert_eq!(check("net.ipv4.tcp_syncookies", json!({})), None);
        assert_eq!(check("net/ipv4/tcp_syncookies", json!({})), None);
        assert_eq!(
            check("net.ipv4.tcp_syncookies", json!({"hostNetwork": true})).as_deref(),
            Some("forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled")
        );
        assert_eq!(
            check("kernel.msgmax", json!({})).as_deref(),
            Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted")
        );
    }
}
