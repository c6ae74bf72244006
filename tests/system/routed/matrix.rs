//! Who reaches whom by what, and who does not: every way on every backend, printed as a table.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{
    BUSYBOX, HTTP, Outside, Site, TestCluster, addresses_of, missing_for_containers, try_get,
};

const PORT: u16 = 8080;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    Container,
    Wasm,
    Node,
    Outside,
}

/// By what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    ClusterIp,
    NodePort,
    Headless,
    ExternalName,
    PodIp,
}

/// Whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Container,
    Wasm,
}

const FROM: [From; 4] = [From::Container, From::Wasm, From::Node, From::Outside];

/// A request from within a container. Debian's static busybox cannot look a name up in its `wget`; in its `nslookup` it can.
const ASK: &str = r#"
host=${1%:*}
case $host in *[a-z]*)
    host=$(nslookup -type=a "$host" | sed -n '/^Name/,$s/^Address[^:]*: *//p' | head -n 1) ;;
esac
[ -n "$host" ] || { echo "$1 has no address" >&2; exit 1; }
printf 'GET /who HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" | nc -w 5 "$host" "${1##*:}" | sed '1,/^.\{0,1\}$/d'
"#;
const BY: [By; 5] = [By::ClusterIp, By::NodePort, By::Headless, By::ExternalName, By::PodIp];
const TO: [To; 2] = [To::Container, To::Wasm];

impl To {
    fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Wasm => "wasm",
        }
    }

    /// What it answers to `/who`.
    fn answer(self) -> &'static str {
        match self {
            Self::Container => "container\n",
            Self::Wasm => "hello from /who\n",
        }
    }

    fn containers(self) -> Value {
        let ports = json!([{"containerPort": PORT}]);
        let guest = json!({"name": "guest", "image": HTTP, "ports": ports});
        let serve = "mkdir /www && echo container >/www/who && exec httpd -f -p 8080 -h /www";
        let server =
            json!({"name": "server", "image": BUSYBOX, "command": ["sh", "-c", serve], "ports": ports});
        match self {
            Self::Container => json!([server]),
            Self::Wasm => json!([guest]),
        }
    }
}

/// The addresses of one server.
struct Target {
    cluster_ip: SocketAddr,
    node_port: u16,
    pod_ip: SocketAddr,
}

struct Field {
    cluster: TestCluster,
    dns: SocketAddr,
    targets: BTreeMap<To, Target>,
    wasm_client: SocketAddr,
}

impl Field {
    fn new(proxy_mode: &str) -> Self {
        let outside = Outside::new();
        let machine = outside.machine(1, Some(proxy_mode));
        let cluster = TestCluster::start_at(Site::Routed(Box::new(machine)), Some(outside), &[]);
        cluster.load_guests();
        cluster.load_busybox();
        for to in TO {
            pod(&cluster, to.name(), &to.containers());
            services(&cluster, to.name());
        }
        pod(&cluster, "container-client", &json!([{"name": "main", "image": BUSYBOX}]));
        pod(&cluster, "wasm-client", &json!([{"name": "main", "image": HTTP}]));
        for name in TO.map(To::name).into_iter().chain(["container-client", "wasm-client"]) {
            cluster.wait_ready_pod(name);
        }
        let dns = cluster.ok(&[
            "-n",
            "kube-system",
            "get",
            "service",
            "kube-dns",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ]);
        let targets = TO.map(|to| (to, target(&cluster, to.name()))).into();
        let wasm_client = cluster.pod_address("wasm-client", PORT);
        Self { dns: SocketAddr::new(dns.parse().unwrap(), 53), cluster, targets, wasm_client }
    }

    /// Whether `from` gets the right answer.
    fn cell(&self, from: From, by: By, to: To) -> Result<(), String> {
        let target = &self.targets[&to];
        let node_ip = self.cluster.node_ip();
        let name = match by {
            By::Headless => Some(format!("headless-{}.default.svc.cluster.local", to.name())),
            By::ExternalName => Some(format!("external-{}.default.svc.cluster.local", to.name())),
            _ => None,
        };
        let authority = match (by, &name) {
            (_, Some(name)) if matches!(from, From::Container | From::Wasm) => format!("{name}:{PORT}"),
            (_, Some(name)) => format!("{}:{PORT}", self.resolved(from, name)?),
            (By::NodePort, _) => format!("{node_ip}:{}", target.node_port),
            (By::PodIp, _) => target.pod_ip.to_string(),
            _ => target.cluster_ip.to_string(),
        };
        let answer = self.ask(from, &authority)?;
        if answer == to.answer() { Ok(()) } else { Err(format!("{authority} answered {answer:?}")) }
    }

    fn resolved(&self, from: From, name: &str) -> Result<Ipv4Addr, String> {
        let ask = || addresses_of(self.dns, name).map_err(|error| format!("{name}: {error}"));
        let found = match from {
            From::Outside => self.cluster.outside().namespace().within(ask)?,
            _ => ask()?,
        };
        found.first().copied().ok_or_else(|| format!("{name} has no address"))
    }

    fn ask(&self, from: From, authority: &str) -> Result<String, String> {
        let url = format!("http://{authority}/who");
        match from {
            From::Container => {
                let words = ["exec", "container-client", "--", "sh", "-c", ASK, "ask", authority];
                let output = self.cluster.kubectl(&words);
                if output.code == 0 && !output.stdout.is_empty() {
                    Ok(output.stdout)
                } else {
                    Err(output.stderr)
                }
            }
            From::Wasm => {
                let (_, body) = try_get(self.wasm_client, &format!("/get?{authority}/who"))
                    .map_err(|error| error.to_string())?;
                body.strip_prefix("200: ")
                    .and_then(|body| body.strip_suffix('\n'))
                    .map(str::to_owned)
                    .ok_or(body)
            }
            // A program of the machine: its sockets are balanced where that is the backend's way.
            From::Node => self.fetch(self.cluster.site().command(Path::new("curl")), &url),
            From::Outside => {
                let curl = std::process::Command::new("curl");
                self.cluster.outside().namespace().within(|| self.fetch(curl, &url))
            }
        }
    }

    fn fetch(&self, mut curl: std::process::Command, url: &str) -> Result<String, String> {
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "2", url]).stdin(Stdio::null());
        let output = curl.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether the cell is a way at all: from the world only node ports are reached.
fn is_open(from: From, by: By) -> bool {
    from != From::Outside || by == By::NodePort
}

fn pod(cluster: &TestCluster, name: &str, containers: &Value) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": {"app": name},
            // What a guest may reach beside Services: other pods and the node.
            "annotations": {"wherry.dev/allowed-outbound-hosts": "10.42.0.0/16,192.0.2.0/24,*.svc.cluster.local"},
        },
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 0},
    });
    cluster.apply(&pod.to_string());
}

fn services(cluster: &TestCluster, app: &str) {
    let service = |name: String, spec: Value| {
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        cluster.apply(&service.to_string());
    };
    let (selector, ports) = (json!({"app": app}), json!([{"port": PORT}]));
    service(app.to_owned(), json!({"type": "NodePort", "selector": selector, "ports": ports}));
    service(format!("headless-{app}"), json!({"clusterIP": "None", "selector": selector, "ports": ports}));
    let external = format!("{app}.default.svc.cluster.local");
    service(format!("external-{app}"), json!({"type": "ExternalName", "externalName": external}));
}

fn target(cluster: &TestCluster, name: &str) -> Target {
    let node_port = cluster.ok(&["get", "service", name, "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    Target {
        cluster_ip: cluster.service(name),
        node_port: node_port.parse().unwrap(),
        pod_ip: cluster.pod_address(name, PORT),
    }
}

/// Ask every way; print the table; fail for what is not as it should be.
fn run(proxy_mode: &str) {
    if let Some(reason) = missing_for_containers() {
        eprintln!("SKIPPED the matrix with {proxy_mode}: {reason}");
        return;
    }
    let field = Field::new(proxy_mode);
    let mut table = format!("{proxy_mode:<10}{:<12}", "from");
    for by in BY {
        let _ = write!(table, "{:<24}", format!("{by:?}"));
    }
    let mut wrong = Vec::new();
    for from in FROM {
        let _ = write!(table, "\n{:<10}{:<12}", "", format!("{from:?}"));
        for by in BY {
            let mut words = Vec::new();
            for to in TO {
                let open = is_open(from, by);
                let seen = if open {
                    // Rules and names are a moment behind the pods.
                    let mut last = Ok(());
                    for _ in 0..40 {
                        last = field.cell(from, by, to);
                        if last.is_ok() {
                            break;
                        }
                        std::thread::sleep(std::time::Duration::from_millis(100));
                    }
                    last
                } else {
                    field.cell(from, by, to)
                };
                words.push(match (&seen, open) {
                    (Ok(()), true) => "ok",
                    (Err(_), false) => "closed",
                    (Ok(()), false) => "OPEN",
                    (Err(_), true) => "FAILS",
                });
                if seen.is_ok() != open {
                    wrong.push(format!("{from:?} by {by:?} to {to:?}: {seen:?}"));
                }
            }
            let _ = write!(table, "{:<24}", words.join(" "));
        }
    }
    println!("\n{table}\n(each cell: to a container, to a Wasm guest)\n");
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), field.cluster.state());
}

#[test]
fn every_way_with_ebpf() {
    run("ebpf");
}

#[test]
fn every_way_with_nftables() {
    run("nftables");
}

#[test]
fn every_way_with_iptables() {
    run("iptables");
}
