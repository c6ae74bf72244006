//! A pod's `/etc/resolv.conf`.
//!
//! Source: Kubernetes' `pkg/kubelet/network/dns/dns.go`.

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};
use wherry_runtimes::DnsConfig;

use super::container_config::NodeFacts;

/// Most name servers that the C library reads. Source: Kubernetes' `MaxDNSNameservers`.
const MAX_NAME_SERVERS: usize = 3;
/// Most search domains. Source: Kubernetes' `MaxDNSSearchPaths`.
const MAX_SEARCHES: usize = 32;
/// Most characters of all search domains. Source: Kubernetes' `MaxDNSSearchListChars`.
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// The node's `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostDns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl HostDns {
    /// Reads the text of a `resolv.conf`; the last `search` and `options` lines count.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().map(str::to_owned)),
                Some("search") => {
                    found.searches = words
                        .map(|word| if word == "." { word } else { word.trim_end_matches('.') })
                        .map(str::to_owned)
                        .collect();
                }
                Some("options") => found.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        found
    }
}

/// What the pod gets, and what its event says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDns {
    /// The configuration; `None` is the node's own as it is.
    pub config: Option<DnsConfig>,
    /// Reason and message of warnings.
    pub warnings: Vec<(&'static str, String)>,
}

/// The configuration of a pod's resolver.
pub fn pod_dns(spec: &PodSpec, namespace: &str, pod: &str, node: &NodeFacts) -> PodDns {
    let mut warnings = Vec::new();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let on_host = spec.host_network.unwrap_or(false);
    let of_cluster = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !on_host);
    let host = &node.host_dns;
    let mut config = if policy == "None" {
        DnsConfig::default()
    } else if of_cluster && !node.cluster_dns.is_empty() {
        let mut searches = Vec::new();
        if !node.cluster_domain.is_empty() {
            let domain = &node.cluster_domain;
            searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        }
        append_new(&mut searches, &host.searches);
        DnsConfig { servers: node.cluster_dns.clone(), searches, options: vec!["ndots:5".to_owned()] }
    } else {
        if of_cluster {
            warnings.push((
                "MissingClusterDNS",
                format!(
                    "pod: {pod:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy."
                ),
            ));
        }
        DnsConfig {
            servers: host.servers.clone(),
            searches: host.searches.clone(),
            options: host.options.clone(),
        }
    };
    if spec.dns_config.is_none() && policy != "None" && (!of_cluster || node.cluster_dns.is_empty()) {
        return PodDns { config: None, warnings };
    }
    if let Some(extra) = &spec.dns_config {
        extend(&mut config, extra);
    }
    limit(&mut config, &mut warnings);
    PodDns { config: Some(config), warnings }
}

fn append_new(list: &mut Vec<String>, more: &[String]) {
    for word in more {
        if !list.contains(word) {
            list.push(word.clone());
        }
    }
}

fn extend(config: &mut DnsConfig, extra: &PodDNSConfig) {
    append_new(&mut config.servers, extra.nameservers.as_deref().unwrap_or_default());
    append_new(&mut config.searches, extra.searches.as_deref().unwrap_or_default());
    for option in extra.options.iter().flatten() {
        let name = option.name.clone().unwrap_or_default();
        let text = match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.clone(),
        };
        let known = config.options.iter_mut().find(|known| known.split(':').next() == Some(name.as_str()));
        match known {
            Some(known) => *known = text,
            None => config.options.push(text),
        }
    }
}

/// Cuts what the C library would not read, and says so.
fn limit(config: &mut DnsConfig, warnings: &mut Vec<(&'static str, String)>) {
    if config.servers.len() > MAX_NAME_SERVERS {
        config.servers.truncate(MAX_NAME_SERVERS);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            config.servers.join(" ")
        );
        warnings.push(("DNSConfigForming", message));
    }
    let is_cut = config.searches.len() > MAX_SEARCHES;
    config.searches.truncate(MAX_SEARCHES);
    let mut is_long = false;
    while config.searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        is_long = true;
        config.searches.pop();
    }
    if is_cut || is_long {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            config.searches.join(" ")
        );
        warnings.push(("DNSConfigForming", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> NodeFacts {
        NodeFacts {
            cluster_dns: vec!["127.96.0.10".to_owned()],
            cluster_domain: "cluster.local".to_owned(),
            host_dns: HostDns::parse(
                "# a comment\nnameserver 9.9.9.9\nsearch home.example. lan\noptions timeout:2 rotate\n",
            ),
            ..NodeFacts::default()
        }
    }

    fn dns(spec: Value, node: &NodeFacts) -> PodDns {
        let mut spec = spec;
        spec["containers"] = json!([]);
        pod_dns(&serde_json::from_value(spec).unwrap(), "n", "p_n(u)", node)
    }

    #[test]
    fn the_policy_says_whose_servers_are_asked() {
        let cluster = (
            vec!["127.96.0.10"],
            vec!["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "home.example", "lan"],
            vec!["ndots:5"],
        );
        let host = (vec!["9.9.9.9"], vec!["home.example", "lan", "x"], vec!["timeout:2", "rotate"]);
        let on_host = json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true});
        for spec in [json!({"dnsPolicy": "Default"}), on_host] {
            assert_eq!(dns(spec.clone(), &node()).config, None, "{spec}");
        }
        let extra = json!({"searches": ["x"]});
        for (spec, expected) in [
            (json!({}), cluster.clone()),
            (json!({"dnsPolicy": "ClusterFirst"}), cluster.clone()),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true, "dnsConfig": extra}), host.clone()),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
            (json!({"dnsPolicy": "Default", "dnsConfig": extra}), host),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"]}}),
                (vec!["1.2.3.4"], vec![], vec![]),
            ),
        ] {
            let found = dns(spec.clone(), &node());
            assert!(found.warnings.is_empty(), "{spec}");
            let config = found.config.unwrap();
            assert_eq!(config.servers, expected.0, "{spec}");
            assert_eq!(config.searches, expected.1, "{spec}");
            assert_eq!(config.options, expected.2, "{spec}");
        }
    }

    #[test]
    fn a_pods_own_words_are_added_and_its_options_win() {
        let found = dns(
            json!({"dnsConfig": {"nameservers": ["127.96.0.10", "8.8.8.8"], "searches": ["mine"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &node(),
        );
        let config = found.config.unwrap();
        assert_eq!(config.servers, ["127.96.0.10", "8.8.8.8"]);
        assert_eq!(config.searches.last().map(String::as_str), Some("mine"));
        assert_eq!(config.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn what_is_too_much_is_cut_and_said() {
        let servers = json!(["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]);
        let searches: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
        let found = dns(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": servers, "searches": searches}}),
            &node(),
        );
        let config = found.config.unwrap();
        assert_eq!((config.servers.len(), config.searches.len()), (3, 32));
        assert_eq!(
            found.warnings[0],
            ("DNSConfigForming", "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1.1.1.1 2.2.2.2 3.3.3.3".to_owned())
        );
        assert!(found.warnings[1].1.starts_with("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: d0 d1 "));
        let long: Vec<String> = (0..20).map(|n| format!("{n}{}", "x".repeat(200))).collect();
        let found = dns(json!({"dnsPolicy": "None", "dnsConfig": {"searches": long}}), &node());
        assert_eq!(found.config.unwrap().searches.len(), 10);
    }

    #[test]
    fn without_servers_of_the_cluster_the_nodes_own_are_asked_and_that_is_said() {
        let found = dns(json!({}), &NodeFacts { cluster_dns: Vec::new(), ..node() });
        assert_eq!(found.config, None);
        assert_eq!(found.warnings[0].0, "MissingClusterDNS");
    }
}
