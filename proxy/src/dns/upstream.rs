//! Names that are not the cluster's: the node's own resolvers are asked, and their answers kept for a while.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{TokioResolver, system_conf};

/// How long an answer is kept at most. Source: `cache 30` in the Corefile that kubeadm writes.
const MAX_KEPT: Duration = Duration::from_secs(30);

/// Answers that are kept. Source: CoreDNS' plugin `cache`.
const CACHE_ENTRIES: u64 = 9984;

/// How long a resolver may take before the next is asked. Source: CoreDNS' plugin `forward` reads for 2 s.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often the file is looked at, to see whether it has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The largest file that is read, bytes; the format has no use for more.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// How the node's resolvers are found.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// The file that names them.
    pub(super) resolv_conf: PathBuf,
    /// Addresses at which this server is reached itself: they are never asked.
    pub(super) own: Vec<IpAddr>,
    /// Where it listens.
    pub(super) listen: SocketAddr,
}

/// What others know of a name.
#[derive(Debug, Clone)]
pub(super) struct Foreign {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

impl Foreign {
    fn of_code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new() }
    }
}

/// The node's resolvers, found again when the file that names them changes.
pub(super) struct Upstream {
    options: Options,
    /// A name that nobody else asks for: whoever asks us for it has it from us.
    probe: Name,
    /// What we ask comes back to us.
    looping: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    resolver: Option<Arc<TokioResolver>>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl Upstream {
    pub(super) fn new(options: Options) -> Self {
        let number: u64 = rand::random();
        // RFC 6761: nobody is called `.invalid`.
        let probe = Name::from_ascii(format!("loop-{number:016x}.wherry.invalid.")).unwrap_or_default();
        Self { options, probe, looping: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Whether somebody asks for the name that only we know, which is a question of our own come back.
    pub(super) fn is_probe(&self, name: &Name) -> bool {
        let is_probe = !self.probe.is_root() && *name == self.probe;
        if is_probe && !self.looping.swap(true, Ordering::Relaxed) {
            tracing::error!(
                file = %self.options.resolv_conf.display(),
                "the node's resolvers ask the cluster's DNS, which asks them: names outside the cluster are not resolved"
            );
        }
        is_probe
    }

    /// Asks the node's resolvers.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Foreign {
        let Some((resolver, is_new)) = self.resolver() else {
            return Foreign::of_code(ResponseCode::ServFail);
        };
        if is_new {
            // Its answer is of no interest, only whether the question comes back to us.
            self.looping.store(false, Ordering::Relaxed);
            let (resolver, probe) = (Arc::clone(&resolver), self.probe.clone());
            let _ = tokio::time::timeout(TIMEOUT, resolver.lookup(probe, RecordType::HINFO)).await;
        }
        if self.looping.load(Ordering::Relaxed) {
            return Foreign::of_code(ResponseCode::ServFail);
        }
        let mut name = name.clone();
        name.set_fqdn(true);
        match resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Foreign {
                code: ResponseCode::NoError,
                answers: lookup.answers().to_vec(),
                authorities: Vec::new(),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Foreign {
                code: none.response_code,
                answers: Vec::new(),
                authorities: none.soa.map(|soa| soa.into_record_of_rdata()).into_iter().collect(),
            },
            Err(error) => {
                tracing::debug!(%name, %kind, %error, "the node's resolvers do not answer");
                Foreign::of_code(ResponseCode::ServFail)
            }
        }
    }

    /// The resolver, and whether it is a new one.
    fn resolver(&self) -> Option<(Arc<TokioResolver>, bool)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = state.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_INTERVAL);
        if due {
            state.looked = Some(now);
            let path = &self.options.resolv_conf;
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
            if state.resolver.is_none() || modified != state.modified {
                state.modified = modified;
                match self.open() {
                    Ok(resolver) => {
                        let resolver = Arc::new(resolver);
                        state.resolver = Some(Arc::clone(&resolver));
                        return Some((resolver, true));
                    }
                    Err(reason) => {
                        tracing::warn!(file = %path.display(), reason, "the node names no resolver: names outside the cluster are not resolved");
                        state.resolver = None;
                    }
                }
            }
        }
        state.resolver.clone().map(|resolver| (resolver, false))
    }

    fn open(&self) -> Result<TokioResolver, String> {
        let path = &self.options.resolv_conf;
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > MAX_FILE_BYTES {
            return Err(format!("it has {size} bytes, more than {MAX_FILE_BYTES}"));
        }
        let text = std::fs::read(path).map_err(|error| error.to_string())?;
        let (config, mut options) =
            system_conf::parse_resolv_conf(text).map_err(|error| error.to_string())?;
        let config = self.without_ourselves(&config);
        if config.name_servers().is_empty() {
            return Err("all nameservers are this server itself".to_owned());
        }
        set(&mut options);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| error.to_string())
    }

    /// The resolvers without those that would ask us, and without a search list: names are asked for as they are.
    fn without_ourselves(&self, config: &ResolverConfig) -> ResolverConfig {
        let mut seen = HashSet::new();
        let servers = config.name_servers().iter().filter(|server| {
            let is_own = self.options.own.contains(&server.ip)
                || (self.options.listen.ip() == server.ip && self.options.listen.port() == 53);
            !is_own && seen.insert(server.ip)
        });
        ResolverConfig::from_parts(None, Vec::new(), servers.cloned().collect())
    }
}

fn set(options: &mut ResolverOpts) {
    options.cache_size = CACHE_ENTRIES;
    options.positive_max_ttl = Some(MAX_KEPT);
    options.negative_max_ttl = Some(MAX_KEPT);
    options.timeout = options.timeout.min(TIMEOUT);
    options.attempts = options.attempts.clamp(1, 3);
    options.edns0 = true;
    // The node's file of hosts is not the pods'.
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(text: &str) -> (tempfile::TempDir, Upstream) {
        let directory = tempfile::tempdir().unwrap();
        let resolv_conf = directory.path().join("resolv.conf");
        std::fs::write(&resolv_conf, text).unwrap();
        let options = Options {
            resolv_conf,
            own: vec!["127.96.0.10".parse().unwrap()],
            listen: "127.96.0.10:10053".parse().unwrap(),
        };
        (directory, Upstream::new(options))
    }

    #[tokio::test]
    async fn the_server_does_not_ask_itself() {
        for (text, usable) in [
            ("nameserver 127.96.0.10\n", false),
            ("nameserver 127.96.0.10\nnameserver 127.0.0.53\n", true),
            ("search example.com\n", false),
            ("nameserver 127.0.0.53\n", true),
        ] {
            let (_directory, upstream) = upstream(text);
            assert_eq!(upstream.open().is_ok(), usable, "{text}");
            assert_eq!(upstream.resolver().is_some(), usable, "{text}");
        }
    }

    #[tokio::test]
    async fn a_question_of_our_own_that_comes_back_ends_the_asking() {
        let (_directory, upstream) = upstream("nameserver 127.0.0.53\n");
        assert!(upstream.resolver().is_some());
        assert!(!upstream.is_probe(&Name::from_ascii("example.com.").unwrap()));
        assert!(!upstream.looping.load(Ordering::Relaxed));
        assert!(upstream.is_probe(&upstream.probe.clone()));
        let answer = upstream.ask(&Name::from_ascii("example.com.").unwrap(), RecordType::A).await;
        assert_eq!(answer.code, ResponseCode::ServFail);
    }
}
