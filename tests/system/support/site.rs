//! Where a cluster is: a part of 127.0.0.0/8, or network namespaces of its own.
//!
//! The same tests run in every setting: `WHERRY_TEST_NETWORK` is `loopback` (the default) or `routed`, and
//! `WHERRY_TEST_PROXY_MODE` is handed on as `--proxy-mode`.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

use super::namespace::{Container, Inside, Namespace};

/// Where a cluster, or one node of it, is.
#[derive(Debug)]
pub(crate) enum Site {
    Loopback(Networks),
    Routed(Box<Routed>),
}

/// The part of 127.0.0.0/8 that is a cluster's own.
#[derive(Debug)]
pub(crate) struct Networks {
    second_octet: u8,
    /// Whoever listens here has the range, as long as it does: tests of any number of runs never share one.
    _claim: TcpListener,
}

/// A machine of its own: a network namespace with one way to an outside world that a test plays. The test's thread is in it.
#[derive(Debug)]
pub(crate) struct Routed {
    /// Dropped first: the thread leaves.
    inside: Option<Inside>,
    /// Then everything that runs here ends.
    container: Container,
    node_ip: Ipv4Addr,
    namespace: Namespace,
    /// The `--proxy-mode`, if one was asked for.
    proxy_mode: Option<String>,
}

/// The world around the machines: a link that they share, and a router to those that are elsewhere.
#[derive(Debug)]
pub(crate) struct Outside {
    namespace: Namespace,
}

/// The world's own address on the shared link: the machines' default gateway.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

impl Outside {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add shared type bridge");
        namespace.ip(&format!("address add {OUTSIDE}/24 dev shared"));
        namespace.ip("link set shared up");
        namespace.forward();
        Self { namespace }
    }

    /// The namespace of the world.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A machine on the shared link.
    pub(crate) fn machine(&self, number: u8, proxy_mode: Option<&str>) -> Routed {
        let node_ip = Ipv4Addr::new(192, 0, 2, number);
        let machine = Routed::new(node_ip, proxy_mode);
        let port = format!("port{number}");
        machine.namespace.join("eth0", &format!("{node_ip}/24"), &self.namespace, &port);
        self.namespace.ip(&format!("link set {port} master shared"));
        machine.namespace.ip(&format!("route add default via {OUTSIDE}"));
        machine
    }

    /// A machine on a link of its own, behind the router.
    pub(crate) fn machine_elsewhere(&self, number: u8, proxy_mode: Option<&str>) -> Routed {
        let (node_ip, gateway) = (Ipv4Addr::new(198, 51, 100, number), Ipv4Addr::new(198, 51, 100, 254));
        let machine = Routed::new(node_ip, proxy_mode);
        let port = format!("far{number}");
        machine.namespace.join("eth0", &format!("{node_ip}/24"), &self.namespace, &port);
        self.namespace.ip(&format!("address add {gateway}/24 dev {port}"));
        machine.namespace.ip(&format!("route add default via {gateway}"));
        machine
    }
}

impl Routed {
    fn new(node_ip: Ipv4Addr, proxy_mode: Option<&str>) -> Self {
        Self {
            inside: None,
            container: Container::new(),
            node_ip,
            namespace: Namespace::new(),
            proxy_mode: proxy_mode.map(str::to_owned),
        }
    }

    /// The present thread moves in.
    pub(crate) fn enter(&mut self) {
        if self.inside.is_none() {
            self.inside = Some(self.namespace.enter());
        }
    }

    /// The machine's network.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The machine's address.
    pub(crate) fn node_ip(&self) -> Ipv4Addr {
        self.node_ip
    }

    /// The processes that were started here.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.container.processes()
    }
}

impl Networks {
    /// A range that no other test has.
    fn claim() -> Self {
        // 127.100 to 127.227: out of the way of a cluster that a user runs, which has 127.64 and 127.96.
        let first = std::process::id() % 128;
        (0..128)
            .find_map(|number| {
                let second_octet = 100 + u8::try_from((first + number) % 128).unwrap();
                let claim = TcpListener::bind((format!("127.{second_octet}.127.253"), 42_000)).ok()?;
                Some(Self { second_octet, _claim: claim })
            })
            .expect("a part of 127.0.0.0/8 that no other test has")
    }
}

/// What a process is, as far as its flags about addresses go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `wherry up`.
    Up,
    /// `wherry apiserver`.
    ApiServer,
    /// `wherry controllers`.
    Controllers,
    /// `wherry kubelet`.
    Kubelet,
    /// `wherry proxy`.
    Proxy,
    /// `wherry dns`.
    Dns,
}

impl Site {
    /// A place in the setting that the environment names, and the world around it where there is one.
    pub(crate) fn of_environment() -> (Self, Option<Outside>) {
        let network = std::env::var("WHERRY_TEST_NETWORK").unwrap_or_default();
        match network.as_str() {
            "" | "loopback" => (Self::Loopback(Networks::claim()), None),
            "routed" => {
                let mode = std::env::var("WHERRY_TEST_PROXY_MODE").ok().filter(|mode| !mode.is_empty());
                let outside = Outside::new();
                let machine = outside.machine(1, mode.as_deref());
                (Self::Routed(Box::new(machine)), Some(outside))
            }
            other => panic!("WHERRY_TEST_NETWORK is loopback or routed, not {other}"),
        }
    }

    /// Whether pods have addresses of a network of their own.
    pub(crate) fn is_routed(&self) -> bool {
        matches!(self, Self::Routed(_))
    }

    /// The machine, in routed mode.
    pub(crate) fn machine(&self) -> Option<&Routed> {
        match self {
            Self::Routed(machine) => Some(machine),
            Self::Loopback(_) => None,
        }
    }

    /// The present thread moves to where the cluster is.
    pub(crate) fn enter(&mut self) {
        if let Self::Routed(machine) = self {
            machine.enter();
        }
    }

    /// A command that runs `program` here.
    pub(crate) fn command(&self, program: &Path) -> Command {
        match self {
            Self::Loopback(_) => Command::new(program),
            Self::Routed(machine) => machine.container.command(program),
        }
    }

    /// The flags that say so to a process.
    pub(crate) fn arguments(&self, role: Role) -> Vec<String> {
        let mut arguments = Vec::new();
        let node_ip = format!("--node-ip={}", self.node_ip());
        match self {
            Self::Loopback(Networks { second_octet, .. }) => {
                let pods = format!("--pod-cidr=127.{second_octet}.0.0/17");
                let services = format!("--service-cidr=127.{second_octet}.128.0/17");
                match role {
                    Role::Up | Role::Kubelet | Role::Dns => arguments.extend([pods, services, node_ip]),
                    Role::ApiServer => arguments.push(services),
                    Role::Proxy => arguments.push(node_ip),
                    Role::Controllers => {}
                }
            }
            Self::Routed(machine) => {
                let routed = "--network=routed".to_owned();
                let cluster_cidr = "--cluster-cidr=10.42.0.0/16".to_owned();
                let mode = machine.proxy_mode.as_ref().map(|mode| format!("--proxy-mode={mode}"));
                match role {
                    // The node's address is found.
                    Role::Up => arguments.push(routed),
                    Role::Kubelet | Role::Dns | Role::ApiServer => arguments.extend([routed, node_ip]),
                    Role::Proxy => arguments.extend([routed, node_ip, cluster_cidr]),
                    Role::Controllers => arguments.push(cluster_cidr),
                }
                if matches!(role, Role::Up | Role::Proxy) {
                    arguments.extend(mode);
                }
            }
        }
        arguments
    }

    /// Where an API server listens.
    pub(crate) fn listen_ip(&self) -> IpAddr {
        match self {
            Self::Loopback(_) => IpAddr::from([127, 0, 0, 1]),
            Self::Routed(machine) => machine.node_ip.into(),
        }
    }

    /// The node's address.
    pub(crate) fn node_ip(&self) -> IpAddr {
        match self {
            // Within the pods' part, but never given to a pod: the last address of the range.
            Self::Loopback(networks) => IpAddr::from([127, networks.second_octet, 127, 254]),
            Self::Routed(machine) => machine.node_ip.into(),
        }
    }

    /// An address of this machine that no pod gets, number 1 and up: from the end of the range.
    pub(crate) fn spare(&self, number: u8) -> IpAddr {
        match self {
            Self::Loopback(networks) => IpAddr::from([127, networks.second_octet, 127, 254 - number]),
            Self::Routed(_) => IpAddr::from([10, 42, 0, 254 - number]),
        }
    }

    /// What every pod's address begins with.
    pub(crate) fn pod_prefix(&self) -> &'static str {
        if self.is_routed() { "10.42." } else { "127." }
    }
}
