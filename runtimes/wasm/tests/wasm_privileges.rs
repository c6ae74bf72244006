//! Giving up privileges, tried in a process of its own.

#![allow(clippy::print_stdout, reason = "the child tells its parent what it found")]

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use wherry_runtime_wasm::privileges::{Options, drop_privileges};

/// The child of the test below, which is this very program.
#[test]
#[ignore = "changes the user of its process; the other test starts it"]
fn child_gives_up_its_privileges() {
    let root = std::env::var("PRIVILEGES_ROOT").unwrap();
    let options = Options::new(format!("{root}/data"), format!("{root}/run"));
    let dropped = drop_privileges(&options).unwrap();
    println!("dropped: {dropped:?}");
    println!("{}", std::fs::read_to_string("/proc/thread-self/status").unwrap());
    println!("secret readable: {}", std::fs::read(format!("{root}/secret")).is_ok());
    println!("data writable: {}", std::fs::write(format!("{root}/data/new"), "").is_ok());
    println!("socket: {}", std::os::unix::net::UnixListener::bind(format!("{root}/run/cri.sock")).is_ok());
    println!("low port: {}", std::net::TcpListener::bind("127.73.0.1:80").is_ok());
    println!("root again: {}", nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_ok());
}

#[test]
fn root_becomes_nobody_with_one_capability_and_others_stay_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(root.join("data/images")).unwrap();
    std::fs::write(root.join("data/images/index.json"), "{}").unwrap();
    std::fs::write(root.join("secret"), "").unwrap();
    // What the user may have left there: a link out, a second name, and a tree deeper than a path can be.
    std::os::unix::fs::symlink(root.join("secret"), root.join("data/link")).unwrap();
    std::fs::hard_link(root.join("secret"), root.join("data/second")).unwrap();
    std::fs::create_dir_all(root.join("data").join("d/".repeat(1000))).unwrap();
    std::fs::set_permissions(root.join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_gives_up_its_privileges", "--ignored", "--nocapture"])
        .env("PRIVILEGES_ROOT", root)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!(value("NoNewPrivs"), "1");
    assert_eq!(value("data writable"), "true");
    assert_eq!(value("socket"), "true");
    if nix::unistd::geteuid().is_root() {
        assert_eq!(value("Uid"), "65532\t65532\t65532\t65532");
        assert_eq!(value("Gid"), "65532\t65532\t65532\t65532");
        assert_eq!(value("Groups"), "");
        assert_eq!(value("secret readable"), "false");
        assert_eq!(value("root again"), "false");
        // CAP_NET_BIND_SERVICE is number 10; where root has not even that, nothing is left.
        let kept = if value("low port") == "true" { "0000000000000400" } else { "0000000000000000" };
        for set in ["CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(value(set), kept, "{set}");
        }
        assert_eq!(std::fs::metadata(root.join("data/images/index.json")).unwrap().uid(), 65532);
        assert_eq!(std::fs::metadata(root.join("secret")).unwrap().uid(), 0);
    }
}
