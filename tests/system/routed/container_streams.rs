//! Streams into Linux containers: kubectl, the API server, the kubelet, and the real containerd's streaming server.

use std::{fs, io::Read as _, io::Write as _, net::SocketAddr, process::Command, process::Stdio};

use crate::{
    streams::{WAYS, forwarding, kubectl, run},
    support::{BUSYBOX, Outside, Site, TestCluster, free_port, get, missing_for_containers},
};

/// A machine with a container that has all of busybox, serves a page and says something every second.
fn with_box(test: &str) -> Option<TestCluster> {
    if let Some(why) = missing_for_containers() {
        eprintln!("SKIPPED {test}: {why}");
        return None;
    }
    let outside = Outside::new();
    let machine = outside.machine(1, None);
    let cluster = TestCluster::start_at(Site::Routed(Box::new(machine)), Some(outside), &[]);
    cluster.load_busybox();
    let script = "busybox --install -s /bin; mkdir /www; echo page >/www/index.html; httpd -p 8080 -h /www; \
        while true; do echo still here; sleep 1; done";
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
             "env": [{"name": "GREETING", "value": "hello"}]},
        ]},
    });
    cluster.apply(&pod.to_string());
    cluster.wait_ready_pod("box");
    Some(cluster)
}

#[test]
fn containers_are_run_in_attached_to_copied_from_and_forwarded_to() {
    let Some(cluster) = with_box("streams into containers") else { return };
    for way in WAYS {
        let exec = |options: &[&str], command: &[&str], input: &[u8]| {
            let mut exec = kubectl(&cluster, way);
            exec.args(["exec", "box"]).args(options).arg("--").args(command);
            let (stdout, stderr, code) = run(&mut exec, input);
            (stdout, stderr, code)
        };
        let (out, err, code) = exec(&[], &["sh", "-c", "echo $GREETING; echo aside >&2; exit 42"], b"");
        assert_eq!((out.as_slice(), code), (&b"hello\n"[..], 42), "{err}");
        assert_eq!(err, "aside\ncommand terminated with exit code 42\n");
        let bytes: Vec<u8> =
            (0..2_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[1]).collect();
        let (got, err, code) = exec(&["-i"], &["cat"], &bytes);
        assert!(got == bytes && code == 0, "{way}: {} of {} bytes: {err}", got.len(), bytes.len());
        let (_, err, code) = exec(&[], &["no-such-program"], b"");
        assert_ne!(code, 0);
        assert!(err.contains("no-such-program"), "{err}");

        let terminal = "stty cols 101 rows 41; exec kubectl exec -it box -- sh -c 'sleep 1; stty size; read x; echo got $x'";
        let mut script = Command::new("script");
        script.envs(kubectl(&cluster, way).get_envs().filter_map(|(key, value)| Some((key, value?))));
        script.args(["-qec", terminal, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        let (mut stdin, mut stdout) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        let mut seen = String::new();
        let mut until = |text: &str| {
            let mut piece = [0; 256];
            while !seen.contains(text) {
                let length = stdout.read(&mut piece).unwrap();
                assert!(length > 0, "{text:?} did not come, only {seen:?}");
                seen.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        };
        until("41 101\r\n");
        stdin.write_all(b"that\r").unwrap();
        until("got that\r\n");
        assert!(script.wait().unwrap().success());

        let mut attach =
            kubectl(&cluster, way).args(["attach", "box"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut seen = [0; 22];
        attach.stdout.take().unwrap().read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"still here\nstill here\n");
        attach.kill().unwrap();
        attach.wait().unwrap();

        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::write(&source, &bytes).unwrap();
        let back = directory.path().join("back");
        for (from, to) in
            [(source.to_str().unwrap(), "box:/www/copied"), ("box:/www/copied", back.to_str().unwrap())]
        {
            let (_, err, code) = run(kubectl(&cluster, way).args(["cp", from, to]), b"");
            assert_eq!(code, 0, "{from} {to}: {err}");
        }
        assert!(fs::read(&back).unwrap() == bytes);

        let port = free_port();
        let (_forwarding, _) = forwarding(&cluster, way, "pod/box", &[format!("{port}:8080")]);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..10 {
            assert_eq!(get(address, "/index.html"), "page\n");
        }
    }
    let logs = cluster.ok(&["logs", "box", "--tail=1"]);
    assert_eq!(logs, "still here\n");
}
