//! Where a guest may connect to, by address and by name.
//!
//! Granted: the cluster's Services, always, by address and by name; and what the pod's annotation
//! `wherry.dev/allowed-outbound-hosts` lists: `host`, `host:port`, `*.example.com`, `*.example.com:443`, an IP address, an
//! IP range, or `*`. Loopback, link-local and other addresses of the machine itself are never reached by name or by `*`:
//! in loopback mode 127.0.0.0/8 is the host's, and a guest's own loopback is private. Pods are reached by listing their
//! address or range, or by the name of a headless Service that leads to them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::Config;

/// The annotation on the pod.
pub(crate) const ALLOWED_HOSTS: &str = "wherry.dev/allowed-outbound-hosts";

/// Most entries of the annotation.
const MAX_PATTERNS: usize = 256;

/// What one pod may reach.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbound {
    patterns: Vec<Pattern>,
    service_cidrs: Vec<IpNet>,
    /// Where pods are. Inside loopback, this is the only part besides Services that can be granted.
    pod_cidrs: Vec<IpNet>,
    pod_ip: Option<IpAddr>,
    /// The node's own address: reached only when it is listed as such.
    node_ip: Option<IpAddr>,
    /// In lower case, without dots at its ends.
    cluster_domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    /// `*.example.com`: any name below it.
    Below(String),
    Range(IpNet),
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if let Ok(range) = text.parse::<IpNet>() {
            return Some(Self { host: Host::Range(range), port: None });
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self { host: Host::Range(ip.into()), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = match (host, bare.parse::<IpNet>(), bare.parse::<IpAddr>()) {
            (_, Ok(range), _) => Host::Range(range),
            (_, _, Ok(ip)) => Host::Range(ip.into()),
            ("*", ..) => Host::Any,
            (name, ..) => match name.strip_prefix("*.") {
                Some(below) => Host::Below(name_of(below)?),
                None => Host::Name(name_of(name)?),
            },
        };
        Some(Self { host, port })
    }

    fn matches_name(&self, name: &str, port: u16) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let host = match &self.host {
            Host::Any => true,
            Host::Name(wanted) => *wanted == name,
            Host::Below(suffix) => name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.')),
            Host::Range(_) => false,
        };
        host && self.port.is_none_or(|wanted| wanted == port)
    }

    fn matches_address(&self, address: SocketAddr) -> bool {
        matches!(&self.host, Host::Range(range) if range.contains(&address.ip()))
            && self.port.is_none_or(|wanted| wanted == address.port())
    }
}

fn name_of(text: &str) -> Option<String> {
    let label =
        |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    text.split('.').all(label).then(|| text.to_owned())
}

impl Outbound {
    /// What the annotation's value grants, beside the cluster's own ranges. Entries that make no sense are errors: a
    /// typing mistake must not pass for a grant that was never asked for.
    pub(crate) fn parse(
        allowed_hosts: Option<&str>,
        config: &Config,
        pod_ip: Option<IpAddr>,
    ) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for entry in allowed_hosts.unwrap_or_default().split(',').map(str::trim).filter(|e| !e.is_empty()) {
            let pattern = Pattern::parse(entry)
                .ok_or_else(|| format!("annotation {ALLOWED_HOSTS}: cannot read {entry:?} as host[:port]"))?;
            patterns.push(pattern);
        }
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("annotation {ALLOWED_HOSTS}: more than {MAX_PATTERNS} hosts"));
        }
        Ok(Self {
            patterns,
            service_cidrs: config.service_cidrs.clone(),
            pod_cidrs: config.cluster_cidrs.clone(),
            pod_ip,
            node_ip: Some(config.node_ip),
            cluster_domain: config.cluster_domain.trim_matches('.').to_ascii_lowercase(),
        })
    }

    /// Whether the name may be looked up: those of the cluster, and those that are granted for any port. Others would be a
    /// way out by themselves.
    pub(crate) fn may_resolve(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        is_within(&name, &self.cluster_domain)
            || self.patterns.iter().any(|pattern| match &pattern.host {
                Host::Range(_) => false,
                _ => pattern.matches_name(&name, pattern.port.unwrap_or_default()),
            })
    }

    /// Whether anything but the cluster may be reached.
    pub(crate) fn reaches_outside(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether the address is a pod's or a Service's.
    pub(crate) fn is_of_the_cluster(&self, ip: IpAddr) -> bool {
        contains(&self.pod_cidrs, ip) || contains(&self.service_cidrs, ip)
    }

    /// Whether the name is granted for this port.
    fn may_name(&self, name: &str, port: u16) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches_name(name, port))
    }

    /// Whether a connection may be made to the address, asked for as such.
    pub(crate) fn may_connect(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let address = SocketAddr::new(ip, address.port());
        if contains(&self.service_cidrs, ip) || Some(ip) == self.pod_ip {
            return true;
        }
        let listed = self.patterns.iter().any(|pattern| pattern.matches_address(address));
        let any = self
            .patterns
            .iter()
            .any(|p| p.host == Host::Any && p.port.is_none_or(|port| port == address.port()));
        let is_pod = contains(&self.pod_cidrs, ip);
        (listed && (is_pod || !is_of_the_machine(ip))) || (any && self.is_outside(ip))
    }

    /// Whether a connection may be made to an address that this name has led to. A name of a Service leads to its pods,
    /// and no farther than other names do.
    pub(crate) fn may_connect_as(&self, name: &str, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let of_service = contains(&self.pod_cidrs, ip)
            && is_within(name, &self.cluster_domain)
            && is_within(name, &format!("svc.{}", self.cluster_domain));
        let by_name = self.may_name(name, address.port()) && self.is_outside(ip);
        of_service || by_name || self.may_connect(address)
    }

    /// Granted names that may lead to the address, for one that a guest has found out by itself.
    pub(crate) fn names_for(&self, address: SocketAddr) -> Vec<String> {
        if !self.is_outside(address.ip().to_canonical()) {
            return Vec::new();
        }
        let named = self.patterns.iter().filter(|p| p.port.is_none_or(|wanted| wanted == address.port()));
        named
            .filter_map(|p| match &p.host {
                Host::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// Neither the machine's, nor the node's, nor a pod's.
    fn is_outside(&self, ip: IpAddr) -> bool {
        !is_of_the_machine(ip) && Some(ip) != self.node_ip && !contains(&self.pod_cidrs, ip)
    }
}

/// Whether the name is the domain or below it.
fn is_within(name: &str, domain: &str) -> bool {
    name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn contains(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&ip))
}

/// Loopback, unspecified, link-local, multicast: never anybody else's.
fn is_of_the_machine(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pods: &str, services: &str) -> Config {
        Config {
            cluster_cidrs: vec![pods.parse().unwrap()],
            service_cidrs: vec![services.parse().unwrap()],
            node_ip: "192.0.2.7".parse().unwrap(),
            ..Config::new("/nonexistent")
        }
    }

    fn outbound(allowed: &str) -> Outbound {
        let config = config("127.64.0.0/16", "127.96.0.0/16");
        Outbound::parse(Some(allowed), &config, Some("127.64.0.5".parse().unwrap())).unwrap()
    }

    #[test]
    fn addresses_are_reached_when_granted_and_the_machine_never() {
        for (allowed, address, expected) in [
            ("", "127.96.0.1:443", true),
            ("", "127.64.0.5:80", true),
            ("", "127.64.0.6:80", false),
            ("", "127.0.0.1:6443", false),
            ("", "10.0.0.1:80", false),
            ("10.0.0.0/8", "10.0.0.1:80", true),
            ("10.0.0.1:80", "10.0.0.1:80", true),
            ("10.0.0.1:80", "10.0.0.1:81", false),
            ("127.64.0.0/16", "127.64.0.6:80", true),
            ("127.64.0.6:81", "127.64.0.6:80", false),
            ("127.0.0.1", "127.0.0.1:6443", false),
            ("127.0.0.0/8", "127.0.0.1:6443", false),
            ("*", "127.0.0.1:6443", false),
            ("*", "127.64.0.6:80", false),
            ("*", "169.254.169.254:80", false),
            ("*", "[::1]:80", false),
            ("*", "[::ffff:127.0.0.1]:80", false),
            ("*", "93.184.216.34:443", true),
            ("*:443", "93.184.216.34:80", false),
            ("0.0.0.0/0", "0.0.0.0:80", false),
            // The node's own address is nobody's guess.
            ("*", "192.0.2.7:6443", false),
            ("192.0.2.7:30080", "192.0.2.7:30080", true),
        ] {
            assert_eq!(
                outbound(allowed).may_connect(address.parse().unwrap()),
                expected,
                "{allowed:?} {address}"
            );
        }
    }

    #[test]
    fn pods_are_reached_by_address_or_by_the_name_of_a_service_only() {
        let config = config("10.1.0.0/16", "10.2.0.0/16");
        let outbound = |allowed| Outbound::parse(Some(allowed), &config, None).unwrap();
        let pod = "10.1.2.3:80".parse().unwrap();
        assert!(!outbound("*").may_connect(pod));
        assert!(!outbound("a.example").may_connect_as("a.example", pod));
        assert!(outbound("a.example").names_for(pod).is_empty());
        assert!(outbound("10.1.2.3").may_connect(pod));
        for (name, address, expected) in [
            ("db.ns.svc.cluster.local", "10.1.2.3:80", true),
            ("db-0.db.ns.svc.cluster.local", "10.1.2.3:80", true),
            // The address itself, written as a name.
            ("10-1-2-3.ns.pod.cluster.local", "10.1.2.3:80", false),
            ("db.ns.svc.cluster.local.example", "10.1.2.3:80", false),
            // A Service of type ExternalName grants nothing.
            ("out.ns.svc.cluster.local", "93.184.216.34:80", false),
            ("out.ns.svc.cluster.local", "192.0.2.7:80", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(outbound("").may_connect_as(name, address), expected, "{name} {address}");
        }
    }

    #[test]
    fn names_of_the_cluster_and_granted_ones_are_looked_up() {
        for (allowed, name, expected) in [
            ("", "db.ns.svc.cluster.local", true),
            ("", "DB.ns.svc.Cluster.Local.", true),
            ("", "example.com", false),
            ("", "cluster.local.example.com", false),
            ("", "xcluster.local", false),
            ("example.com:443", "example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("10.0.0.0/8", "example.com", false),
            ("*", "example.com", true),
        ] {
            assert_eq!(outbound(allowed).may_resolve(name), expected, "{allowed:?} {name}");
        }
    }

    #[test]
    fn names_are_reached_when_granted_wherever_outside_they_lead() {
        for (allowed, name, address, expected) in [
            ("api.example.com", "api.example.com", "93.184.216.34:443", true),
            ("api.example.com", "API.example.com.", "93.184.216.34:443", true),
            ("api.example.com:443", "api.example.com", "93.184.216.34:80", false),
            ("*.example.com", "a.b.example.com", "93.184.216.34:80", true),
            ("*.example.com", "example.com", "93.184.216.34:80", false),
            ("*.example.com", "badexample.com", "93.184.216.34:80", false),
            ("other.example", "api.example.com", "93.184.216.34:80", false),
            // A name that leads into the machine, or to a pod that was not granted by address, leads nowhere.
            ("api.example.com", "api.example.com", "127.0.0.1:80", false),
            ("api.example.com", "api.example.com", "169.254.169.254:80", false),
            ("api.example.com", "api.example.com", "127.64.0.9:80", false),
            ("api.example.com", "api.example.com", "127.96.0.9:80", true),
            ("*", "localhost", "127.0.0.1:80", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                outbound(allowed).may_connect_as(name, address),
                expected,
                "{allowed:?} {name} {address}"
            );
        }
    }

    #[test]
    fn mistakes_in_the_annotation_are_errors() {
        for bad in ["a b", "host:port", "http://x", "*example.com", "x:99999", "[zz]:1", "a,,b c"] {
            assert!(Outbound::parse(Some(bad), &Config::new("/nonexistent"), None).is_err(), "{bad}");
        }
        assert!(Outbound::parse(Some(" , a.example , "), &Config::new("/nonexistent"), None).is_ok());
    }
}
