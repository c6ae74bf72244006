//! Services, as a client on this machine sees them.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::support::{Answering, Echoing, HTTP, TestCluster, eventually, get, try_get};

/// An EndpointSlice by hand for a Service without selector.
fn slice(service: &str, protocol: &str, port: u16, addresses: &[IpAddr]) -> String {
    serde_json::json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "", "port": port, "protocol": protocol}],
        "endpoints": addresses.iter().map(|ip| serde_json::json!({"addresses": [ip]})).collect::<Vec<_>>(),
    })
    .to_string()
}

fn refused(address: SocketAddr) -> Result<(), String> {
    // A packet that is dropped instead would time out.
    match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{address}: {other:?}")),
    }
}

#[test]
fn a_client_stays_with_its_endpoint_when_the_service_asks_for_it() {
    let cluster = TestCluster::start();
    cluster.load_sample("hello-http");
    cluster.ok(&[
        "apply",
        "-f",
        crate::support::samples_folder().join("hello-http/manifest.yaml").to_str().unwrap(),
    ]);
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let service = cluster.service("hello-http");
    let who = || {
        let body = get(service, "/");
        body.split(',').next().unwrap_or_default().to_owned()
    };
    let answered = |count: usize| (0..count).map(|_| who()).collect::<BTreeSet<String>>();
    eventually("answers of all three", || {
        let seen = answered(6);
        if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    cluster.ok(&["patch", "service", "hello-http", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#]);
    eventually("answers of one only", || {
        let seen = answered(12);
        if seen.len() == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    // When its pod goes, the client has another; not one request fails meanwhile.
    let pod = who().trim_start_matches("Hello from ").to_owned();
    cluster.ok(&["delete", "pod", &pod, "--wait"]);
    assert_ne!(who(), format!("Hello from {pod}"));
    assert_eq!(answered(6).len(), 1);
    cluster.ok(&["patch", "service", "hello-http", "-p", r#"{"spec":{"sessionAffinity":"None"}}"#]);
    eventually("answers of all three again", || {
        let seen = answered(6);
        if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn udp_reaches_endpoints_that_were_written_by_hand() {
    let cluster = TestCluster::start();
    let (first, second) = (cluster.spare(1), cluster.spare(2));
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"},
            "spec": {"ports": [{"port": 5353, "targetPort": 5300, "protocol": "UDP"}]}}"#,
    );
    cluster.apply(&slice("echo", "UDP", 5300, &[first, second]));
    let _servers = [Echoing::at(SocketAddr::new(first, 5300)), Echoing::at(SocketAddr::new(second, 5300))];
    let service = cluster.service("echo");
    let ask = |socket: &UdpSocket, text: &str| -> Result<String, String> {
        socket.send_to(text.as_bytes(), service).map_err(|error| error.to_string())?;
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).map_err(|error| error.to_string())?;
        assert_eq!(from, service, "the answer comes from the Service's address");
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let socket = || {
        let socket = UdpSocket::bind(SocketAddr::new(cluster.spare(3), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket
    };
    let client = socket();
    let first_answer = eventually("an answer", || ask(&client, "one"));
    // A client's datagrams go to the same endpoint; another client has the next one.
    for _ in 0..5 {
        assert_eq!(ask(&client, "one").as_ref(), Ok(&first_answer));
    }
    let other = ask(&socket(), "one").unwrap();
    assert_ne!(first_answer, other);
    for answer in [first_answer, other] {
        assert!(
            answer == format!("{first}:5300: one") || answer == format!("{second}:5300: one"),
            "{answer}"
        );
    }
}

#[test]
fn a_node_port_answers_at_the_nodes_address() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod_with(
        "behind",
        r#"{"labels": {"app": "behind"}}"#,
        &serde_json::json!({"containers": [{"name": "main", "image": HTTP, "ports": [{"containerPort": 8080}]}]}).to_string(),
    );
    cluster.wait_ready_pod("behind");
    cluster.ok(&["expose", "pod", "behind", "--type=NodePort", "--port=8080"]);
    let port: u16 = cluster
        .ok(&["get", "service", "behind", "-o", "jsonpath={.spec.ports[0].nodePort}"])
        .parse()
        .unwrap();
    assert!((30_000..=32_767).contains(&port), "{port}");
    let address = SocketAddr::new(cluster.node_ip(), port);
    eventually("an answer at the node port", || {
        let answer = try_get(address, "/x").map_err(|error| error.to_string())?;
        if answer == (200, "hello from /x\n".to_owned()) { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(get(cluster.service("behind"), "/y"), "hello from /y\n");
    cluster.ok(&["patch", "service", "behind", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]);
    eventually("the end of the node port", || refused(address));
    assert_eq!(get(cluster.service("behind"), "/z"), "hello from /z\n");
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_others_are_not_listened_on() {
    let cluster = TestCluster::start();
    let endpoint = cluster.spare(4);
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "manual"}, "spec": {"ports": [{"port": 8080, "targetPort": 7000}]}}"#,
    );
    let service = cluster.service("manual");
    refused(service).unwrap();
    let _server = Answering::at(SocketAddr::new(endpoint, 7000), 200);
    cluster.apply(&slice("manual", "TCP", 7000, &[endpoint]));
    eventually("an answer", || match try_get(service, "/") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.ok(&["delete", "endpointslice", "manual-1"]);
    eventually("refusal", || refused(service));

    // The same slice under Services that have no address of their own.
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 7001, "targetPort": 7000}]}}"#,
    );
    cluster.apply(&slice("headless", "TCP", 7000, &[endpoint]));
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "elsewhere"},
            "spec": {"type": "ExternalName", "externalName": "elsewhere.example", "ports": [{"port": 7001}]}}"#,
    );
    cluster.apply(&slice("elsewhere", "TCP", 7000, &[endpoint]));
    let table = cluster.ok(&["get", "services", "--no-headers"]);
    let row = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().take(5).map(str::to_owned).collect()
    };
    assert_eq!(row("headless"), ["headless", "ClusterIP", "None", "<none>", "7001/TCP"], "{table}");
    assert_eq!(
        row("elsewhere"),
        ["elsewhere", "ExternalName", "<none>", "elsewhere.example", "7001/TCP"],
        "{table}"
    );
    // Something that does get listened on tells that the proxy has seen the others.
    cluster.apply(&slice("manual", "TCP", 7000, &[endpoint]));
    eventually("an answer again", || match try_get(service, "/") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for host in [service.ip(), endpoint, IpAddr::from([127, 0, 0, 1]), cluster.node_ip()] {
        refused(SocketAddr::new(host, 7001)).unwrap();
    }
    let log = cluster.log();
    assert!(!log.contains("cannot listen on"), "{log}");
}
