//! What a pod's machine is called.
//!
//! Source: Kubernetes' `kubelet_pods.go` (`GeneratePodHostNameAndDomain`) and `util.GetNodenameForKernel`.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// Longest host name. Source: RFC 1123.
const MAX_HOSTNAME: usize = 63;
/// Longest name that the kernel keeps. Source: Linux' `__NEW_UTS_LEN`.
const MAX_KERNEL_NAME: usize = 64;

/// The host name of a pod, and its domain (empty without a subdomain).
pub fn pod_hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    if let Some(name) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return (name.clone(), String::new());
    }
    let own = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = own.or(pod.metadata.name.as_deref()).unwrap_or_default();
    let short: String = name.chars().take(MAX_HOSTNAME).collect();
    let domain = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => {
            format!(
                "{subdomain}.{}.svc.{cluster_domain}",
                pod.metadata.namespace.as_deref().unwrap_or_default()
            )
        }
        None => String::new(),
    };
    (short.trim_end_matches(['-', '.']).to_owned(), domain)
}

/// The name that the kernel of a pod's network is given: the host name, or with its domain if the pod asks for that.
///
/// # Errors
/// A full name that is too long.
pub fn kernel_name(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (name, domain) = pod_hostname(pod, cluster_domain);
    let is_full = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    if !is_full || domain.is_empty() {
        return Ok(name);
    }
    let full = format!("{name}.{domain}");
    if full.len() > MAX_KERNEL_NAME {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({MAX_KERNEL_NAME} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_is_called_by_its_hostname_else_by_its_name() {
        let long = format!("{}-b", "a".repeat(62));
        for (pod, expected) in [
            (pod("web-0", json!({})), ("web-0", "")),
            (pod("web-0", json!({"hostname": "w", "subdomain": "s"})), ("w", "s.n.svc.cluster.local")),
            (pod(&long, json!({})), (&"a".repeat(62) as &str, "")),
            (pod("web-0", json!({"hostnameOverride": "x.example", "subdomain": "s"})), ("x.example", "")),
        ] {
            let (name, domain) = pod_hostname(&pod, "cluster.local");
            assert_eq!((name.as_str(), domain.as_str()), expected);
        }
    }

    #[test]
    fn the_kernel_gets_the_full_name_when_the_pod_asks_and_it_fits() {
        let full = json!({"setHostnameAsFQDN": true, "subdomain": "s"});
        assert_eq!(kernel_name(&pod("p", full.clone()), "cluster.local").unwrap(), "p.s.n.svc.cluster.local");
        let error = kernel_name(&pod(&"p".repeat(60), full), "cluster.local").unwrap_err();
        assert!(
            error.ends_with("is too long (64 characters is the max, 82 characters requested)"),
            "{error}"
        );
        assert_eq!(kernel_name(&pod("p", json!({"setHostnameAsFQDN": true})), "c").unwrap(), "p");
    }
}
