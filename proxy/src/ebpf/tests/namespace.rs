//! A test in a process of its own: in its own cgroup, network without a way out, and BPF file system.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::ebpf::{Place, mounts::Mounts, probe};

/// Says to the process in the namespaces which cgroup is its own.
const CGROUP: &str = "WHERRY_TEST_CGROUP";

/// The addresses that programs in the namespace may listen on.
const SETUP: &str = "mount -t bpf bpf /sys/fs/bpf && ip link set lo up && \
    for host in 1 2 3 4; do ip addr add 10.64.0.$host/32 dev lo; ip addr add fd00:64::$host/128 dev lo nodad; done && \
    exec \"$0\" \"$@\"";

/// Run `body`, the test of that name in this module's parent. Without the privileges that this needs it is skipped, loudly.
pub(super) fn in_namespace(name: &str, body: impl FnOnce(Place)) {
    if let Some(cgroup) = env::var_os(CGROUP).map(PathBuf::from) {
        fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        body(Place { cgroup, pins: Some(PathBuf::from("/sys/fs/bpf/wherry/test")) });
        return;
    }
    let cgroup = match own_cgroup() {
        Ok(cgroup) => cgroup,
        Err(reason) => {
            eprintln!("SKIPPED {name}: {reason}");
            return;
        }
    };
    let status = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", SETUP])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("ebpf::tests::{name}"), "--nocapture", "--test-threads=1"])
        .env(CGROUP, &cgroup)
        .status();
    // The processes in it have ended, or never started.
    fs::remove_dir(&cgroup).unwrap();
    assert!(status.unwrap().success(), "{name} failed in its namespace");
}

fn own_cgroup() -> Result<PathBuf, String> {
    let root = Mounts::read().map_err(|error| error.to_string())?.cgroup2.ok_or("no cgroup2 is mounted")?;
    let cgroup: &Path = &root.join(format!("wherry-test-{}", std::process::id()));
    fs::create_dir(cgroup).map_err(|error| format!("cannot make {}: {error}", cgroup.display()))?;
    let place = Place { cgroup: cgroup.to_owned(), pins: None };
    probe(&place).map_err(|error| {
        // Not ours any more either way.
        let _ = fs::remove_dir(cgroup);
        format!("{error:?}")
    })?;
    Ok(cgroup.to_owned())
}
