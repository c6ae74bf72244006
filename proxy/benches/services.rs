//! What a connection through a Service costs beside one to the endpoint itself, with few Services and with many, on each
//! backend; and what a change of one endpoint costs. As root: every backend runs in a network of its own without a way out, in a
//! cgroup of its own.
//!
//! A connection is measured from `connect` to its return, on one thread, by turns: a plain one to the listener itself, one through
//! the same Service each time (`one`), one through a Service drawn at random from all (`any`), whose rules no cache holds. `plain`
//! before any rules stand shows what the rules cost those who use no Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use socket2::{Domain, SockAddr, Socket, Type};
use wherry_proxy::{
    Backend, Config, ProxyMode,
    ebpf::{Place, Sockets},
    kernel_backend,
    rules::{Family, PortName, PortRule, Protocol, Ruleset, TrafficPolicy},
};

/// Services in force.
const COUNTS: [u32; 4] = [1, 1_000, 10_000, 30_000];
/// Connections of each kind.
const CONNECTIONS: u32 = 4_000;
/// Changes of one endpoint.
const CHANGES: u32 = 30;
/// Where filling the rules took longer than this, larger counts are left out: it is not what is measured here.
const PATIENCE: Duration = Duration::from_secs(5);
/// Endpoints of each Service.
const ENDPOINTS: u8 = 2;

/// Says to the process in its namespaces what to measure, and which cgroup is its own.
const BACKEND: &str = "WHERRY_BENCH_BACKEND";
const CGROUP: &str = "WHERRY_BENCH_CGROUP";

const BACKENDS: [&str; 4] = ["ebpf, sockets alone", "ebpf", "nftables", "iptables"];

#[expect(clippy::print_stdout, reason = "what a benchmark is for")]
fn main() {
    if let (Ok(backend), Some(cgroup)) = (env::var(BACKEND), env::var_os(CGROUP)) {
        measure(&backend, Path::new(&cgroup));
        return;
    }
    let cgroup2 = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let cgroup2 =
        cgroup2.lines().find_map(|line| line.split(' ').nth(1).filter(|_| line.starts_with("cgroup2 ")));
    let cgroup = cgroup2.map(|root| Path::new(root).join(format!("wherry-bench-{}", std::process::id())));
    let Some(cgroup) = cgroup.filter(|cgroup| fs::create_dir(cgroup).is_ok()) else {
        println!("SKIPPED services: needs root and cgroup2");
        return;
    };
    println!(
        "connect, median in us: to the endpoint itself, through one Service, through any; change of one endpoint, all at first"
    );
    println!(
        "{:20} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}   {:>10} {:>10}",
        "backend", "Services", "plain", "one", "ratio", "any", "ratio", "change us", "fill ms"
    );
    for backend in BACKENDS {
        let status = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c"])
            .arg("ip link set lo up && ip address add 10.64.0.1/32 dev lo && ip address add 10.64.0.2/32 dev lo && ip route add 10.96.0.0/16 dev lo && exec \"$0\"")
            .arg(env::current_exe().expect("this program"))
            .env(BACKEND, backend)
            .env(CGROUP, &cgroup)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("{backend:20} cannot be measured here");
        }
    }
    fs::remove_dir(cgroup).expect("the cgroup is empty again");
}

/// All counts of one backend.
#[expect(clippy::print_stdout, reason = "what a benchmark is for")]
fn measure(name: &str, cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("a cgroup of one's own");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = TcpListener::bind("0.0.0.0:8080").expect("a port");
    let mut random = StdRng::seed_from_u64(1);
    let endpoint = endpoint(1);
    let [bare, ..] = connections(&listener, || [endpoint; 3]);
    println!("{name:20} {:>8} {:>8.2}", "none", micros(bare));

    let mut backend = open(name, cgroup);
    for count in COUNTS {
        let mut ruleset = ruleset(count);
        let started = Instant::now();
        let applied = runtime.block_on(backend.apply(&Arc::new(ruleset.clone())));
        if let Err(error) = applied {
            println!(
                "{name:20} {count:>8} {error}: {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            );
            break;
        }
        let fill = started.elapsed();
        let service = |number| SocketAddr::new(service_ip(number), 80);
        let [plain, one, any] =
            connections(&listener, || [endpoint, service(count / 2), service(random.random_range(0..count))]);
        let mut changes = Vec::new();
        for _ in 0..CHANGES {
            let changed = random.random_range(0..count);
            let rule = ruleset.ports.get_mut(&port_name(changed)).expect("a Service");
            let endpoints = if rule.cluster_endpoints.len() == 1 { ENDPOINTS } else { 1 };
            *rule = Arc::new(port_rule(changed, endpoints));
            let next = Arc::new(ruleset.clone());
            let started = Instant::now();
            runtime.block_on(backend.apply(&next)).expect("a change");
            changes.push(started.elapsed());
        }
        println!(
            "{name:20} {count:>8} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2}   {:>10.0} {:>10.1}",
            micros(plain),
            micros(one),
            micros(one) / micros(plain),
            micros(any),
            micros(any) / micros(plain),
            micros(median(changes)),
            fill.as_secs_f64() * 1e3,
        );
        if fill > PATIENCE && count != COUNTS[COUNTS.len() - 1] {
            println!("{name:20} more Services are left out: to fill them in takes too long");
            break;
        }
    }
    runtime.block_on(backend.close());
}

fn open(name: &str, cgroup: &Path) -> Box<dyn Backend> {
    if name == BACKENDS[0] {
        return Box::new(Sockets::new(Place { cgroup: cgroup.to_owned(), pins: None }));
    }
    let mode: ProxyMode = name.parse().expect("a mode");
    let config = Config {
        mode,
        cluster_cidrs: vec!["10.64.0.0/16".parse().expect("a range")],
        cgroup: Some(PathBuf::from(cgroup)),
        ..Config::loopback("n1".to_owned(), Ipv4Addr::new(10, 64, 0, 1).into())
    };
    kernel_backend(mode, &config).expect("a backend")
}

/// The medians of connections to each of these addresses, by turns.
fn connections(listener: &TcpListener, mut addresses: impl FnMut() -> [SocketAddr; 3]) -> [Duration; 3] {
    let mut took = [const { Vec::new() }; 3];
    for round in 0..CONNECTIONS + 200 {
        for (took, address) in took.iter_mut().zip(addresses()) {
            let duration = connect(listener, address);
            // The first ones warm the caches.
            if round >= 200 {
                took.push(duration);
            }
        }
    }
    took.map(median)
}

/// How long it takes to connect. Ended by a reset, so that no port waits for its time to run out.
fn connect(listener: &TcpListener, address: SocketAddr) -> Duration {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_linger(Some(Duration::ZERO)).expect("no lingering");
    let address = SockAddr::from(address);
    let started = Instant::now();
    socket.connect(&address).expect("a connection");
    let took = started.elapsed();
    let (accepted, _) = listener.accept().expect("the connection");
    drop(socket);
    drop(accepted);
    took
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn endpoint(host: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 64, 0, host), 8080).into()
}

fn service_ip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + number + 1).into()
}

fn port_name(number: u32) -> PortName {
    PortName {
        namespace: "default".into(),
        service: format!("s{number}").into(),
        port: "".into(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    }
}

fn port_rule(number: u32, endpoints: u8) -> PortRule {
    PortRule {
        service: ObjectReference::default(),
        port: 80,
        cluster_ip: service_ip(number),
        external_ips: BTreeSet::new(),
        load_balancer_ips: BTreeSet::new(),
        source_ranges: None,
        node_port: None,
        affinity: None,
        internal: TrafficPolicy::Cluster,
        external: TrafficPolicy::Cluster,
        cluster_endpoints: (1..=endpoints).map(endpoint).collect(),
        local_endpoints: Vec::new(),
        has_endpoints: true,
    }
}

fn ruleset(count: u32) -> Ruleset {
    let ports: BTreeMap<PortName, Arc<PortRule>> =
        (0..count).map(|number| (port_name(number), Arc::new(port_rule(number, ENDPOINTS)))).collect();
    Ruleset { ports, ..Ruleset::default() }
}
