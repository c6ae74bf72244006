//! Where a guest may connect to, and where it may listen.
//!
//! Granted: the cluster's Service addresses, always; and what the pod's annotation `wherry.dev/allowed-outbound-hosts`
//! lists: `host`, `host:port`, `*.example.com`, `*.example.com:443`, an IP address, an IP range, or `*`. Loopback,
//! link-local and other addresses of the machine itself are never reached by name or by `*`: in loopback mode
//! 127.0.0.0/8 is the host's, and a guest's own loopback is private. Pods are reached by listing their address or range.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use wasmtime_wasi::sockets::SocketAddrUse;

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
        service_cidrs: &[IpNet],
        pod_cidrs: &[IpNet],
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
        Ok(Self { patterns, service_cidrs: service_cidrs.to_vec(), pod_cidrs: pod_cidrs.to_vec(), pod_ip })
    }

    /// Whether any name may be looked up: without a grant by name there is no use for it.
    pub(crate) fn may_resolve(&self) -> bool {
        self.patterns.iter().any(|pattern| !matches!(pattern.host, Host::Range(_)))
    }

    /// Whether requests to this host may be made at all; each address is checked again by [`Self::may_connect_as`].
    pub(crate) fn may_name(&self, name: &str, port: u16) -> bool {
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
        (listed && (is_pod || !is_of_the_machine(ip))) || (any && is_outside(ip) && !is_pod)
    }

    /// Whether a connection may be made to an address that a granted name led to.
    pub(crate) fn may_connect_as(&self, name: &str, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let by_name = self.may_name(name, address.port()) && is_outside(ip) && !contains(&self.pod_cidrs, ip);
        by_name || self.may_connect(address)
    }

    /// Names that are granted for this port, for checking an address that a guest resolved itself.
    pub(crate) fn names_for(&self, port: u16) -> Vec<String> {
        let named = self.patterns.iter().filter(|p| p.port.is_none_or(|wanted| wanted == port));
        named
            .filter_map(|p| match &p.host {
                Host::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// Whether a socket of a command guest may be used so; `None`: only if a granted name leads to the address.
    pub(crate) fn socket_use(&self, address: SocketAddr, usage: SocketAddrUse) -> Option<bool> {
        match usage {
            // Outgoing connections bind the wildcard address implicitly; listening on it is refused below.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                let implicit = address.ip().is_unspecified() && address.port() == 0;
                Some(implicit || self.pod_ip == Some(address.ip()))
            }
            SocketAddrUse::TcpListen => Some(self.pod_ip == Some(address.ip())),
            // Whoever could reach the socket may: NetworkPolicy is not the guest's business.
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => Some(true),
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => {
                if self.may_connect(address) {
                    Some(true)
                } else if is_outside(address.ip().to_canonical())
                    && !contains(&self.pod_cidrs, address.ip().to_canonical())
                    && !self.names_for(address.port()).is_empty()
                {
                    None
                } else {
                    Some(false)
                }
            }
        }
    }
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

fn is_outside(ip: IpAddr) -> bool {
    !is_of_the_machine(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(allowed: &str) -> Outbound {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        Outbound::parse(
            Some(allowed),
            &[net("127.96.0.0/16")],
            &[net("127.64.0.0/16")],
            Some("127.64.0.5".parse().unwrap()),
        )
        .unwrap()
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
        ] {
            assert_eq!(
                outbound(allowed).may_connect(address.parse().unwrap()),
                expected,
                "{allowed:?} {address}"
            );
        }
    }

    #[test]
    fn pods_outside_loopback_are_not_reached_by_name_or_by_the_wildcard() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let pods = [net("10.1.0.0/16")];
        let outbound = |allowed| Outbound::parse(Some(allowed), &[], &pods, None).unwrap();
        let pod = "10.1.2.3:80".parse().unwrap();
        assert!(!outbound("*").may_connect(pod));
        assert!(!outbound("a.example").may_connect_as("a.example", pod));
        assert_eq!(outbound("a.example").socket_use(pod, SocketAddrUse::TcpConnect), Some(false));
        assert!(outbound("10.1.2.3").may_connect(pod));
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
    fn sockets_listen_on_the_pod_address_only() {
        let outbound = outbound("db.example.com:5432");
        for (usage, address, expected) in [
            (SocketAddrUse::TcpBind, "0.0.0.0:0", Some(true)),
            (SocketAddrUse::TcpBind, "0.0.0.0:8080", Some(false)),
            (SocketAddrUse::TcpBind, "127.0.0.1:8080", Some(false)),
            (SocketAddrUse::TcpBind, "127.64.0.5:8080", Some(true)),
            (SocketAddrUse::TcpListen, "0.0.0.0:0", Some(false)),
            (SocketAddrUse::TcpListen, "127.64.0.5:8080", Some(true)),
            (SocketAddrUse::UdpBind, "127.64.0.6:53", Some(false)),
            (SocketAddrUse::TcpConnect, "127.96.0.1:443", Some(true)),
            (SocketAddrUse::TcpConnect, "93.184.216.34:5432", None),
            (SocketAddrUse::TcpConnect, "93.184.216.34:80", Some(false)),
            (SocketAddrUse::TcpConnect, "127.0.0.1:5432", Some(false)),
        ] {
            assert_eq!(outbound.socket_use(address.parse().unwrap(), usage), expected, "{usage:?} {address}");
        }
    }

    #[test]
    fn mistakes_in_the_annotation_are_errors() {
        for bad in ["a b", "host:port", "http://x", "*example.com", "x:99999", "[zz]:1", "a,,b c"] {
            assert!(Outbound::parse(Some(bad), &[], &[], None).is_err(), "{bad}");
        }
        assert!(Outbound::parse(Some(" , a.example , "), &[], &[], None).is_ok());
    }
}
