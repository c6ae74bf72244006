use super::host::Binding;
use super::*;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;

fn network(allowed: &str, own_ip: Option<&str>) -> PodNetwork {
    let config = Config { node_ip: "127.0.0.1".parse().unwrap(), ..Config::new("/nonexistent") };
    let mut sandbox = PodSandboxConfig::default();
    sandbox.annotations.insert(ALLOWED_HOSTS.to_owned(), allowed.to_owned());
    let ip = own_ip.unwrap_or("127.0.0.1").parse().unwrap();
    PodNetwork::new(&config, &sandbox, ip, own_ip.is_some(), Some("127.64.0.0/24".parse().unwrap())).unwrap()
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

#[test]
fn whatever_a_guest_binds_is_at_the_pods_address() {
    let plain = network("", Some("127.64.0.5"));
    let open = network("example.com", Some("127.64.0.5"));
    let loopback = |port| Binding::Loopback { at: at("127.64.0.5:0"), port };
    for (network, transport, asked, expected) in [
        (&plain, Transport::Tcp, "0.0.0.0:80", Binding::At(at("127.64.0.5:80"))),
        (&plain, Transport::Tcp, "127.64.0.5:80", Binding::At(at("127.64.0.5:80"))),
        (&plain, Transport::Tcp, "127.0.0.1:80", loopback(80)),
        (&plain, Transport::Udp, "127.0.0.1:0", loopback(0)),
        (&plain, Transport::Udp, "0.0.0.0:0", Binding::At(at("127.64.0.5:0"))),
        // It has somewhere to go outside of the machine, where an address of 127.0.0.0/8 does not lead.
        (&open, Transport::Udp, "0.0.0.0:0", Binding::At(at("0.0.0.0:0"))),
        (&open, Transport::Udp, "0.0.0.0:53", Binding::At(at("127.64.0.5:53"))),
        // Others are as they are; the check of addresses refuses them.
        (&plain, Transport::Tcp, "127.64.0.6:80", Binding::At(at("127.64.0.6:80"))),
        (&plain, Transport::Tcp, "[::]:80", Binding::At(at("[::]:80"))),
    ] {
        assert_eq!(network.binding(transport, at(asked)).unwrap(), expected, "{transport:?} {asked}");
    }
    let held = plain.hold(Transport::Tcp, 80, at("127.64.0.5:40000")).unwrap();
    for asked in ["127.0.0.1:80", "0.0.0.0:80"] {
        assert_eq!(plain.binding(Transport::Tcp, at(asked)), Err(ErrorCode::AddressInUse), "{asked}");
    }
    drop(held);
    assert!(plain.binding(Transport::Tcp, at("127.0.0.1:80")).is_ok());
}

#[test]
fn a_guests_loopback_leads_to_its_own_pod() {
    let network = network("", Some("127.64.0.5"));
    assert_eq!(network.real(Transport::Tcp, at("127.0.0.1:80")), at("127.64.0.5:80"));
    let held = network.hold(Transport::Tcp, 80, at("127.64.0.5:40000")).unwrap();
    assert_eq!(network.real(Transport::Tcp, at("127.0.0.1:80")), at("127.64.0.5:40000"));
    assert_eq!(network.real(Transport::Udp, at("127.0.0.1:80")), at("127.64.0.5:80"));
    assert_eq!(network.shown(Transport::Tcp, at("127.64.0.5:40000")), at("127.0.0.1:80"));
    drop(held);
    assert_eq!(network.shown(Transport::Tcp, at("127.64.0.5:40000")), at("127.64.0.5:40000"));
    assert_eq!(network.real(Transport::Tcp, at("127.96.0.1:443")), at("127.96.0.1:443"));
    // A pod of the host network has no loopback of its own, and the machine's is none of its business.
    let on_host = self::network("", None);
    assert_eq!(on_host.real(Transport::Tcp, at("127.0.0.1:6443")), at("127.0.0.1:6443"));
    assert_eq!(on_host.right(at("127.0.0.1:6443")), Right::Denied);
}

#[test]
fn sockets_listen_on_the_pod_address_only() {
    let network = network("db.example.com:5432", Some("127.64.0.5"));
    for (usage, address, expected) in [
        (SocketAddrUse::TcpBind, "0.0.0.0:0", Right::Granted),
        (SocketAddrUse::TcpBind, "0.0.0.0:8080", Right::Denied),
        (SocketAddrUse::TcpBind, "127.0.0.1:8080", Right::Denied),
        (SocketAddrUse::TcpBind, "127.64.0.5:8080", Right::Granted),
        (SocketAddrUse::TcpListen, "0.0.0.0:0", Right::Denied),
        (SocketAddrUse::TcpListen, "127.64.0.5:8080", Right::Granted),
        (SocketAddrUse::UdpBind, "127.64.0.6:53", Right::Denied),
        (SocketAddrUse::TcpConnect, "127.96.0.1:443", Right::Granted),
        (SocketAddrUse::TcpConnect, "127.64.0.6:80", Right::Denied),
        (SocketAddrUse::TcpConnect, "93.184.216.34:5432", Right::IfNamed(vec!["db.example.com".to_owned()])),
        (SocketAddrUse::TcpConnect, "93.184.216.34:80", Right::Denied),
        (SocketAddrUse::UdpSend, "127.0.0.1:5432", Right::Denied),
    ] {
        assert_eq!(network.socket_use(at(address), usage), expected, "{usage:?} {address}");
    }
}

#[test]
fn an_address_is_reached_by_right_of_the_name_that_led_there() {
    let network = network("*.example.com:443", Some("127.64.0.5"));
    let (pod, outside) = ("127.64.0.9".parse().unwrap(), "93.184.216.34".parse().unwrap());
    assert_eq!(network.right(at("127.64.0.9:80")), Right::Denied);
    network.leads.note(&["db.ns.svc.cluster.local".to_owned()], &[pod], Instant::now());
    assert_eq!(network.right(at("127.64.0.9:80")), Right::Granted);
    assert_eq!(network.right(at("93.184.216.34:443")), Right::Denied);
    network.leads.note(
        &["a.example.com".to_owned()],
        &[outside, "127.0.0.1".parse().unwrap()],
        Instant::now(),
    );
    assert_eq!(network.right(at("93.184.216.34:443")), Right::Granted);
    assert_eq!(network.right(at("93.184.216.34:80")), Right::Denied);
    assert_eq!(network.right(at("127.0.0.1:443")), Right::Denied);
}

#[tokio::test]
async fn who_listens_at_all_addresses_of_the_machine_is_not_reached_at_a_services_or_a_pods() {
    let network = network("127.64.0.0/16", Some("127.64.0.5"));
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    for host in ["127.96.0.77", "127.64.0.5", "127.64.0.77"] {
        let refused = network.connect(host, port).await.unwrap_err();
        assert!(
            matches!(&refused, DialError::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused),
            "{host}: {refused:?}"
        );
    }
    let service = std::net::TcpListener::bind("127.96.0.77:0").unwrap();
    let stream = network.connect("127.96.0.77", service.local_addr().unwrap().port()).await.unwrap();
    // The pod's address is what the other side sees.
    assert_eq!(stream.local_addr().unwrap().ip(), network.listen_ip());
    let own = std::net::TcpListener::bind("127.64.0.5:0").unwrap();
    network.connect("localhost", own.local_addr().unwrap().port()).await.unwrap();
}
