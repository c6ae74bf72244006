//! Names: cluster DNS as a real resolver sees it, guests that look names up, and addresses of load balancers.

use std::net::IpAddr;
use std::process::Command;

use crate::support::{Answering, TestCluster, eventually, get};

/// A component that does with sockets what its arguments say.
const SOCKETS: &str = "test/socket:v1";

/// One answer of `dig`: the words of its status, then the data of the records in the answer section.
#[derive(Debug, PartialEq)]
struct Dug {
    status: String,
    data: Vec<String>,
    authority: String,
}

/// The real thing, from Debian's bind9-dnsutils.
fn dig(server: IpAddr, port: u16, question: &[&str]) -> Dug {
    let mut command = Command::new("dig");
    command.arg(format!("@{server}")).args(["-p", &port.to_string(), "+time=5", "+tries=2", "+noidnin"]);
    let output = command.args(question).output().expect("dig runs (package bind9-dnsutils)");
    let text = String::from_utf8(output.stdout).unwrap();
    let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
    let section = |name: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.contains(name)).skip(1);
        lines.take_while(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let mut data: Vec<String> = section("ANSWER SECTION")
        .iter()
        .map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" "))
        .collect();
    data.sort();
    Dug {
        status: status.unwrap_or("no answer").to_owned(),
        data,
        authority: section("AUTHORITY SECTION").join("\n"),
    }
}

/// Ask until the answer is there: a name follows its objects within a moment.
fn eventually_dug(server: IpAddr, port: u16, question: &[&str], expected: &[&str]) {
    eventually(&format!("{question:?}"), || {
        let dug = dig(server, port, question);
        if dug.data == expected { Ok(()) } else { Err(format!("{dug:?}")) }
    });
}

fn load_sockets(cluster: &TestCluster) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/runtimes/wasm/testdata/socket-guest.wasm");
    let output = cluster.wherry(&["image", "load", file, "--name", SOCKETS]);
    assert_eq!(output.code, 0, "{output:?}");
}

fn address(cluster: &TestCluster, service: &str, namespace: &str) -> IpAddr {
    let path = "jsonpath={.spec.clusterIP}";
    cluster.ok(&["get", "service", service, "-n", namespace, "-o", path]).parse().unwrap()
}

/// A pod that listens, as `one` of the headless Service `server`.
fn start_server(cluster: &TestCluster) {
    cluster.pod_with(
        "server",
        r#"{"labels": {"app": "server"}}"#,
        r#"{"hostname": "one", "subdomain": "server", "containers": [
            {"name": "tcp", "image": "test/socket:v1", "args": ["listen=0.0.0.0:7000"]},
            {"name": "private", "image": "test/socket:v1", "args": ["listen=127.0.0.1:7001"]},
            {"name": "udp", "image": "test/socket:v1", "args": ["datagrams=0.0.0.0:7002"]}]}"#,
    );
    for service in [
        r#"{"metadata": {"name": "server"}, "spec": {"clusterIP": "None", "selector": {"app": "server"},
            "ports": [{"name": "tcp", "port": 7000}]}}"#,
        r#"{"metadata": {"name": "echo"}, "spec": {"selector": {"app": "server"},
            "ports": [{"name": "tcp", "port": 8000, "targetPort": 7000}, {"name": "udp", "port": 8000, "targetPort": 7002, "protocol": "UDP"}]}}"#,
        r#"{"metadata": {"name": "alias"}, "spec": {"type": "ExternalName", "externalName": "echo.default.svc.cluster.local"}}"#,
    ] {
        let mut service: serde_json::Value = serde_json::from_str(service).unwrap();
        service["apiVersion"] = "v1".into();
        service["kind"] = "Service".into();
        cluster.apply(&service.to_string());
    }
    cluster.wait_ready_pod("server");
}

#[test]
fn every_name_of_the_cluster_is_answered_to_a_real_resolver() {
    let cluster = TestCluster::start();
    load_sockets(&cluster);
    start_server(&cluster);
    let dns = address(&cluster, "kube-dns", "kube-system");
    let pod = cluster.pod_address("server", 0).ip();
    let echo = address(&cluster, "echo", "default");
    let kubernetes = address(&cluster, "kubernetes", "default");
    let dashed = pod.to_string().replace('.', "-");
    let slices = cluster.ok(&[
        "get",
        "endpointslice",
        "kube-dns",
        "-n",
        "kube-system",
        "-o",
        "jsonpath={.ports[*].port}",
    ]);
    assert_eq!(slices, "10053 10053");
    let server: IpAddr = cluster
        .ok(&[
            "get",
            "endpointslice",
            "kube-dns",
            "-n",
            "kube-system",
            "-o",
            "jsonpath={.endpoints[0].addresses[0]}",
        ])
        .parse()
        .unwrap();
    // The server itself, and (as root, who may listen there) the Service that pods know.
    let mut asked = vec![(server, 10053)];
    asked.extend(nix::unistd::geteuid().is_root().then_some((dns, 53)));
    for (dns, port) in asked {
        for (question, expected) in [
            (&["kubernetes.default.svc.cluster.local"][..], vec![kubernetes.to_string()]),
            (&["+tcp", "kubernetes.default.svc.cluster.local"], vec![kubernetes.to_string()]),
            (&["KUBERNETES.Default.svc.cluster.LOCAL"], vec![kubernetes.to_string()]),
            (&["server.default.svc.cluster.local"], vec![pod.to_string()]),
            (&["one.server.default.svc.cluster.local"], vec![pod.to_string()]),
            (
                &["_tcp._tcp.server.default.svc.cluster.local", "SRV"],
                vec!["0 100 7000 one.server.default.svc.cluster.local.".to_owned()],
            ),
            (
                &["_udp._udp.echo.default.svc.cluster.local", "SRV"],
                vec!["0 100 8000 echo.default.svc.cluster.local.".to_owned()],
            ),
            (
                &["alias.default.svc.cluster.local"],
                vec![echo.to_string(), "echo.default.svc.cluster.local.".to_owned()],
            ),
            (&["-x", &echo.to_string()], vec!["echo.default.svc.cluster.local.".to_owned()]),
            (&["-x", &pod.to_string()], vec!["one.server.default.svc.cluster.local.".to_owned()]),
            (&[&format!("{dashed}.default.pod.cluster.local")], vec![pod.to_string()]),
            (&["dns-version.cluster.local", "TXT"], vec!["\"1.1.0\"".to_owned()]),
        ] {
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            eventually_dug(dns, port, question, &expected);
        }
    }
    for (question, status) in [
        (&["absent.default.svc.cluster.local"][..], "NXDOMAIN"),
        (&["kubernetes.default.svc.cluster.local", "AAAA"], "NOERROR"),
        (&["default.svc.cluster.local"], "NOERROR"),
        (&["absent.svc.cluster.local"], "NXDOMAIN"),
    ] {
        let dug = dig(server, 10053, question);
        assert_eq!((dug.status.as_str(), dug.data.len()), (status, 0), "{question:?}: {dug:?}");
        assert!(dug.authority.starts_with("cluster.local.") && dug.authority.contains("SOA"), "{dug:?}");
    }

    // Names go with what they name.
    cluster.ok(&["delete", "pod", "server", "--wait"]);
    eventually("the pod's names are gone", || {
        let dug = dig(server, 10053, &["server.default.svc.cluster.local"]);
        if dug.status == "NXDOMAIN" { Ok(()) } else { Err(format!("{dug:?}")) }
    });
    cluster.ok(&["delete", "service", "echo"]);
    eventually("the Service's name is gone", || {
        let dug = dig(server, 10053, &["alias.default.svc.cluster.local"]);
        if dug.status == "NXDOMAIN" { Ok(()) } else { Err(format!("{dug:?}")) }
    });
}

#[test]
fn guests_find_services_by_short_names_and_reach_them_and_nothing_of_the_machine() {
    let cluster = TestCluster::start();
    load_sockets(&cluster);
    cluster.load_guests();
    start_server(&cluster);
    let echo = address(&cluster, "echo", "default");
    let pod = cluster.pod_address("server", 0).ip();
    // A server of the machine itself, at all its addresses: those of Services and pods too.
    let machine = Answering::at("0.0.0.0:0".parse().unwrap(), 200);
    let port = machine.address().port();
    // In routed mode a Service's address is no address of the machine, and a guest's is.
    let exposed = if cluster.site().is_routed() { pod } else { echo };
    assert_eq!(get((exposed, port).into(), "/"), "said\n", "the test itself may reach it");

    let steps = [
        "resolve=echo".to_owned(),
        "resolve=echo.default".to_owned(),
        "resolve=alias.default.svc.cluster.local.".to_owned(),
        "resolve=one.server".to_owned(),
        "resolve=absent".to_owned(),
        "resolve=world.example.com".to_owned(),
        "connect=echo:8000".to_owned(),
        "ask=echo:8000".to_owned(),
        "connect=server:7000".to_owned(),
        "connect=server:7001".to_owned(),
        format!("connect=server:{port}"),
        format!("connect={exposed}:{port}"),
        format!("connect=127.0.0.1:{port}"),
    ];
    let args = serde_json::to_string(&steps).unwrap();
    cluster.pod(
        "client",
        &format!(r#"{{"restartPolicy": "Never", "containers": [{{"name": "c", "image": "{SOCKETS}", "args": {args}}}]}}"#),
    );
    cluster.wait_status("client", "Completed");
    let own = cluster.ok(&["get", "pod", "client", "-o", "jsonpath={.status.podIP}"]);
    let log = cluster.ok(&["logs", "client"]);
    for expected in [
        format!("resolve=echo: {echo}"),
        format!("resolve=echo.default: {echo}"),
        format!("resolve=alias.default.svc.cluster.local.: {echo}"),
        format!("resolve=one.server: {pod}"),
        "resolve=absent: error name-unresolvable".to_owned(),
        "resolve=world.example.com: error access-denied".to_owned(),
        format!("connect=echo:8000: connected to {echo}:8000, which says hello to"),
        format!("ask=echo:8000: {echo}:8000 says hello back"),
        // Straight to the pod: it sees the other pod's address.
        format!("connect=server:7000: connected to {pod}:7000, which says hello to {own} from {pod}:7000"),
        // What listens on a pod's loopback is its own.
        "connect=server:7001: error connection-refused".to_owned(),
        format!("connect=server:{port}: error connection-refused"),
        format!("connect={exposed}:{port}: error connection-refused"),
        format!("connect=127.0.0.1:{port}: error connection-refused"),
    ] {
        assert!(log.lines().any(|line| line.starts_with(&expected)), "{expected:?} is not among\n{log}");
    }

    // The same by wasi:http.
    cluster.pod(
        "function",
        r#"{"containers": [{"name": "c", "image": "test/http:v1", "ports": [{"containerPort": 8080}]}]}"#,
    );
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "labels": {"app": "other"}},
            "spec": {"runtimeClassName": "wasmtime", "containers": [
                {"name": "c", "image": "test/http:v1", "ports": [{"containerPort": 8080}]}]}}"#,
    );
    cluster.apply(
        r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other"},
            "spec": {"selector": {"app": "other"}, "ports": [{"port": 8888, "targetPort": 8080}]}}"#,
    );
    cluster.wait_ready_pod("function");
    cluster.wait_ready_pod("other");
    let function = cluster.pod_address("function", 8080);
    eventually("an answer by name", || {
        let body = get(function, "/get?other:8888/by-name");
        if body.contains("200: hello from /by-name") { Ok(()) } else { Err(body) }
    });
    let own = get(function, "/get?127.0.0.1:8080/own");
    assert!(own.contains("hello from /own"), "{own}");
    for refused in [format!("/get?{exposed}:{port}/"), format!("/get?127.0.0.1:{port}/")] {
        let body = get(function, &refused);
        assert!(body.contains("ConnectionRefused"), "{refused}: {body}");
    }
}

#[test]
fn guests_of_a_pod_share_a_loopback_that_is_nobody_elses() {
    let cluster = TestCluster::start();
    load_sockets(&cluster);
    cluster.pod(
        "shared",
        r#"{"restartPolicy": "Never", "containers": [
            {"name": "everywhere", "image": "test/socket:v1", "args": ["listen=0.0.0.0:7000"]},
            {"name": "private", "image": "test/socket:v1", "args": ["listen=127.0.0.1:7001"]},
            {"name": "datagrams", "image": "test/socket:v1", "args": ["datagrams=127.0.0.1:7002"]},
            {"name": "taken", "image": "test/socket:v1", "args": ["sleep=2", "listen=127.0.0.1:7001"]},
            {"name": "client", "image": "test/socket:v1", "args": ["sleep=2", "connect=127.0.0.1:7000",
                "connect=127.0.0.1:7001", "connect=localhost:7001", "ask=127.0.0.1:7002", "connect=127.0.0.1:7003"]}]}"#,
    );
    let ip = cluster.pod_address("shared", 0).ip();
    let logs = eventually("the client's steps", || {
        let log = cluster.kubectl(&["logs", "shared", "-c", "client"]).stdout;
        if log.contains("7003") { Ok(log) } else { Err(log) }
    });
    for expected in [
        format!("connect=127.0.0.1:7000: connected to {ip}:7000, which says hello to {ip} from {ip}:7000"),
        format!(
            "connect=127.0.0.1:7001: connected to 127.0.0.1:7001, which says hello to {ip} from 127.0.0.1:7001"
        ),
        format!(
            "connect=localhost:7001: connected to 127.0.0.1:7001, which says hello to {ip} from 127.0.0.1:7001"
        ),
        "ask=127.0.0.1:7002: 127.0.0.1:7002 says hello back".to_owned(),
        "connect=127.0.0.1:7003: error connection-refused".to_owned(),
    ] {
        assert!(logs.lines().any(|line| line == expected), "{expected:?} is not among\n{logs}");
    }
    eventually("a port that is taken", || {
        let log = cluster.kubectl(&["logs", "shared", "-c", "taken"]).stdout;
        if log.contains("listen=127.0.0.1:7001: error address-in-use") { Ok(()) } else { Err(log) }
    });
    assert!(std::net::TcpStream::connect((ip, 7001)).is_err(), "the pod's loopback is not at its address");
}

#[test]
fn load_balancers_get_addresses_of_the_range_and_give_them_back() {
    // A range with two addresses to give; nobody listens there.
    let cluster = TestCluster::start_with(&["--load-balancer-cidr", "127.99.0.8/30"]);
    let balancer = |name: &str, more: &str| {
        cluster.apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"}},
                "spec": {{"type": "LoadBalancer", "selector": {{"app": "x"}}, "ports": [{{"port": 8080}}]{more}}}}}"#
        ));
    };
    let ingress = |name: &str| {
        cluster.ok(&[
            "get",
            "service",
            name,
            "-o",
            "jsonpath={.status.loadBalancer.ingress[*].ip} {.metadata.finalizers[*]}",
        ])
    };
    let wait = |name: &str, expected: &str| {
        eventually(&format!("the address of {name}"), || {
            let found = ingress(name);
            if found.trim() == expected { Ok(()) } else { Err(found) }
        });
    };
    const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
    balancer("one", r#", "loadBalancerIP": "127.99.0.10""#);
    wait("one", &format!("127.99.0.10 {FINALIZER}"));
    balancer("two", r#", "loadBalancerClass": "wherry.dev/node""#);
    wait("two", &format!("127.99.0.9 {FINALIZER}"));
    balancer("three", "");
    balancer("foreign", r#", "loadBalancerClass": "example.com/other""#);
    cluster.wait_events(
        "three",
        &["Warning SyncLoadBalancerFailed Error syncing load balancer: --load-balancer-cidr"],
    );
    cluster.wait_events("one", &["Normal EnsuringLoadBalancer", "Normal EnsuredLoadBalancer"]);
    assert_eq!(ingress("three").trim(), "");
    assert_eq!(ingress("foreign").trim(), "");

    cluster.ok(&[
        "patch",
        "service",
        "one",
        "-p",
        r#"{"spec": {"type": "ClusterIP", "loadBalancerIP": null}}"#,
    ]);
    wait("one", "");
    cluster.ok(&["delete", "service", "two", "--wait", "--timeout=30s"]);
    wait("three", &format!("127.99.0.9 {FINALIZER}"));
}
