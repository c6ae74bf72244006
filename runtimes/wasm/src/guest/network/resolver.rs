//! Names as a pod resolves them: its own name servers, search path and options, as its sandbox was told.
//!
//! Source: `DNSConfig` of CRI, resolv.conf(5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use wherry_runtimes::DnsConfig;

use super::hosts;
use crate::config::ClusterDns;

/// The port of DNS. Source: RFC 1035, 4.2.
const PORT: u16 = 53;

/// Name servers that are asked. Source: `MAXNS` of resolv.conf(5).
const MAX_SERVERS: usize = 3;

/// Names of the search path. Source: Kubernetes, `MaxDNSSearchPaths`.
const MAX_SEARCHES: usize = 32;

/// Answers kept per pod. They live as long as they say, which is seconds within the cluster.
const CACHE_ENTRIES: u64 = 32;

/// The largest `resolv.conf` of the machine that is read, bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A pod's resolver. Makes sockets and keeps answers only once it is asked.
pub(super) struct Resolver {
    /// `None`: the machine's own, which `dnsPolicy: Default` asks for.
    servers: Option<Vec<SocketAddr>>,
    searches: Vec<String>,
    ndots: usize,
    options: ResolverOpts,
    /// The pod's own file of hosts.
    hosts: OnceLock<PathBuf>,
    client: OnceLock<Option<TokioResolver>>,
}

/// What a name leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::guest) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// The name that was found, and those that it is an alias of; in lower case, without the last dot.
    pub(super) names: Vec<String>,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// No name is made so.
    #[error("it is not a name")]
    Invalid,
    /// The pod may not ask for it.
    #[error("the name is not granted to this pod")]
    NotGranted,
    /// There is no such name, or it has no address.
    #[error("the name has no address")]
    NotFound,
    /// The name servers do not answer.
    #[error("the name servers do not answer")]
    Unavailable,
}

impl Resolver {
    /// A resolver as the sandbox was told; `cluster` says where cluster DNS really listens.
    pub(super) fn new(config: Option<&DnsConfig>, cluster: Option<&ClusterDns>) -> Self {
        let mut options = ResolverOpts::default();
        options.cache_size = CACHE_ENTRIES;
        // The machine's file of hosts is not the pod's.
        options.use_hosts_file = ResolveHosts::Never;
        let mut resolver = Self {
            servers: None,
            searches: Vec::new(),
            ndots: 1,
            options,
            hosts: OnceLock::new(),
            client: OnceLock::new(),
        };
        let Some(config) = config else { return resolver };
        let servers = config.servers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
        let reached = servers.map(|ip| match cluster {
            Some(dns) if dns.service_ip == ip => dns.listen,
            _ => SocketAddr::new(ip, PORT),
        });
        resolver.servers = Some(reached.take(MAX_SERVERS).collect());
        resolver.searches = config.searches.iter().take(MAX_SEARCHES).cloned().collect();
        for option in &config.options {
            resolver.set(option);
        }
        resolver
    }

    /// Look names up in this file first.
    pub(super) fn use_hosts_file(&self, file: &Path) {
        self.hosts.get_or_init(|| file.to_owned());
    }

    /// One option of resolv.conf(5); those that are not about asking are passed over.
    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<usize>().ok();
        match (name, number) {
            ("ndots", Some(ndots)) => self.ndots = ndots.min(15),
            ("timeout", Some(seconds)) => {
                self.options.timeout = Duration::from_secs(u64::try_from(seconds.clamp(1, 30)).unwrap_or(30));
            }
            ("attempts", Some(attempts)) => self.options.attempts = attempts.clamp(1, 5),
            ("use-vc", _) => self.options.try_tcp_on_error = true,
            _ => {}
        }
    }

    /// The names that are tried for `host`, in their order, in lower case and without the last dot.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        let host = host.to_ascii_lowercase();
        if let Some(complete) = host.strip_suffix('.') {
            return vec![complete.to_owned()];
        }
        let searched = self
            .searches
            .iter()
            .map(|search| format!("{host}.{}", search.trim_matches('.').to_ascii_lowercase()));
        let mut names: Vec<String> = searched.collect();
        let dots = host.bytes().filter(|byte| *byte == b'.').count();
        let at = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(at, host);
        names
    }

    /// The addresses of `host`: of the first name of the search path that has any. Only names that are `granted` are
    /// asked for.
    pub(super) async fn find(
        &self,
        host: &str,
        granted: impl Fn(&str) -> bool,
    ) -> Result<Found, LookupError> {
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Found { addresses: vec![ip], names: Vec::new() });
        }
        if is_localhost(host) {
            // RFC 6761, 6.3: never asked for.
            return Ok(Found { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], names: Vec::new() });
        }
        if host.is_empty() || Name::from_utf8(host).is_err() {
            return Err(LookupError::Invalid);
        }
        if let Some(file) = self.hosts.get() {
            let addresses = hosts::find(file, host).await;
            if !addresses.is_empty() {
                return Ok(Found { addresses, names: Vec::new() });
            }
        }
        let complete = host.trim_end_matches('.').to_ascii_lowercase();
        // A name of the world that is not granted is worth saying; a short one is nothing but unknown.
        let is_refused = complete.contains('.') && !granted(&complete);
        let candidates = self.candidates(host).into_iter().filter(|name| granted(name));
        let mut outcome = LookupError::NotGranted;
        for name in candidates {
            match self.ask(&name).await {
                Ok(found) => return Ok(found),
                Err(LookupError::Unavailable) => outcome = LookupError::Unavailable,
                Err(error) if outcome != LookupError::Unavailable => outcome = error,
                Err(_) => {}
            }
        }
        Err(if is_refused && outcome == LookupError::NotFound { LookupError::NotGranted } else { outcome })
    }

    /// Both families of one complete name.
    async fn ask(&self, name: &str) -> Result<Found, LookupError> {
        let client = self.client.get_or_init(|| self.open()).as_ref().ok_or(LookupError::Unavailable)?;
        let mut asked = Name::from_utf8(name).map_err(|_| LookupError::Invalid)?;
        asked.set_fqdn(true);
        let four = client.lookup(asked.clone(), RecordType::A);
        let six = client.lookup(asked, RecordType::AAAA);
        let (four, six) = tokio::join!(four, six);
        let mut found = Found { addresses: Vec::new(), names: vec![name.to_owned()] };
        let mut outcome = LookupError::NotFound;
        for lookup in [four, six] {
            match lookup {
                Ok(lookup) => {
                    for record in lookup.answers() {
                        let (ip, alias) = match &record.data {
                            RData::A(ip) => (Some(IpAddr::V4(ip.0)), None),
                            RData::AAAA(ip) => (Some(IpAddr::V6(ip.0)), None),
                            RData::CNAME(target) => (None, Some(&target.0)),
                            _ => (None, None),
                        };
                        found.addresses.extend(ip.filter(|ip| !found.addresses.contains(ip)));
                        let alias =
                            alias.map(|name| name.to_ascii().trim_end_matches('.').to_ascii_lowercase());
                        found.names.extend(alias.filter(|name| !found.names.contains(name)));
                    }
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(_))) => {}
                Err(error) => {
                    tracing::debug!(name, %error, "the pod's name servers do not answer");
                    outcome = LookupError::Unavailable;
                }
            }
        }
        if found.addresses.is_empty() { Err(outcome) } else { Ok(found) }
    }

    fn open(&self) -> Option<TokioResolver> {
        let servers = match &self.servers {
            Some(servers) => servers.iter().map(|server| name_server(*server)).collect(),
            None => of_the_machine()?,
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let built = builder.with_options(self.options.clone()).build();
        built.inspect_err(|error| tracing::warn!(%error, "a pod's resolver cannot be made")).ok()
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

fn of_the_machine() -> Option<Vec<NameServerConfig>> {
    const PATH: &str = "/etc/resolv.conf";
    let size = std::fs::metadata(PATH).ok()?.len();
    let text = (size <= MAX_FILE_BYTES).then(|| std::fs::read(PATH).ok()).flatten()?;
    let (config, _) = system_conf::parse_resolv_conf(text).ok()?;
    Some(config.name_servers().to_vec())
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(options: &[&str]) -> Resolver {
        let config = DnsConfig {
            servers: vec!["127.96.0.10".to_owned(), "10.0.0.53".to_owned(), "nonsense".to_owned()],
            searches: ["ns.svc.cluster.local", "svc.cluster.local", "Cluster.Local."]
                .map(str::to_owned)
                .into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        let cluster = ClusterDns {
            service_ip: "127.96.0.10".parse().unwrap(),
            listen: "127.96.0.10:10053".parse().unwrap(),
        };
        Resolver::new(Some(&config), Some(&cluster))
    }

    #[test]
    fn the_search_path_goes_before_names_with_few_dots() {
        let five = resolver(&["ndots:5"]);
        let all = |host: &str| {
            [
                format!("{host}.ns.svc.cluster.local"),
                format!("{host}.svc.cluster.local"),
                format!("{host}.cluster.local"),
                host.to_owned(),
            ]
        };
        assert_eq!(five.candidates("db"), all("db"));
        assert_eq!(five.candidates("DB.other"), all("db.other"));
        assert_eq!(five.candidates("example.com."), ["example.com"]);
        let mut dotted_first = all("api.example.com");
        dotted_first.rotate_right(1);
        assert_eq!(resolver(&[]).candidates("api.example.com"), dotted_first);
        assert_eq!(Resolver::new(None, None).candidates("db"), ["db"]);
    }

    #[test]
    fn cluster_dns_is_asked_where_it_listens() {
        let servers: Vec<String> = resolver(&[]).servers.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.96.0.10:10053", "10.0.0.53:53"]);
    }

    #[tokio::test]
    async fn what_needs_no_asking_is_not_asked_for_and_what_is_not_granted_neither() {
        let resolver = resolver(&["ndots:5"]);
        let nothing = |_: &str| false;
        for (host, expected) in [
            ("10.1.2.3", Ok("10.1.2.3")),
            ("[::1]", Ok("::1")),
            ("localhost", Ok("127.0.0.1")),
            ("a.LOCALHOST.", Ok("127.0.0.1")),
            ("db", Err(LookupError::NotGranted)),
            ("", Err(LookupError::Invalid)),
            ("a..b", Err(LookupError::Invalid)),
        ] {
            let found = resolver.find(host, nothing).await.map(|found| found.addresses);
            let expected = expected.map(|ip| vec![ip.parse::<IpAddr>().unwrap()]);
            assert_eq!(found, expected, "{host}");
        }
    }
}
