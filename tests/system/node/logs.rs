//! `kubectl logs`.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use crate::support::{COMMAND, TestCluster, eventually};

#[test]
fn a_log_is_asked_for_by_container_time_and_size() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    cluster.pod(
        "talks",
        &serde_json::json!({"containers": [
            {"name": "left", "image": COMMAND, "args": ["logs", "2"]},
            {"name": "right", "image": COMMAND, "args": ["logs", "0"]},
        ]})
        .to_string(),
    );
    cluster.wait_ready_pod("talks");

    let by_default = cluster.kubectl(&["logs", "talks", "--tail=1"]);
    assert_eq!(by_default.stderr, "Defaulted container \"left\" out of: left, right\n");
    let unknown = cluster.kubectl(&["logs", "talks", "-c", "middle"]);
    assert_eq!(unknown.stderr, "error: container middle is not valid for pod talks\n");
    // kubectl chooses a container itself; the server does not.
    let unnamed = cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/talks/log"]);
    assert_eq!(
        unnamed.stderr,
        "Error from server (BadRequest): a container name must be specified for pod talks, choose one of: [left right]\n"
    );
    let all = cluster.ok(&["logs", "talks", "--all-containers", "--prefix"]);
    assert!(all.contains("[pod/talks/left] 000000 ") && all.contains("[pod/talks/right] 000000\n"), "{all}");

    let limited = cluster.ok(&["logs", "talks", "-c", "left", "--limit-bytes=10"]);
    assert_eq!(limited, "000000 000");
    // Kubernetes' sinceTime has whole seconds: the entries of that second and those after it are wanted.
    let (second, first) = eventually("entries of two seconds", || {
        let stamped = cluster.ok(&["logs", "talks", "-c", "left", "--timestamps"]);
        let entries: Vec<(&str, &str)> = stamped.lines().filter_map(|line| line.split_once(' ')).collect();
        let later = entries.iter().find(|(time, _)| time[..19] != entries[0].0[..19]);
        later.map(|(time, text)| (format!("{}Z", &time[..19]), (*text).to_owned())).ok_or(stamped.clone())
    });
    let since = cluster.ok(&["logs", "talks", "-c", "left", &format!("--since-time={second}")]);
    assert_eq!(since.lines().next(), Some(first.as_str()), "since {second}");
    let bad = cluster.kubectl(&[
        "get",
        "--raw",
        "/api/v1/namespaces/default/pods/talks/log?container=left&tailLines=-1",
    ]);
    assert!(
        bad.stderr.contains("tailLines: Invalid value: -1: must be greater than or equal to 0"),
        "{bad:?}"
    );
}

#[test]
fn a_followed_log_misses_no_line_when_it_is_rotated() {
    let cluster = TestCluster::start();
    cluster.load_guests();
    // 12 MB: more than a log file holds.
    let args = ["logs", "12000"];
    cluster.pod(
        "floods",
        &serde_json::json!({"containers": [{"name": "main", "image": COMMAND, "args": args}]}).to_string(),
    );
    cluster.wait_ready_pod("floods");
    let mut follower =
        cluster.kubectl_command().args(["logs", "-f", "floods"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = 0;
    let directory = cluster.data_dir();
    let mut rotated_at = None;
    // What is written after the rotation is followed for a second.
    while rotated_at.is_none_or(|at| next < at + 5) {
        let line = lines.next().unwrap_or_else(|| panic!("the log ended after {next} lines")).unwrap();
        assert_eq!(line.get(..6), Some(format!("{next:06}").as_str()), "after {next} lines");
        next += 1;
        if next > 12_000 && rotated_at.is_none() && has_rotated_log(&directory) {
            rotated_at = Some(next);
        }
        assert!(next < 12_400, "the log was not rotated within a minute");
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    // What was rotated away is still read, the lines of the new file after it.
    let tail = cluster.ok(&["logs", "floods", "--tail=100"]);
    let numbers: Vec<u32> = tail.lines().map(|line| line[..6].parse().unwrap()).collect();
    assert_eq!(numbers.len(), 100);
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    cluster.ok(&["delete", "pod", "floods", "--wait"]);
}

fn has_rotated_log(directory: &std::path::Path) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        let name = entry.file_name();
        (path.is_dir() && !path.is_symlink() && has_rotated_log(&path))
            || name.to_str().is_some_and(|name| name.starts_with("0.log."))
    })
}
