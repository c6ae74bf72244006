//! Command guests: what they see, what they may use, how they end.

use std::time::{Duration, Instant};

use wherry_runtimes::{
    ContainerConfig, ContainerState, Error, KeyValue, LinuxContainerConfig, LinuxContainerResources, Mount,
    RuntimeService,
};

use super::fixture::{Fixture, command, config, container, eventually, with_memory};

#[tokio::test]
async fn a_guest_sees_its_arguments_its_environment_and_no_input() {
    let fixture = Fixture::start("127.70.3.0/24").await;
    let (status, log) = fixture.run(&["shows", "two words"]).await;
    assert_eq!(status.exit_code, 0);
    assert_eq!(
        log,
        ["stdout F arg 0: main", "stdout F arg 1: shows", "stdout F arg 2: two words", "stdout F stdin: 0"]
    );
    let pod = fixture.pod(&[]).await;
    let config = ContainerConfig {
        args: vec!["shows".to_owned()],
        envs: vec![KeyValue { key: "FROM_POD".to_owned(), value: "a=b".to_owned() }],
        ..container("guest:prints")
    };
    let id = fixture.start_container(&pod, config).await;
    let log = fixture.log(&fixture.ended(&id).await);
    assert!(log.contains(&"stdout F arg 0: /app/guest.wasm".to_owned()), "{log:?}");
    assert!(log.contains(&"stdout F env: FROM_POD=a=b".to_owned()), "{log:?}");
    assert!(log.contains(&"stdout F env: FROM_IMAGE=yes".to_owned()), "{log:?}");
}

#[tokio::test]
async fn mounts_are_all_of_the_disk_that_a_guest_sees() {
    let fixture = Fixture::start("127.70.4.0/24").await;
    let volume = fixture.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("key"), "value").unwrap();
    std::fs::write(fixture.dir.path().join("secret"), "not yours").unwrap();
    std::os::unix::fs::symlink("../secret", volume.join("escape")).unwrap();
    let termination = fixture.dir.path().join("termination-log");
    std::fs::write(&termination, "").unwrap();
    let mounts = |readonly| {
        vec![
            Mount {
                container_path: "/data".to_owned(),
                host_path: volume.display().to_string(),
                readonly,
                ..Default::default()
            },
            Mount {
                container_path: "/dev/termination-log".to_owned(),
                host_path: termination.display().to_string(),
                ..Default::default()
            },
        ]
    };
    for (args, readonly, code) in [
        (vec!["reads", "/data/key"], true, 0),
        (vec!["reads", "/data/escape"], true, 1),
        (vec!["reads", "/data/../secret"], true, 1),
        (vec!["reads", "/etc/passwd"], true, 1),
        (vec!["writes", "/data/new", "x"], true, 1),
        (vec!["writes", "/data/new", "x"], false, 0),
        (vec!["writes", "/dev/termination-log", "it was me"], true, 0),
    ] {
        let pod = fixture.pod(&[]).await;
        let config = ContainerConfig { mounts: mounts(readonly), ..command(&args) };
        let id = fixture.start_container(&pod, config).await;
        let status = fixture.ended(&id).await;
        assert_eq!(status.exit_code, code, "{args:?} readonly={readonly}: {:?}", fixture.log(&status));
    }
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "x");
    assert_eq!(std::fs::read_to_string(&termination).unwrap(), "it was me");
}

#[tokio::test]
async fn the_way_a_guest_ends_is_reported() {
    let fixture = Fixture::start("127.70.5.0/24").await;
    for (args, code, reason, message) in [
        (vec!["exits", "0"], 0, "Completed", ""),
        (vec!["exits", "42"], 42, "Error", ""),
        (vec!["exits", "137"], 137, "Error", ""),
        (vec!["traps"], 134, "Error", "wasm `unreachable` instruction executed"),
        (vec!["recurses"], 134, "Error", ""),
    ] {
        let (status, _) = fixture.run(&args).await;
        assert_eq!(
            (status.exit_code, status.reason.as_str()),
            (code, reason),
            "{args:?}: {}",
            status.message
        );
        assert!(status.message.contains(message), "{}", status.message);
        assert!(status.message.len() <= 4096);
    }
}

#[tokio::test]
async fn memory_beyond_the_limit_kills_with_the_reason() {
    let fixture = Fixture::start("127.70.6.0/24").await;
    let pod = fixture.pod(&[]).await;
    let id = fixture.start_container(&pod, with_memory(command(&["grows", "64"]), 32)).await;
    let status = fixture.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{}", status.message);
    assert_eq!(
        fixture.runtime.container_stats(&id).await.unwrap().memory.unwrap().working_set_bytes,
        Some(0)
    );
    let pod = fixture.pod(&[]).await;
    let id = fixture.start_container(&pod, with_memory(command(&["grows-and-sleeps", "16"]), 32)).await;
    eventually("it has grown", || async {
        let stats = fixture.runtime.container_stats(&id).await.unwrap();
        stats.memory.unwrap().working_set_bytes.unwrap() > 16 << 20
    })
    .await;
    assert_eq!(fixture.runtime.container_status(&id).await.unwrap().state, ContainerState::Running);
}

#[tokio::test]
async fn guests_that_never_yield_leave_the_others_their_turn_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path(), "127.70.7.0/24");
    settings.guest_threads = Some(1);
    let fixture = Fixture::start_with(dir, settings).await;
    let mut spinning = Vec::new();
    for _ in 0..4 {
        let pod = fixture.pod(&[]).await;
        spinning.push(fixture.start_container(&pod, command(&["spins"])).await);
    }
    let (status, log) = fixture.run(&["prints"]).await;
    assert_eq!((status.exit_code, log.len()), (0, 2));
    for id in &spinning {
        let began = Instant::now();
        fixture.runtime.stop_container(id, Duration::from_millis(50)).await.unwrap();
        let status = fixture.runtime.container_status(id).await.unwrap();
        assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 137));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_quota_holds_a_guest_to_its_part_of_the_processor() {
    let fixture = Fixture::start("127.70.8.0/24").await;
    let pod = fixture.pod(&[]).await;
    let resources = LinuxContainerResources { cpu_quota: 20_000, cpu_period: 100_000, ..Default::default() };
    let linux = LinuxContainerConfig { resources: Some(resources), ..Default::default() };
    let config = ContainerConfig { linux: Some(linux), ..command(&["spins"]) };
    let id = fixture.start_container(&pod, config).await;
    let used = || async {
        let stats = fixture.runtime.container_stats(&id).await.unwrap();
        stats.cpu.unwrap().usage_core_nano_seconds.unwrap()
    };
    let (before, began) = (used().await, Instant::now());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let part = (used().await - before) as f64 / began.elapsed().as_nanos() as f64;
    assert!((0.05..0.5).contains(&part), "it used {part} of a core, with a quota of 0.2");
}

#[tokio::test]
async fn long_lines_are_cut_and_rotation_goes_on_in_a_new_file() {
    let fixture = Fixture::start("127.70.9.0/24").await;
    let (_, log) = fixture.run(&["floods"]).await;
    let tags: Vec<&str> = log.iter().map(|line| &line[..8]).collect();
    assert_eq!(tags, ["stdout P", "stdout F"].repeat(3));
}

#[tokio::test]
async fn what_cannot_run_is_refused_when_it_is_created() {
    let fixture = Fixture::start("127.70.10.0/24").await;
    let pod = fixture.pod(&[]).await;
    let load = |name: &str, bytes: &[u8]| {
        let path = fixture.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        fixture.runtime.images().load(&path, Some(name)).unwrap();
    };
    // An empty module, an empty component, and a module cut off in its header's first section.
    load("nothing", b"\0asm\x01\0\0\0");
    load("component", b"\0asm\x0d\0\x01\0");
    load("broken", b"\0asm\x01\0\0\0\x01\x7f");
    for (image, why) in
        [("nothing", "exports none"), ("component", "exports none"), ("broken", "cannot compile")]
    {
        let refused = fixture.runtime.create_container(&pod.id, &container(image), &pod.config).await;
        assert!(matches!(&refused, Err(Error::InvalidArgument(text)) if text.contains(why)), "{refused:?}");
    }
    let refused = fixture.try_pod(&[("wherry.dev/allowed-outbound-hosts", "http://x/")]).await;
    assert!(matches!(refused.err(), Some(Error::InvalidArgument(_))));
}
