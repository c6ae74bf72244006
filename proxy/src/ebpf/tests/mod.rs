//! The programs in the kernel, asked by sockets.

mod namespace;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Place, Sockets, clean_up, layout::Address, plan::Write};
use crate::{
    Backend,
    rules::{self, NodeInfo, Protocol, Ruleset},
};
use namespace::in_namespace;

/// Where the tests' Services are; nothing listens there, and no route leads there.
const WEB: &str = "10.96.0.1:80";
const WEB6: &str = "[fd00:96::1]:80";
const DNS: &str = "10.96.0.2:53";
const ENOUGH: usize = 80;

/// The backend with a way to wait for it.
struct Proxy {
    backend: Box<Sockets>,
    runtime: tokio::runtime::Runtime,
}

impl Proxy {
    fn start(place: &Place) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { backend: Box::new(Sockets::new(place.clone())), runtime }
    }

    fn apply(&mut self, rules: &[Rule<'_>]) {
        let ruleset = Arc::new(ruleset(rules));
        self.runtime.block_on(self.backend.apply(&ruleset)).unwrap();
    }

    fn is_in_force(&mut self) -> bool {
        self.runtime.block_on(self.backend.verify()).unwrap()
    }
}

/// A Service with one port.
struct Rule<'a> {
    address: &'a str,
    protocol: &'a str,
    endpoints: &'a [&'a str],
    affinity_seconds: Option<u32>,
}

impl<'a> Rule<'a> {
    fn tcp(address: &'a str, endpoints: &'a [&'a str]) -> Self {
        Self { address, protocol: "TCP", endpoints, affinity_seconds: None }
    }

    fn udp(address: &'a str, endpoints: &'a [&'a str]) -> Self {
        Self { protocol: "UDP", ..Self::tcp(address, endpoints) }
    }
}

fn ruleset(rules: &[Rule<'_>]) -> Ruleset {
    let mut services: Vec<Arc<Service>> = Vec::new();
    let mut slices: Vec<Arc<EndpointSlice>> = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let address: SocketAddr = rule.address.parse().unwrap();
        let (ip, port, protocol) = (address.ip(), address.port(), rule.protocol);
        let mut spec = format!(
            r#"{{"type":"ClusterIP","clusterIP":"{ip}","clusterIPs":["{ip}"],"ports":[{{"port":{port},"protocol":"{protocol}"}}]"#
        );
        if let Some(seconds) = rule.affinity_seconds {
            write!(
                spec,
                r#","sessionAffinity":"ClientIP","sessionAffinityConfig":{{"clientIP":{{"timeoutSeconds":{seconds}}}}}"#
            )
            .unwrap();
        }
        let service = format!(r#"{{"metadata":{{"name":"s{number}","namespace":"d"}},"spec":{spec}}}}}"#);
        services.push(Arc::new(serde_json::from_str(&service).unwrap()));
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        for (part, endpoint) in rule.endpoints.iter().enumerate() {
            let endpoint: SocketAddr = endpoint.parse().unwrap();
            let (ip, port) = (endpoint.ip(), endpoint.port());
            let slice = format!(
                r#"{{"addressType":"{family}","metadata":{{"name":"s{number}-{part}","namespace":"d","labels":{{"kubernetes.io/service-name":"s{number}"}}}},
                "ports":[{{"name":"","port":{port},"protocol":"{protocol}"}}],"endpoints":[{{"addresses":["{ip}"],"conditions":{{"ready":true}}}}]}}"#
            );
            slices.push(Arc::new(serde_json::from_str(&slice).unwrap()));
        }
    }
    rules::compute(&services, &slices, &NodeInfo { name: "n1".to_owned(), zone: None })
}

/// Listen there; every connection is told where it arrived, and every line is sent back.
fn serve_tcp(addresses: &[&str]) {
    for address in addresses {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                thread::spawn(move || greet(connection.unwrap()));
            }
        });
    }
}

fn greet(mut connection: TcpStream) {
    let _ = writeln!(connection, "{}", connection.local_addr().unwrap());
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        let _ = connection.write_all(&buffer[..length]);
    }
}

/// Answer every datagram with the address it arrived at.
fn serve_udp(addresses: &[&str]) {
    for address in addresses {
        let socket = UdpSocket::bind(address).unwrap();
        let text = address.to_string();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                let (_, from) = socket.recv_from(&mut buffer).unwrap();
                socket.send_to(text.as_bytes(), from).unwrap();
            }
        });
    }
}

fn line(connection: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while connection.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        text.push(char::from(byte[0]));
    }
    text
}

/// Connect to a Service: which endpoint answers.
fn reached(service: &str) -> String {
    let mut connection = TcpStream::connect(service).unwrap();
    assert_eq!(connection.peer_addr().unwrap(), service.parse().unwrap());
    line(&mut connection)
}

fn all_reached(service: &str) -> BTreeSet<String> {
    (0..ENOUGH).map(|_| reached(service)).collect()
}

fn set(endpoints: &[&str]) -> BTreeSet<String> {
    endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect()
}

fn udp_socket(bind: &str) -> UdpSocket {
    let socket = UdpSocket::bind(bind).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Who answers a datagram sent there, and what address the answer seems to come from.
fn asked(socket: &UdpSocket, service: &str) -> (String, SocketAddr) {
    socket.send_to(b"?", service).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

#[test]
fn connections_are_spread_over_the_endpoints_and_know_the_service_as_their_peer() {
    in_namespace("connections_are_spread_over_the_endpoints_and_know_the_service_as_their_peer", |place| {
        let endpoints = ["10.64.0.1:8080", "10.64.0.2:8080", "10.64.0.3:8081"];
        let endpoints6 = ["[fd00:64::1]:8080", "[fd00:64::2]:8080"];
        serve_tcp(&endpoints);
        serve_tcp(&endpoints6);
        assert!(TcpStream::connect(WEB).is_err(), "nothing serves yet");
        let mut proxy = Proxy::start(&place);
        proxy.apply(&[Rule::tcp(WEB, &endpoints), Rule::tcp(WEB6, &endpoints6)]);
        assert_eq!(all_reached(WEB), set(&endpoints));
        assert_eq!(all_reached(WEB6), set(&endpoints6));

        // Whoever asks an endpoint itself is told so, even with a socket that was connected to the Service before.
        let direct = TcpStream::connect(endpoints[0]).unwrap();
        assert_eq!(direct.peer_addr().unwrap(), endpoints[0].parse().unwrap());
        let socket = udp_socket("10.64.0.4:0");
        socket.connect(endpoints[0]).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), endpoints[0].parse().unwrap());
        // Another port of the Service's address, and another transport, are not the Service.
        assert!(TcpStream::connect("10.96.0.1:81").is_err());
        assert!(socket.connect(WEB).is_err(), "UDP port of a TCP Service");
    });
}

#[test]
fn an_ipv6_socket_reaches_an_ipv4_service_by_its_mapped_address() {
    in_namespace("an_ipv6_socket_reaches_an_ipv4_service_by_its_mapped_address", |place| {
        let endpoints = ["10.64.0.1:8080"];
        serve_tcp(&endpoints);
        serve_udp(&endpoints);
        let mut proxy = Proxy::start(&place);
        proxy.apply(&[Rule::tcp(WEB, &endpoints), Rule::udp(DNS, &endpoints)]);

        let service: SocketAddr = "[::ffff:10.96.0.1]:80".parse().unwrap();
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.connect(&SockAddr::from(service)).unwrap();
        let mut connection = TcpStream::from(socket);
        assert_eq!(connection.peer_addr().unwrap(), service);
        assert_eq!(line(&mut connection), endpoints[0]);

        let dns: SocketAddr = "[::ffff:10.96.0.2]:53".parse().unwrap();
        let socket = udp_socket("[::]:0");
        assert_eq!(asked(&socket, "[::ffff:10.96.0.2]:53"), (endpoints[0].to_owned(), dns));
        socket.connect(dns).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), dns);
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_serves_as_soon_as_it_has_one() {
    in_namespace("a_service_without_endpoints_refuses_at_once_and_serves_as_soon_as_it_has_one", |place| {
        let mut proxy = Proxy::start(&place);
        proxy.apply(&[Rule::tcp(WEB, &[]), Rule::tcp(WEB6, &[]), Rule::udp(DNS, &[])]);
        for service in [WEB, WEB6] {
            let refused = TcpStream::connect(service).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{service}: {refused}");
        }
        let socket = udp_socket("10.64.0.4:0");
        assert_eq!(socket.send_to(b"?", DNS).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(socket.connect(DNS).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

        serve_tcp(&["10.64.0.1:8080"]);
        proxy.apply(&[Rule::tcp(WEB, &["10.64.0.1:8080"])]);
        assert_eq!(reached(WEB), "10.64.0.1:8080");
        // The others are gone: what happens to their addresses is the network's business again.
        let gone = TcpStream::connect(WEB6).unwrap_err();
        assert_ne!(gone.kind(), io::ErrorKind::ConnectionRefused, "{gone}");
    });
}

#[test]
fn an_endpoint_that_is_removed_is_never_reached_again_and_its_connections_live_on() {
    in_namespace("an_endpoint_that_is_removed_is_never_reached_again_and_its_connections_live_on", |place| {
        let endpoints = ["10.64.0.1:8080", "10.64.0.2:8080", "10.64.0.3:8080"];
        serve_tcp(&endpoints);
        let mut proxy = Proxy::start(&place);
        proxy.apply(&[Rule::tcp(WEB, &endpoints)]);
        let mut established: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(WEB).unwrap()).collect();
        for connection in &mut established {
            line(connection);
        }

        proxy.apply(&[Rule::tcp(WEB, &endpoints[1..])]);
        assert_eq!(all_reached(WEB), set(&endpoints[1..]));
        for connection in &mut established {
            connection.write_all(b"still there\n").unwrap();
            assert_eq!(line(connection), "still there");
            assert_eq!(connection.peer_addr().unwrap(), WEB.parse().unwrap());
        }
        proxy.apply(&[Rule::tcp(WEB, &endpoints[..1])]);
        assert_eq!(all_reached(WEB), set(&endpoints[..1]));
    });
}

#[test]
fn every_connection_during_a_change_reaches_an_endpoint() {
    in_namespace("every_connection_during_a_change_reaches_an_endpoint", |place| {
        let endpoints = ["10.64.0.1:8080", "10.64.0.2:8080", "10.64.0.3:8080", "10.64.0.4:8080"];
        serve_tcp(&endpoints);
        let mut proxy = Proxy::start(&place);
        proxy.apply(&[Rule::tcp(WEB, &endpoints)]);
        let clients: Vec<_> =
            (0..2).map(|_| thread::spawn(|| (0..2_000).for_each(|_| drop(reached(WEB))))).collect();
        let mut changes = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            // One endpoint less, all others, one more, half.
            for part in [&endpoints[..1], &endpoints[1..], &endpoints[..], &endpoints[2..]] {
                proxy.apply(&[Rule::tcp(WEB, part)]);
                changes += 1;
            }
        }
        for client in clients {
            client.join().unwrap();
        }
        assert!(changes > 20, "only {changes} changes");
    });
}

#[test]
fn datagrams_of_a_socket_stay_with_an_endpoint_and_answers_come_from_the_service() {
    in_namespace("datagrams_of_a_socket_stay_with_an_endpoint_and_answers_come_from_the_service", |place| {
        let endpoints = ["10.64.0.1:5353", "10.64.0.2:5353", "10.64.0.3:5353"];
        let endpoints6 = ["[fd00:64::1]:5353", "[fd00:64::2]:5353"];
        let (dns6, other) = ("[fd00:96::2]:53", "10.96.0.3:53");
        serve_udp(&endpoints);
        serve_udp(&endpoints6);
        serve_udp(&["10.64.0.4:99"]);
        let mut proxy = Proxy::start(&place);
        let rest = [Rule::udp(dns6, &endpoints6), Rule::udp(other, &["10.64.0.4:99"])];
        proxy.apply(&[
            Rule::udp(DNS, &endpoints),
            Rule::udp(dns6, &endpoints6),
            Rule::udp(other, &["10.64.0.4:99"]),
        ]);

        let socket = udp_socket("0.0.0.0:0");
        let (endpoint, from) = asked(&socket, DNS);
        assert_eq!(from, DNS.parse().unwrap());
        for _ in 0..20 {
            assert_eq!(asked(&socket, DNS), (endpoint.clone(), from));
            assert_eq!(asked(&socket, other), ("10.64.0.4:99".to_owned(), other.parse().unwrap()));
        }
        // What was not asked through a Service comes from where it comes from.
        assert_eq!(asked(&socket, "10.64.0.4:99").0, "10.64.0.4:99");
        let sockets: BTreeSet<String> = (0..ENOUGH).map(|_| asked(&udp_socket("0.0.0.0:0"), DNS).0).collect();
        assert_eq!(sockets, set(&endpoints));

        let socket6 = udp_socket("[::]:0");
        let (endpoint6, from6) = asked(&socket6, dns6);
        assert_eq!(from6, dns6.parse().unwrap());
        assert_eq!(asked(&socket6, dns6), (endpoint6, from6));

        // Connected: no address is given with each datagram.
        let connected = udp_socket("0.0.0.0:0");
        connected.connect(DNS).unwrap();
        assert_eq!(connected.peer_addr().unwrap(), DNS.parse().unwrap());
        connected.send(b"?").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(connected.recv_from(&mut buffer).unwrap().1, DNS.parse().unwrap());

        // Its endpoint goes: the socket is given another one.
        let left: Vec<&str> = endpoints.iter().copied().filter(|candidate| **candidate != endpoint).collect();
        let [rest6, rest_other] = rest;
        proxy.apply(&[Rule::udp(DNS, &left), rest6, rest_other]);
        let (next, from) = asked(&socket, DNS);
        assert!(left.contains(&next.as_str()), "{next} was removed");
        assert_eq!(from, DNS.parse().unwrap());
    });
}

#[test]
fn a_client_stays_with_its_endpoint_until_that_goes_or_the_time_is_up() {
    in_namespace("a_client_stays_with_its_endpoint_until_that_goes_or_the_time_is_up", |place| {
        let endpoints = ["10.64.0.1:8080", "10.64.0.2:8080", "10.64.0.3:8080"];
        serve_tcp(&endpoints);
        let mut proxy = Proxy::start(&place);
        let sticky =
            |endpoints, seconds| Rule { affinity_seconds: Some(seconds), ..Rule::tcp(WEB, endpoints) };
        proxy.apply(&[sticky(&endpoints, 10_800)]);
        let endpoint = all_reached(WEB);
        assert_eq!(endpoint.len(), 1, "{endpoint:?}");

        // A socket bound to an address is another client: guests and pods of one namespace are told apart.
        let from = |source: &str| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SockAddr::from(format!("{source}:0").parse::<SocketAddr>().unwrap())).unwrap();
            socket.connect(&SockAddr::from(WEB.parse::<SocketAddr>().unwrap())).unwrap();
            line(&mut TcpStream::from(socket))
        };
        let sources: Vec<String> = (1..=60).map(|host| format!("127.0.0.{host}")).collect();
        let choices: Vec<String> = sources.iter().map(|source| from(source)).collect();
        assert_eq!(choices.iter().cloned().collect::<BTreeSet<_>>(), set(&endpoints));
        assert_eq!(sources.iter().map(|source| from(source)).collect::<Vec<_>>(), choices);

        // The endpoint goes; another one is chosen, and kept when it comes back.
        let left: Vec<&str> =
            endpoints.iter().copied().filter(|candidate| !endpoint.contains(*candidate)).collect();
        proxy.apply(&[sticky(&left, 10_800)]);
        let next = all_reached(WEB);
        assert_eq!(next.len(), 1, "{next:?}");
        assert!(next.is_disjoint(&endpoint));
        proxy.apply(&[sticky(&endpoints, 10_800)]);
        assert_eq!(all_reached(WEB), next);

        proxy.apply(&[sticky(&endpoints, 1)]);
        let moved = (0..30).any(|_| {
            thread::sleep(Duration::from_millis(1_100));
            !next.contains(&reached(WEB))
        });
        assert!(moved, "the time of affinity never ends");
    });
}

#[test]
fn sockets_are_served_while_the_proxy_is_down_and_a_restart_takes_over() {
    in_namespace("sockets_are_served_while_the_proxy_is_down_and_a_restart_takes_over", |place| {
        let endpoints = ["10.64.0.1:8080", "10.64.0.2:8080"];
        serve_tcp(&endpoints);
        let mut proxy = Proxy::start(&place);
        proxy.apply(&[Rule::tcp(WEB, &endpoints), Rule::tcp("10.96.0.9:80", &endpoints)]);
        let links = pinned_links(&place);
        assert_eq!(links.len(), 8, "{links:?}");
        drop(proxy);
        assert_eq!(all_reached(WEB), set(&endpoints));

        let mut proxy = Proxy::start(&place);
        // What the former run knew and is gone by now is removed.
        proxy.apply(&[Rule::tcp(WEB, &endpoints[1..])]);
        assert_eq!(pinned_links(&place), links, "the same programs serve on");
        assert_eq!(all_reached(WEB), set(&endpoints[1..]));
        assert!(TcpStream::connect("10.96.0.9:80").is_err());
        assert!(proxy.is_in_force());

        clean_up(&place).unwrap();
        drop(proxy);
        assert!(TcpStream::connect(WEB).is_err());
        assert!(!place.pins.as_ref().unwrap().exists());
    });
}

#[test]
fn what_somebody_else_changes_is_noticed_and_mended() {
    in_namespace("what_somebody_else_changes_is_noticed_and_mended", |place| {
        let endpoints = ["10.64.0.1:8080", "10.64.0.2:8080"];
        serve_tcp(&endpoints);
        let rules = || [Rule::tcp(WEB, &endpoints), Rule::tcp(WEB6, &[])];
        let mut proxy = Proxy::start(&place);
        proxy.apply(&rules());
        assert!(proxy.is_in_force());
        {
            let mut kernel = proxy.backend.kernel.lock().unwrap();
            let (_, maps) = kernel.opened.as_mut().unwrap();
            let address = Address { protocol: Protocol::Tcp, socket: WEB.parse().unwrap() };
            maps.write(Write::DeleteFrontend(address)).unwrap();
        }
        assert!(TcpStream::connect(WEB).is_err());
        assert!(!proxy.is_in_force());
        proxy.apply(&rules());
        assert_eq!(all_reached(WEB), set(&endpoints));

        // The pins go, as if another program tidied up: served on, and pinned again.
        fs::remove_dir_all(place.pins.as_ref().unwrap()).unwrap();
        assert_eq!(all_reached(WEB), set(&endpoints));
        assert!(!proxy.is_in_force());
        proxy.apply(&rules());
        assert!(proxy.is_in_force());
        assert_eq!(pinned_links(&place).len(), 8);
        assert_eq!(all_reached(WEB), set(&endpoints));
    });
}

#[test]
fn another_version_of_the_programs_is_replaced_and_without_pins_all_ends_with_the_process() {
    in_namespace(
        "another_version_of_the_programs_is_replaced_and_without_pins_all_ends_with_the_process",
        |place| {
            serve_tcp(&["10.64.0.1:8080"]);
            let rules = || [Rule::tcp(WEB, &["10.64.0.1:8080"])];
            let mut proxy = Proxy::start(&place);
            proxy.apply(&rules());
            drop(proxy);
            // As if they were those of a version that had other programs, and of one that had other maps.
            let pins = place.pins.clone().unwrap();
            let links = links_directory(&place);
            fs::rename(&links, links.with_file_name("links-0ld-1")).unwrap();
            fs::create_dir(pins.join("layout-0")).unwrap();
            let mut proxy = Proxy::start(&place);
            proxy.apply(&rules());
            assert_eq!(reached(WEB), "10.64.0.1:8080");
            assert_eq!(links_directory(&place), links);
            assert!(!pins.join("layout-0").exists());
            clean_up(&place).unwrap();
            drop(proxy);
            assert!(TcpStream::connect(WEB).is_err());

            let mut proxy = Proxy::start(&Place { pins: None, ..place });
            proxy.apply(&rules());
            assert_eq!(reached(WEB), "10.64.0.1:8080");
            drop(proxy);
            assert!(TcpStream::connect(WEB).is_err());
        },
    );
}

fn links_directory(place: &Place) -> std::path::PathBuf {
    let maps = place.pins.as_ref().unwrap().join("layout-1");
    let mut found: Vec<_> =
        entries(&maps).into_iter().filter(|(name, _)| name.starts_with("links-")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    maps.join(found.remove(0).0)
}

/// The names of the pinned links, with what tells one link from another.
fn pinned_links(place: &Place) -> Vec<(String, u64)> {
    entries(&links_directory(place))
}

fn entries(directory: &Path) -> Vec<(String, u64)> {
    use std::os::unix::fs::DirEntryExt as _;
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut entries: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.ino())).collect();
    entries.sort();
    entries
}
