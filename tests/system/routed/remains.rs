//! What is left on a machine.

use super::is_possible;
use crate::support::{Outside, Site, TestCluster, eventually, get};

/// Routes and devices of ours.
fn of_ours(cluster: &TestCluster) -> String {
    let namespace = cluster.site().machine().unwrap().namespace();
    let all = ["route show table all proto 87", "route show table all proto 88", "-brief link"]
        .map(|what| namespace.ip(what));
    all.concat()
        .lines()
        .filter(|line| !line.starts_with("lo ") && !line.starts_with("eth0@"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_kill_leaves_guests_that_answer_and_a_reset_leaves_nothing() {
    if !is_possible("a reset leaves nothing") {
        return;
    }
    let outside = Outside::new();
    let machine = outside.machine(1, None);
    let mut cluster = TestCluster::start_at(Site::Routed(Box::new(machine)), Some(outside), &[]);
    cluster.apply_sample("hello-http");
    cluster.ok(&["rollout", "status", "deployment/hello-http", "--timeout=60s"]);
    let pod = cluster.ok(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    let address = cluster.pod_address(&pod, 8080);
    let before = of_ours(&cluster);
    assert!(before.contains("local 10.42.0.128/25"), "{before}");

    cluster.kill();
    assert!(get(address, "/").contains(&pod), "guests go on");
    // A route of a node that there was once.
    let namespace = cluster.site().machine().unwrap().namespace();
    namespace.ip("route add 10.42.9.0/24 via 192.0.2.9 proto 88");
    cluster.start_again();
    eventually("the end of the old route", || {
        let now = of_ours(&cluster);
        if now == before { Ok(()) } else { Err(now) }
    });
    assert!(get(address, "/").contains(&pod), "and are adopted");
    // Somebody took a route away: it is made again at the latest with the next start.
    let namespace = cluster.site().machine().unwrap().namespace();
    namespace.ip("route del local 10.42.0.128/25 table local");
    cluster.kill();
    cluster.start_again();
    eventually("the route", || {
        let now = of_ours(&cluster);
        if now == before { Ok(()) } else { Err(now) }
    });

    let refused = cluster.wherry(&["reset"]);
    assert!(refused.stderr.contains("is in use by process"), "{refused:?}");
    cluster.kill();
    assert!(!cluster.site().machine().unwrap().processes().is_empty(), "the guests' process");
    let reset = cluster.wherry(&["reset", "--forget"]);
    assert_eq!(reset.code, 0, "{reset:?}");
    assert_eq!(cluster.site().machine().unwrap().processes(), [0_i32; 0], "{reset:?}");
    assert_eq!(of_ours(&cluster), "");
    assert!(!cluster.data_dir().exists());
}
