//! What every runtime must do, as one list of checks that each implementation runs.
//!
//! A check is given a runtime and three images whose behaviour it knows, makes sandboxes of its own, and panics with the
//! promise that was broken. Checks can share one runtime and run in any order. Waiting is on events, with a limit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;

use crate::{
    ContainerConfig, ContainerEventType, ContainerFilter, ContainerMetadata, ContainerState,
    ContainerStatsFilter, ContainerStatus, Error, EventStream, ImageSpec, LinuxContainerConfig,
    LinuxContainerResources, NetworkConfig, PodSandboxConfig, PodSandboxFilter, PodSandboxMetadata,
    PodSandboxState, PodSandboxStatsFilter, Runtime, RuntimeConfig,
};

/// Longest wait for anything; far above what any runtime needs, so only a fault reaches it.
const LIMIT: Duration = Duration::from_secs(30);

/// A runtime under test, and images whose guests do known things.
pub struct Subject {
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The handler to ask for.
    pub handler: String,
    /// Prints `hello` to standard output and `oops` to standard error, and exits with 0.
    pub prints: String,
    /// Exits with 3.
    pub fails: String,
    /// Runs until it is stopped.
    pub sleeps: String,
    /// The node's range, told to the runtime.
    pub pod_cidr: String,
    /// Where logs go.
    pub log_directory: PathBuf,
    next: AtomicU32,
}

impl Subject {
    /// A subject; `images` are those that print, fail and sleep.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        handler: &str,
        images: [&str; 3],
        pod_cidr: &str,
        log_directory: PathBuf,
    ) -> Self {
        let [prints, fails, sleeps] = images.map(str::to_owned);
        Self {
            runtime,
            handler: handler.to_owned(),
            prints,
            fails,
            sleeps,
            pod_cidr: pod_cidr.to_owned(),
            log_directory,
            next: AtomicU32::new(0),
        }
    }

    fn sandbox_config(&self) -> PodSandboxConfig {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let uid = format!("suite-{}-{number}", std::process::id());
        PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: format!("pod-{number}"),
                uid: uid.clone(),
                namespace: "suite".to_owned(),
                attempt: 0,
            },
            log_directory: self.log_directory.join(&uid).display().to_string(),
            labels: [("uid".to_owned(), uid)].into(),
            annotations: [("note".to_owned(), "kept as it is".to_owned())].into(),
            ..Default::default()
        }
    }

    async fn run_sandbox(&self) -> (String, PodSandboxConfig) {
        let config = self.sandbox_config();
        let id = self.runtime.run_pod_sandbox(&config, &self.handler).await.expect("a sandbox runs");
        (id, config)
    }

    async fn create(&self, sandbox: &(String, PodSandboxConfig), image: &str, attempt: u32) -> String {
        let config = container_config(image, attempt);
        self.runtime.create_container(&sandbox.0, &config, &sandbox.1).await.expect("a container is created")
    }

    async fn status(&self, id: &str) -> ContainerStatus {
        self.runtime.container_status(id).await.expect("a container has a status")
    }

    async fn wait_exited(&self, events: &mut EventStream, id: &str) -> ContainerStatus {
        tokio::time::timeout(LIMIT, async {
            loop {
                let status = self.status(id).await;
                if status.state == ContainerState::Exited {
                    return status;
                }
                events.next().await.expect("events go on").ok();
            }
        })
        .await
        .expect("the container ends in time")
    }

    async fn remove(&self, sandbox: &(String, PodSandboxConfig)) {
        self.runtime.stop_pod_sandbox(&sandbox.0).await.expect("a sandbox stops");
        self.runtime.remove_pod_sandbox(&sandbox.0).await.expect("a sandbox is removed");
    }
}

fn container_config(image: &str, attempt: u32) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: "main".to_owned(), attempt },
        image: ImageSpec { image: image.to_owned(), ..Default::default() },
        labels: [("container".to_owned(), "main".to_owned())].into(),
        log_path: format!("main/{attempt}.log"),
        ..Default::default()
    }
}

/// Runs all checks, one after the other.
pub async fn run_all(subject: &Subject) {
    knows_itself_and_takes_the_pod_cidr(subject).await;
    images_are_listed_and_found(subject).await;
    a_container_runs_to_its_end_and_its_log_is_kept(subject).await;
    an_exit_code_is_reported(subject).await;
    stopping_and_removing_are_idempotent(subject).await;
    a_restart_is_a_new_attempt(subject).await;
    sandboxes_have_addresses_of_their_own(subject).await;
    filters_select(subject).await;
    impossible_requests_are_refused(subject).await;
    events_come_in_order_and_carry_the_state(subject).await;
    resources_and_statistics_are_reported(subject).await;
    a_removed_sandbox_takes_its_containers_along(subject).await;
}

/// Version, status and the node's range.
pub async fn knows_itself_and_takes_the_pod_cidr(subject: &Subject) {
    let version = subject.runtime.version().await.expect("a version");
    assert_eq!(version.runtime_api_version, "v1");
    assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty());
    let config = RuntimeConfig { network_config: NetworkConfig { pod_cidr: subject.pod_cidr.clone() } };
    subject.runtime.update_runtime_config(config.clone()).await.expect("the range is taken");
    subject.runtime.update_runtime_config(config).await.expect("the same range is taken again");
    let bad = RuntimeConfig { network_config: NetworkConfig { pod_cidr: "nonsense".to_owned() } };
    let refused = subject.runtime.update_runtime_config(bad).await;
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    let status = subject.runtime.status().await.expect("a status");
    for wanted in ["RuntimeReady", "NetworkReady"] {
        let found = status.status.conditions.iter().find(|condition| condition.r#type == wanted);
        assert!(found.is_some_and(|condition| condition.status), "{wanted} is true: {status:?}");
    }
    assert!(status.runtime_handlers.iter().any(|handler| handler.name == subject.handler));
}

/// Images by name and id.
pub async fn images_are_listed_and_found(subject: &Subject) {
    let spec = |image: &str| ImageSpec { image: image.to_owned(), ..Default::default() };
    let by_name = subject.runtime.image_status(&spec(&subject.prints)).await.expect("an answer");
    let image = by_name.expect("the image is here");
    assert!(image.size > 0 && !image.id.is_empty(), "{image:?}");
    let by_id = subject.runtime.image_status(&spec(&image.id)).await.expect("an answer");
    assert_eq!(by_id.map(|found| found.id), Some(image.id.clone()));
    let all = subject.runtime.list_images(&ImageSpec::default()).await.expect("a list");
    assert!(all.iter().any(|found| found.id == image.id));
    let one = subject.runtime.list_images(&spec(&subject.prints)).await.expect("a list");
    assert_eq!(one.iter().map(|found| &found.id).collect::<Vec<_>>(), [&image.id]);
    let unknown = subject.runtime.image_status(&spec("nowhere.invalid/unknown:v0")).await.expect("an answer");
    assert!(unknown.is_none());
    subject
        .runtime
        .remove_image(&spec("nowhere.invalid/unknown:v0"))
        .await
        .expect("removing nothing is no error");
    let usage = subject.runtime.image_fs_info().await.expect("usage");
    assert!(usage.image_filesystems.iter().any(|fs| fs.used_bytes.unwrap_or(0) > 0), "{usage:?}");
}

/// Created, Running, Exited, with times and log.
pub async fn a_container_runs_to_its_end_and_its_log_is_kept(subject: &Subject) {
    let mut events = subject.runtime.events().await.expect("events");
    let sandbox = subject.run_sandbox().await;
    let id = subject.create(&sandbox, &subject.prints, 0).await;
    let created = subject.status(&id).await;
    assert_eq!((created.state, created.started_at, created.finished_at), (ContainerState::Created, 0, 0));
    assert!(created.created_at > 0);
    subject.runtime.start_container(&id).await.expect("it starts");
    let exited = subject.wait_exited(&mut events, &id).await;
    assert_eq!((exited.exit_code, exited.reason.as_str()), (0, "Completed"), "{exited:?}");
    assert!(exited.created_at <= exited.started_at && exited.started_at <= exited.finished_at, "{exited:?}");
    assert_eq!(exited.log_path, format!("{}/main/0.log", sandbox.1.log_directory));
    let log = std::fs::read_to_string(&exited.log_path).expect("a log");
    let mut texts: Vec<&str> = log.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["stderr F oops", "stdout F hello"]);
    subject.remove(&sandbox).await;
}

/// Codes other than 0.
pub async fn an_exit_code_is_reported(subject: &Subject) {
    let mut events = subject.runtime.events().await.expect("events");
    let sandbox = subject.run_sandbox().await;
    let id = subject.create(&sandbox, &subject.fails, 0).await;
    subject.runtime.start_container(&id).await.expect("it starts");
    let exited = subject.wait_exited(&mut events, &id).await;
    assert_eq!((exited.exit_code, exited.reason.as_str()), (3, "Error"), "{exited:?}");
    subject.remove(&sandbox).await;
}

/// Again and again, in every state, and for what never was.
pub async fn stopping_and_removing_are_idempotent(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = subject.run_sandbox().await;
    let running = subject.create(&sandbox, &subject.sleeps, 0).await;
    let never_started = subject.create(&sandbox, &subject.sleeps, 1).await;
    runtime.start_container(&running).await.expect("it starts");
    for id in [&running, &never_started, &"unknown".to_owned()] {
        for _ in 0..2 {
            runtime.stop_container(id, Duration::from_millis(100)).await.expect("stopping is idempotent");
        }
    }
    assert_eq!(subject.status(&running).await.state, ContainerState::Exited);
    // Some runtimes leave it Created, some say that it Exited; it never runs.
    assert_ne!(subject.status(&never_started).await.state, ContainerState::Running);
    for id in [&running, &never_started, &"unknown".to_owned()] {
        for _ in 0..2 {
            runtime.remove_container(id).await.expect("removing is idempotent");
        }
    }
    assert!(runtime.container_status(&running).await.is_err_and(|error| error.is_not_found()));
    for id in [&sandbox.0, &"unknown".to_owned()] {
        for _ in 0..2 {
            runtime.stop_pod_sandbox(id).await.expect("stopping is idempotent");
        }
    }
    let stopped = runtime.pod_sandbox_status(&sandbox.0).await.expect("a stopped sandbox has a status");
    assert_eq!(stopped.status.state, PodSandboxState::NotReady);
    for id in [&sandbox.0, &"unknown".to_owned()] {
        for _ in 0..2 {
            runtime.remove_pod_sandbox(id).await.expect("removing is idempotent");
        }
    }
    assert!(runtime.pod_sandbox_status(&sandbox.0).await.is_err_and(|error| error.is_not_found()));
}

/// The ended container stays beside the new one, with a log of its own.
pub async fn a_restart_is_a_new_attempt(subject: &Subject) {
    let mut events = subject.runtime.events().await.expect("events");
    let sandbox = subject.run_sandbox().await;
    let mut ids = Vec::new();
    for attempt in 0..2 {
        let id = subject.create(&sandbox, &subject.prints, attempt).await;
        subject.runtime.start_container(&id).await.expect("it starts");
        let exited = subject.wait_exited(&mut events, &id).await;
        assert_eq!(exited.metadata.attempt, attempt);
        assert!(std::fs::read_to_string(exited.log_path).expect("a log").contains("hello"));
        let again = subject.runtime.start_container(&id).await;
        assert!(matches!(again, Err(Error::FailedPrecondition(_))), "a container starts once: {again:?}");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    let same = container_config(&subject.prints, 1);
    let taken = subject.runtime.create_container(&sandbox.0, &same, &sandbox.1).await;
    assert!(matches!(taken, Err(Error::AlreadyExists(_))), "a name is taken once: {taken:?}");
    subject.remove(&sandbox).await;
}

/// One each, none twice, and not the one just given back.
pub async fn sandboxes_have_addresses_of_their_own(subject: &Subject) {
    let mut addresses = Vec::new();
    let mut sandboxes = Vec::new();
    for _ in 0..5 {
        let sandbox = subject.run_sandbox().await;
        let status = subject.runtime.pod_sandbox_status(&sandbox.0).await.expect("a status").status;
        assert_eq!(status.state, PodSandboxState::Ready);
        assert_eq!(status.metadata, sandbox.1.metadata);
        assert_eq!(status.annotations, sandbox.1.annotations);
        addresses.push(status.network.expect("an address").ip);
        sandboxes.push(sandbox);
    }
    let prefix = subject.pod_cidr.split('.').take(2).collect::<Vec<_>>().join(".");
    assert!(addresses.iter().all(|ip| ip.starts_with(&prefix)), "{addresses:?} in {}", subject.pod_cidr);
    let given_back = addresses.pop().expect("five addresses");
    assert!(!addresses.contains(&given_back));
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 4, "no address twice");
    subject.remove(&sandboxes.pop().expect("five sandboxes")).await;
    let next = subject.run_sandbox().await;
    let status = subject.runtime.pod_sandbox_status(&next.0).await.expect("a status").status;
    assert_ne!(
        status.network.expect("an address").ip,
        given_back,
        "an address rests before it is used again"
    );
    sandboxes.push(next);
    for sandbox in sandboxes {
        subject.remove(&sandbox).await;
    }
}

/// By id, state, sandbox and label.
pub async fn filters_select(subject: &Subject) {
    let runtime = &subject.runtime;
    let (one, two) = (subject.run_sandbox().await, subject.run_sandbox().await);
    let container = subject.create(&one, &subject.sleeps, 0).await;
    let other = subject.create(&two, &subject.sleeps, 0).await;
    runtime.start_container(&container).await.expect("it starts");
    runtime.stop_pod_sandbox(&two.0).await.expect("it stops");
    let by_id = PodSandboxFilter { id: one.0.clone(), ..Default::default() };
    let by_label = PodSandboxFilter { label_selector: one.1.labels.clone(), ..Default::default() };
    for filter in [by_id, by_label] {
        let found = runtime.list_pod_sandbox(&filter).await.expect("a list");
        assert_eq!(found.iter().map(|s| &s.id).collect::<Vec<_>>(), [&one.0], "{filter:?}");
        assert_eq!((&found[0].metadata, &found[0].labels), (&one.1.metadata, &one.1.labels));
    }
    let not_ready = PodSandboxFilter { state: Some(PodSandboxState::NotReady), ..Default::default() };
    let found = runtime.list_pod_sandbox(&not_ready).await.expect("a list");
    assert!(found.iter().any(|s| s.id == two.0) && found.iter().all(|s| s.id != one.0));
    for (filter, expected) in [
        (ContainerFilter { id: container.clone(), ..Default::default() }, vec![&container]),
        (ContainerFilter { pod_sandbox_id: two.0.clone(), ..Default::default() }, vec![&other]),
        (
            ContainerFilter {
                pod_sandbox_id: one.0.clone(),
                state: Some(ContainerState::Running),
                label_selector: [("container".to_owned(), "main".to_owned())].into(),
                ..Default::default()
            },
            vec![&container],
        ),
        (
            ContainerFilter {
                pod_sandbox_id: one.0.clone(),
                state: Some(ContainerState::Exited),
                ..Default::default()
            },
            vec![],
        ),
        (
            ContainerFilter {
                label_selector: [("container".to_owned(), "none".to_owned())].into(),
                ..Default::default()
            },
            vec![],
        ),
    ] {
        let found = runtime.list_containers(&filter).await.expect("a list");
        assert_eq!(found.iter().map(|c| &c.id).collect::<Vec<_>>(), expected, "{filter:?}");
    }
    subject.remove(&one).await;
    subject.remove(&two).await;
}

/// Unknown ids, missing names, unknown images and handlers, sandboxes that are stopped.
pub async fn impossible_requests_are_refused(subject: &Subject) {
    let runtime = &subject.runtime;
    assert!(runtime.pod_sandbox_status("unknown").await.is_err_and(|e| e.is_not_found()));
    assert!(runtime.container_status("unknown").await.is_err_and(|e| e.is_not_found()));
    assert!(runtime.start_container("unknown").await.is_err_and(|e| e.is_not_found()));
    assert!(runtime.container_stats("unknown").await.is_err_and(|e| e.is_not_found()));
    assert!(runtime.reopen_container_log("unknown").await.is_err_and(|e| e.is_not_found()));
    let nameless = runtime.run_pod_sandbox(&PodSandboxConfig::default(), &subject.handler).await;
    assert!(matches!(nameless, Err(Error::InvalidArgument(_))), "{nameless:?}");
    let unknown = runtime.run_pod_sandbox(&subject.sandbox_config(), "no-such-handler").await;
    assert!(matches!(unknown, Err(Error::InvalidArgument(_))), "{unknown:?}");
    let sandbox = subject.run_sandbox().await;
    let twice = runtime.run_pod_sandbox(&sandbox.1, &subject.handler).await;
    assert!(matches!(twice, Err(Error::AlreadyExists(_))), "{twice:?}");
    let imageless = container_config("nowhere.invalid/unknown:v0", 0);
    let refused = runtime.create_container(&sandbox.0, &imageless, &sandbox.1).await;
    assert!(refused.as_ref().is_err_and(Error::is_not_found), "{refused:?}");
    let config = container_config(&subject.prints, 0);
    let refused = runtime.create_container("unknown", &config, &sandbox.1).await;
    assert!(refused.as_ref().is_err_and(Error::is_not_found), "{refused:?}");
    runtime.stop_pod_sandbox(&sandbox.0).await.expect("it stops");
    let refused = runtime.create_container(&sandbox.0, &config, &sandbox.1).await;
    assert!(matches!(refused, Err(Error::FailedPrecondition(_))), "{refused:?}");
    subject.remove(&sandbox).await;
}

/// Created, Started, Stopped, Deleted, for containers and sandboxes.
pub async fn events_come_in_order_and_carry_the_state(subject: &Subject) {
    let mut events = subject.runtime.events().await.expect("events");
    let sandbox = subject.run_sandbox().await;
    let id = subject.create(&sandbox, &subject.prints, 0).await;
    subject.runtime.start_container(&id).await.expect("it starts");
    let mut waiting = subject.runtime.events().await.expect("events");
    subject.wait_exited(&mut waiting, &id).await;
    subject.runtime.remove_container(&id).await.expect("it is removed");
    subject.remove(&sandbox).await;
    let mut of_container = Vec::new();
    let mut of_sandbox = Vec::new();
    let collect = async {
        while of_sandbox.last() != Some(&ContainerEventType::Deleted) {
            let event = events.next().await.expect("events go on").expect("no event is lost");
            if event.container_id == id {
                if event.container_event_type == ContainerEventType::Stopped {
                    let status = event.containers_statuses.iter().find(|s| s.id == id).expect("its status");
                    assert_eq!(status.state, ContainerState::Exited, "the event shows what it tells");
                    assert!(event.pod_sandbox_status.is_some_and(|s| s.id == sandbox.0));
                }
                of_container.push(event.container_event_type);
            } else if event.container_id == sandbox.0 {
                of_sandbox.push(event.container_event_type);
            }
        }
    };
    tokio::time::timeout(LIMIT, collect).await.expect("all events come");
    use ContainerEventType::{Created, Deleted, Started, Stopped};
    assert_eq!(of_container, [Created, Started, Stopped, Deleted]);
    assert_eq!(of_sandbox, [Created, Started, Stopped, Deleted]);
}

/// Limits given, limits changed, what is used.
pub async fn resources_and_statistics_are_reported(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = subject.run_sandbox().await;
    let resources = LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let config = ContainerConfig {
        linux: Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
        ..container_config(&subject.sleeps, 0)
    };
    let id = runtime.create_container(&sandbox.0, &config, &sandbox.1).await.expect("it is created");
    runtime.start_container(&id).await.expect("it starts");
    let limit =
        |status: ContainerStatus| status.resources.and_then(|r| r.linux).map(|l| l.memory_limit_in_bytes);
    assert_eq!(limit(subject.status(&id).await), Some(64 << 20));
    let more = LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..Default::default() };
    runtime.update_container_resources(&id, &more).await.expect("it is changed");
    assert_eq!(limit(subject.status(&id).await), Some(128 << 20));
    runtime.reopen_container_log(&id).await.expect("the log of a running container is opened again");
    let stats = runtime.container_stats(&id).await.expect("statistics");
    assert_eq!(stats.attributes.id, id);
    assert!(stats.cpu.is_some_and(|cpu| cpu.timestamp > 0 && cpu.usage_core_nano_seconds.is_some()));
    assert!(stats.memory.is_some_and(|memory| memory.working_set_bytes.is_some()));
    let filter = ContainerStatsFilter { pod_sandbox_id: sandbox.0.clone(), ..Default::default() };
    let all = runtime.list_container_stats(&filter).await.expect("a list");
    assert_eq!(all.iter().map(|stats| &stats.attributes.id).collect::<Vec<_>>(), [&id]);
    let of_pod = runtime.pod_sandbox_stats(&sandbox.0).await.expect("statistics");
    assert_eq!(of_pod.linux.map(|linux| linux.containers.len()), Some(1));
    let filter = PodSandboxStatsFilter { id: sandbox.0.clone(), ..Default::default() };
    assert_eq!(runtime.list_pod_sandbox_stats(&filter).await.expect("a list").len(), 1);
    subject.remove(&sandbox).await;
}

/// Even those that run, and without being stopped first.
pub async fn a_removed_sandbox_takes_its_containers_along(subject: &Subject) {
    let sandbox = subject.run_sandbox().await;
    let id = subject.create(&sandbox, &subject.sleeps, 0).await;
    subject.runtime.start_container(&id).await.expect("it starts");
    subject.runtime.remove_pod_sandbox(&sandbox.0).await.expect("it is removed");
    assert!(subject.runtime.container_status(&id).await.is_err_and(|error| error.is_not_found()));
    let filter = ContainerFilter { pod_sandbox_id: sandbox.0.clone(), ..Default::default() };
    assert!(subject.runtime.list_containers(&filter).await.expect("a list").is_empty());
}
