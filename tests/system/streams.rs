//! Streams into pods: exec, attach, cp, port-forward, with the real kubectl over WebSocket and over SPDY.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::{Output, TestCluster, eventually, free_port, get};

/// kubectl's two ways: WebSocket first, which is its own choice, and SPDY, which older ones have.
pub(crate) const WAYS: [&str; 2] = ["true", "false"];

/// A cluster with the pod of the sample.
fn with_debug_me() -> TestCluster {
    let cluster = TestCluster::start();
    cluster.load_sample("hello-http");
    cluster.apply_sample("debug-me");
    cluster.wait_ready_pod("debug-me");
    cluster
}

pub(crate) fn kubectl(cluster: &TestCluster, websocket: &str) -> Command {
    let mut command = cluster.kubectl_command();
    command
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket);
    command
}

pub(crate) fn run(command: &mut Command, input: &[u8]) -> (Vec<u8>, String, i32) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let typing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    typing.join().unwrap();
    (output.stdout, String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap_or(-1))
}

/// `kubectl exec -c tools debug-me` with further options and a command.
fn exec(cluster: &TestCluster, way: &str, options: &[&str], command: &[&str], input: &[u8]) -> Output {
    let mut kubectl = kubectl(cluster, way);
    kubectl.args(["exec", "debug-me", "-c", "tools"]).args(options).arg("--").args(command);
    let (stdout, stderr, code) = run(&mut kubectl, input);
    Output { stdout: String::from_utf8(stdout).unwrap(), stderr, code }
}

#[test]
fn exec_runs_the_guest_again_with_the_streams_and_the_exit_code_of_its_own() {
    let cluster = with_debug_me();
    for way in WAYS {
        let seen = exec(&cluster, way, &[], &["env"], b"");
        assert_eq!(seen.code, 0, "{seen:?}");
        assert!(seen.stdout.contains("GREETING=hello from the pod\n"), "{seen:?}");
        assert!(seen.stdout.contains("HOSTNAME=debug-me\n"), "{seen:?}");

        for code in [0, 1, 3, 137] {
            let ended = exec(&cluster, way, &[], &["exit", &code.to_string()], b"");
            assert_eq!(ended.code, code, "{ended:?}");
            let told = format!("command terminated with exit code {code}\n");
            assert_eq!(ended.stderr, if code == 0 { "" } else { &told });
        }
        let both = exec(&cluster, way, &[], &["complain"], b"");
        assert_eq!(both.stdout, "this is standard output\n");
        assert!(both.stderr.starts_with("this is standard error\n"), "{both:?}");

        let unused = exec(&cluster, way, &[], &["echo", "two  words", "$HOME", ""], b"nobody reads this");
        assert_eq!(unused.stdout, "two  words $HOME \n");
        let read = exec(&cluster, way, &["-i"], &["cat"], b"from here\nto there");
        assert_eq!((read.stdout.as_str(), read.code), ("from here\nto there", 0), "{read:?}");

        let bytes: Vec<u8> =
            (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[1]).collect();
        let mut large = kubectl(&cluster, way);
        large.args(["exec", "-i", "debug-me", "-c", "tools", "--", "cat"]);
        let (got, complaint, code) = run(&mut large, &bytes);
        assert!(got == bytes, "{} of {} bytes; {complaint}", got.len(), bytes.len());
        assert_eq!(code, 0);

        let nothing = exec(&cluster, way, &["-c", "web"], &["x"], b"");
        assert_eq!(nothing.code, 1);
        assert!(nothing.stderr.contains("has no command to run"), "{nothing:?}");
        let nowhere = exec(&cluster, way, &["-c", "nowhere"], &["x"], b"");
        assert!(nowhere.stderr.contains("container nowhere is not valid for pod debug-me"), "{nowhere:?}");
    }
}

/// `script` gives kubectl a terminal.
#[test]
fn a_terminal_edits_lines_and_takes_its_size() {
    let cluster = with_debug_me();
    for way in WAYS {
        let line = "stty cols 100 rows 40; exec kubectl exec -it debug-me -c tools -- talk";
        let mut command = kubectl(&cluster, way);
        let environment: Vec<_> =
            command.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap_or_default().to_owned())).collect();
        command = Command::new("script");
        command.envs(environment).args(["-qec", line, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut seen = String::new();
        let mut until = |text: &str| {
            let mut piece = [0; 256];
            while !seen.contains(text) {
                let length = stdout.read(&mut piece).unwrap();
                assert!(length > 0, "{text:?} did not come, only {seen:?}");
                seen.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        };
        until("what is your name?\r\n");
        stdin.write_all(b"Adx\x7fa\r").unwrap();
        until("Adx\u{8} \u{8}a\r\nhello Ada\r\n");
        stdin.write_all(b"\x04").unwrap();
        until("goodbye\r\n");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}");

        let told = exec(&cluster, way, &["-i"], &["tty"], b"");
        assert_eq!((told.stdout.as_str(), told.code), ("not a tty\n", 1));
    }
}

#[test]
fn attach_shows_what_the_container_prints_and_types_into_it() {
    let cluster = with_debug_me();
    cluster.pod(
        "talks",
        r#"{"restartPolicy": "Never", "containers": [{"name": "c", "image": "samples/debug-me:v1", "args": ["talk"], "stdin": true, "stdinOnce": true}]}"#,
    );
    cluster.wait_ready_pod("talks");
    for way in WAYS {
        let mut attached = kubectl(&cluster, way)
            .args(["attach", "debug-me", "-c", "tools"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.starts_with("debug-me: up for "), "{line}");
        }
        attached.kill().unwrap();
        attached.wait().unwrap();
    }
    let (out, complaint, code) = run(kubectl(&cluster, "true").args(["attach", "-i", "talks"]), b"Grace\n");
    assert_eq!(code, 0, "{complaint}");
    assert!(String::from_utf8_lossy(&out).ends_with("hello Grace\ngoodbye\n"), "{out:?} {complaint}");
    cluster.wait_status("talks", "Completed");
}

#[test]
fn cp_copies_files_and_trees_both_ways() {
    let cluster = with_debug_me();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("tree");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/large"), vec![b'z'; 700_001]).unwrap();
    fs::write(source.join("small"), "some text").unwrap();
    for way in WAYS {
        let copy = |from: &str, to: &str| {
            let (_, complaint, code) = run(kubectl(&cluster, way).args(["cp", "-c", "tools", from, to]), b"");
            assert_eq!(code, 0, "{from} {to}: {complaint}");
        };
        let (there, back) = (format!("/data/{way}"), directory.path().join(way));
        copy(source.to_str().unwrap(), &format!("debug-me:{there}"));
        copy(&format!("debug-me:{there}"), back.to_str().unwrap());
        assert_eq!(fs::read_to_string(back.join("small")).unwrap(), "some text");
        assert_eq!(fs::metadata(back.join("sub/large")).unwrap().len(), 700_001);
        let list = exec(&cluster, way, &[], &["ls", &there], b"");
        let mut names: Vec<&str> = list.stdout.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["small", "sub"]);
    }
}

/// A running `kubectl port-forward`; ended when dropped.
pub(crate) struct Forwarding(Child);

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Forwards ports, and what kubectl complains about meanwhile.
pub(crate) fn forwarding(
    cluster: &TestCluster,
    way: &str,
    what: &str,
    ports: &[String],
) -> (Forwarding, BufReader<std::process::ChildStderr>) {
    let mut child = kubectl(cluster, way)
        .args(["port-forward", "--address", "127.0.0.1", what])
        .args(ports)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("Forwarding from 127.0.0.1:"), "{line:?}");
    // Whoever prints must not be stopped by a closed pipe.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (Forwarding(child), stderr)
}

#[test]
fn port_forward_carries_many_connections_and_tells_of_a_closed_port() {
    let cluster = with_debug_me();
    for way in WAYS {
        let port = free_port();
        let (_forwarding, _) = forwarding(&cluster, way, "pod/debug-me", &[format!("{port}:8080")]);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        std::thread::scope(|scope| {
            for number in 0..20 {
                scope.spawn(move || {
                    let body = get(address, &format!("/{number}"));
                    assert!(body.contains(&format!("you asked for /{number}")), "{body}");
                });
            }
        });

        let port = free_port();
        let (_forwarding, mut complaints) = forwarding(&cluster, way, "pod/debug-me", &[format!("{port}:9")]);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let mut complaint = String::new();
        while !complaint.contains("connection refused") {
            assert!(complaints.read_line(&mut complaint).unwrap() > 0, "{complaint}");
        }
        assert!(complaint.contains("an error occurred forwarding"), "{complaint}");
    }
}

#[test]
fn who_may_only_read_opens_no_stream() {
    let cluster = with_debug_me();
    cluster.ok(&["create", "serviceaccount", "reader"]);
    cluster.ok(&["create", "role", "reader", "--verb=get", "--resource=pods,pods/exec,pods/portforward"]);
    cluster.ok(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"]);
    let as_reader = ["--as", "system:serviceaccount:default:reader"];
    for way in WAYS {
        let mut command = kubectl(&cluster, way);
        command.args(as_reader).args(["exec", "debug-me", "-c", "tools", "--", "env"]);
        let (_, complaint, code) = run(&mut command, b"");
        assert_eq!(code, 1);
        assert!(complaint.contains("forbidden"), "{complaint}");
    }
    cluster.ok(&["create", "role", "runner", "--verb=create", "--resource=pods/exec"]);
    cluster.ok(&["create", "rolebinding", "runner", "--role=runner", "--serviceaccount=default:reader"]);
    for way in WAYS {
        eventually("the new right", || {
            let mut command = kubectl(&cluster, way);
            command.args(as_reader).args(["exec", "debug-me", "-c", "tools", "--", "env"]);
            let (_, complaint, code) = run(&mut command, b"");
            if code == 0 { Ok(()) } else { Err(complaint) }
        });
    }
}

#[test]
fn the_nodes_own_api_is_reached_through_the_api_server() {
    let cluster = with_debug_me();
    assert_eq!(cluster.ok(&["get", "--raw", "/api/v1/nodes/test-node/proxy/healthz"]), "ok");
    let pods = cluster.ok(&["get", "--raw", "/api/v1/nodes/test-node/proxy/pods"]);
    assert!(pods.contains("debug-me"), "{pods}");
    let missing = cluster.kubectl(&["get", "--raw", "/api/v1/nodes/nowhere/proxy/pods"]);
    assert!(missing.stderr.contains(r#"nodes "nowhere" not found"#), "{missing:?}");
}

#[test]
fn exec_probes_and_hooks_run_the_guest() {
    let cluster = TestCluster::start();
    cluster.load_sample("debug-me");
    cluster.pod(
        "probed",
        r#"{"containers": [{"name": "c", "image": "samples/debug-me:v1",
            "readinessProbe": {"exec": {"command": ["test", "-d", "/data/ready"]}, "periodSeconds": 1},
            "lifecycle": {"postStart": {"exec": {"command": ["tar", "-xmf", "-", "-C", "/data"]}}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "emptyDir": {}}]}"#,
    );
    cluster.wait_events("probed", &["Warning Unhealthy Readiness probe failed"]);
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    fs::create_dir(&ready).unwrap();
    fs::write(ready.join("file"), "x").unwrap();
    cluster.ok(&["cp", ready.to_str().unwrap(), "probed:/data/ready"]);
    cluster.wait_ready_pod("probed");
}

#[test]
fn the_python_client_runs_a_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "the Python client is missing; `make test-venv` installs it");
    let cluster = with_debug_me();
    let output = Command::new(python)
        .arg(root.join("tests/system/stream_client.py"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), cluster.state());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "echoed: hello from Python\nexit code 5\nHTTP/1.1 200 OK\n"
    );
}
