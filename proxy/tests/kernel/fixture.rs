//! A node with two pods, and a machine outside of the cluster.
//!
//! ```text
//! outside 192.0.2.2 ---- 192.0.2.1 node 10.244.0.1 ---- 10.244.0.2 pod one
//!                                                  ---- 10.244.0.3 pod two
//! ```
//! and the same in IPv6 with `2001:db8::` and `fd00:244::`.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use wherry_proxy::{Applied, Backend, BackendError, Config, ProxyMode, rules::Ruleset};

use crate::netns::Netns;

/// How long a connection is waited for that nobody answers.
const PATIENCE: Duration = Duration::from_millis(1500);

pub(crate) const MODES: [ProxyMode; 2] = [ProxyMode::Nftables, ProxyMode::Iptables];

type SharedBackend = Arc<Mutex<Option<Box<dyn Backend>>>>;

pub(crate) struct Fixture {
    pub(crate) node: Netns,
    pub(crate) outside: Netns,
    pub(crate) one: Netns,
    pub(crate) two: Netns,
    pub(crate) mode: ProxyMode,
    backend: SharedBackend,
}

/// Who answered, and which client it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) name: String,
    pub(crate) client: IpAddr,
}

impl Fixture {
    pub(crate) fn new(mode: ProxyMode) -> Self {
        let (node, outside, one, two) = (Netns::new(), Netns::new(), Netns::new(), Netns::new());
        node.set("ipv4/ip_forward", "1");
        node.set("ipv6/conf/all/forwarding", "1");
        // Every refusal is told, however many there are.
        node.set("ipv4/icmp_ratelimit", "0");
        node.set("ipv6/icmp/ratelimit", "0");
        node.link("out", &outside);
        node.ip("address add 192.0.2.1/24 dev out");
        node.ip("address add 2001:db8::1/64 dev out nodad");
        outside.ip("address add 192.0.2.2/24 dev eth0");
        outside.ip("address add 192.0.2.3/24 dev eth0");
        outside.ip("address add 2001:db8::2/64 dev eth0 nodad");
        node.ip("route add default via 192.0.2.2");
        node.ip("route add default via 2001:db8::2");
        outside.ip("route add 10.96.0.0/16 via 192.0.2.1");
        outside.ip("route add 198.51.100.0/24 via 192.0.2.1");
        outside.ip("route add fd00:96::/64 via 2001:db8::1");
        for (name, pod, last) in [("one", &one, 2), ("two", &two, 3)] {
            node.link(name, pod);
            node.ip(&format!("address add 10.244.0.1/32 dev {name}"));
            node.ip(&format!("address add fd00:244::1/128 dev {name} nodad"));
            node.ip(&format!("route add 10.244.0.{last}/32 dev {name}"));
            node.ip(&format!("route add fd00:244::{last}/128 dev {name}"));
            pod.ip(&format!("address add 10.244.0.{last}/32 dev eth0"));
            pod.ip(&format!("address add fd00:244::{last}/128 dev eth0 nodad"));
            pod.ip("route add 10.244.0.1/32 dev eth0");
            pod.ip("route add default via 10.244.0.1");
            pod.ip("route add fd00:244::1/128 dev eth0");
            pod.ip("route add default via fd00:244::1");
        }
        for (name, pod, ip) in [("one", &one, "10.244.0.2"), ("two", &two, "10.244.0.3")] {
            serve(name, pod, ip.parse().unwrap());
        }
        serve("one", &one, "fd00:244::2".parse().unwrap());
        serve("two", &two, "fd00:244::3".parse().unwrap());
        serve("outside", &outside, "192.0.2.2".parse().unwrap());
        let fixture = Self { node, outside, one, two, mode, backend: SharedBackend::default() };
        fixture.restart();
        fixture
    }

    /// A backend that remembers nothing of the one before.
    pub(crate) fn restart(&self) {
        let config = Config {
            node_name: "n1".to_owned(),
            node_port_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            mode: self.mode,
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
            verify_interval: Duration::from_secs(1),
            cgroup: None,
        };
        *self.backend.lock().unwrap() = Some(wherry_proxy::kernel_backend(self.mode, &config).unwrap());
    }

    fn with_backend<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&mut dyn Backend) -> T + Send + 'static,
    ) -> T {
        let backend = Arc::clone(&self.backend);
        self.node.run(move || {
            let mut backend = backend.lock().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work(backend.as_mut().unwrap().as_mut()))
        })
    }

    pub(crate) fn try_apply(&self, ruleset: Arc<Ruleset>) -> Result<Applied, BackendError> {
        self.with_backend(async move |backend: &mut dyn Backend| backend.apply(&ruleset).await)
    }

    pub(crate) fn apply(&self, ruleset: Arc<Ruleset>) -> Applied {
        self.try_apply(ruleset).unwrap_or_else(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            panic!("{}: {error}: {source:?}\n{}", self.mode, self.rules())
        })
    }

    pub(crate) fn verify(&self) -> bool {
        self.with_backend(async |backend: &mut dyn Backend| backend.verify().await).unwrap()
    }

    /// The rules as the program shows them.
    pub(crate) fn rules(&self) -> String {
        match self.mode {
            ProxyMode::Iptables => {
                self.node.command("iptables-save", &[]) + &self.node.command("ip6tables-save", &[])
            }
            _ => self.node.command("nft", &["list", "ruleset"]),
        }
    }
}

/// Answer with `name` and the client's address on port 8080, TCP and UDP, for as long as the test runs.
fn serve(name: &'static str, netns: &Netns, ip: IpAddr) {
    let address = SocketAddr::new(ip, 8080);
    let (listener, socket) =
        netns.run(move || (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap()));
    thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            thread::spawn(move || {
                let _gone = stream.write_all(format!("{name} {}", client.ip()).as_bytes());
                let _gone = stream.shutdown(std::net::Shutdown::Write);
                let _gone = stream.read(&mut [0]);
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _gone = socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
        }
    });
}

fn answer(text: &str) -> Answer {
    let (name, client) = text.split_once(' ').unwrap_or_else(|| panic!("no answer: {text:?}"));
    Answer { name: name.to_owned(), client: client.parse().unwrap() }
}

/// Connect from a namespace.
pub(crate) fn tcp(from: &Netns, to: &str) -> Result<Answer, io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|error| error.kind())?;
        Ok(answer(&text))
    })
}

/// Ask over UDP, from any free port.
pub(crate) fn udp(from: &Netns, to: &str) -> Result<Answer, io::ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    from.run(move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        ask(&UdpSocket::bind(any).unwrap(), to)
    })
}

/// Ask from a socket that is there already.
pub(crate) fn ask(socket: &UdpSocket, to: SocketAddr) -> Result<Answer, io::ErrorKind> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).map_err(|error| error.kind())?;
    socket.send(b"?").map_err(|error| error.kind())?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    Ok(answer(std::str::from_utf8(&buffer[..length]).unwrap()))
}
