//! The end of a pod.

use std::time::{Duration, Instant};

use crate::support::{COMMAND, HTTP, TestCluster, eventually, get, try_get};

fn command(arguments: &[&str], grace: u64) -> String {
    serde_json::json!({
        "terminationGracePeriodSeconds": grace,
        "containers": [{"name": "main", "image": COMMAND, "args": arguments}],
    })
    .to_string()
}

#[test]
fn a_guest_that_never_yields_starves_nobody_and_ends_when_its_pod_is_deleted() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    let spinners: Vec<String> = (0..4).map(|number| format!("spins-{number}")).collect();
    for name in &spinners {
        cluster.pod(name, &command(&["spins"], 1));
    }
    let http = serde_json::json!({"containers": [{
        "name": "main", "image": HTTP, "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }]});
    for name in &spinners {
        cluster.wait_status(name, "Running");
    }
    cluster.pod("answers", &http.to_string());
    cluster.wait_ready_pod("answers");
    let address = cluster.pod_address("answers", 8080);
    for number in 0..20 {
        assert_eq!(get(address, &format!("/{number}")), format!("hello from /{number}\n"));
    }
    let started = Instant::now();
    let mut arguments = vec!["delete", "pod", "--wait"];
    arguments.extend(spinners.iter().map(String::as_str));
    cluster.ok(&arguments);
    assert!(started.elapsed() < Duration::from_secs(60), "deletion took {:?}", started.elapsed());
    // A request that never ends does not outlive its pod either.
    let spinning = std::thread::spawn(move || try_get(address, "/spin"));
    std::thread::sleep(Duration::from_millis(300));
    cluster.ok(&["delete", "pod", "answers", "--wait", "--grace-period=1"]);
    assert!(!matches!(spinning.join().unwrap(), Ok((200, _))));
}

#[test]
fn a_deleted_pod_is_terminating_for_its_grace_and_then_gone() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod("polite", &command(&["sleeps"], 4));
    cluster.pod("slow", &command(&["sleeps"], 8));
    for name in ["polite", "slow"] {
        cluster.wait_ready_pod(name);
    }
    let started = Instant::now();
    cluster.ok(&["delete", "pod", "polite", "--wait=false"]);
    cluster.wait_status("polite", "Terminating");
    assert_eq!(cluster.pod_field("polite", ".metadata.deletionGracePeriodSeconds"), "4");
    cluster.wait_events("polite", &["Normal Killing Stopping container main"]);
    eventually("the end of the pod", || {
        let left = cluster.kubectl(&["get", "pod", "polite", "-o", "name"]);
        if left.stderr == "Error from server (NotFound): pods \"polite\" not found\n" {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    let took = started.elapsed();
    // A command cannot be asked to end: it has its whole grace, and no more than that and a little.
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(60), "{took:?}");

    cluster.ok(&["delete", "pod", "slow", "--wait=false"]);
    cluster.wait_status("slow", "Terminating");
    let forced = cluster.kubectl(&["delete", "pod", "slow", "--force", "--grace-period=0"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(forced.stdout, "pod \"slow\" force deleted\n");
    assert!(
        forced.stderr.starts_with("Warning: Immediate deletion does not wait for confirmation"),
        "{forced:?}"
    );
    let left = cluster.kubectl(&["get", "pods", "-o", "name"]);
    assert_eq!(left.stdout, "", "{left:?}");
    // The guest still has its grace, then the node ends it too, and its directory goes.
    let pods = cluster.data_dir().join("kubelet/pods");
    eventually("the end of the pods' directories", || {
        let left: Vec<_> =
            std::fs::read_dir(&pods).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
