//! Container events of a containerd that has no `GetContainerEvents` (before 1.7), made from its own event service.
//!
//! containerd tells what happened to a task before its CRI knows: each event waits until CRI's answer shows what it tells,
//! and carries that answer. Events of one container stay in order; those of different ones do not wait for each other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_client::events::{ContainerCreate, ContainerDelete, NamespaceUpdate, TaskExit, TaskStart};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{ListTasksRequest, PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use containerd_client::types::v1::{Process, Status as TaskStatus};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use prost::Message;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use wherry_runtimes::{
    ContainerEventResponse, ContainerEventType, ContainerFilter, ContainerState, ContainerStatus, Error,
    EventStream, PodSandboxFilter, PodSandboxState, PodSandboxStatus, Result, RuntimeService,
};

use super::{NAMESPACE, in_namespace};
use crate::Client;
use crate::code::from_status;

/// The topic of the event by which we learn that we are subscribed: the service does not say so itself.
const SUBSCRIBED: &str = "/wherry/subscribed";
/// How long the service may take until it sends events.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two tries at that.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(10);
/// How long CRI may take to know what containerd has told. A sandbox is known once it runs.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks whether CRI knows, at first; doubled up to [`MAX_SETTLE_PAUSE`].
const SETTLE_PAUSE: Duration = Duration::from_millis(1);
/// The longest time between two looks.
const MAX_SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// Events that wait at the same time, at most; then the reader is told to list.
const MAX_WAITING: usize = 4096;

/// What containerd told.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    what: ContainerEventType,
    container_id: String,
    /// Nanoseconds since 1970.
    at: i64,
    /// How the process ended, when it did.
    exit_code: i32,
}

/// Subscribes; events flow when this returns.
pub(crate) async fn subscribe(client: Client, channel: Channel) -> Result<EventStream> {
    let mut service = EventsClient::new(channel.clone());
    let topics = ["/containers/create", "/tasks/start", "/tasks/exit", "/containers/delete", SUBSCRIBED];
    let filters = topics.map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\"")).to_vec();
    let request = in_namespace(SubscribeRequest { filters }, None).map_err(|status| from_status(&status))?;
    let mut subscription = service.clone();
    // The answer to the call comes with the first event only.
    let events = async move { Ok(subscription.subscribe(request).await?.into_inner()) };
    let mut events = events.try_flatten_stream().boxed();
    let subscribed = async {
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) if event.topic == SUBSCRIBED => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return Err(from_status(&status)),
                    None => return Err(ended()),
                },
                () = tokio::time::sleep(SUBSCRIBE_PAUSE) => announce(&mut service).await?,
            }
        }
    };
    tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribed)
        .await
        .map_err(|_| Error::DeadlineExceeded("containerd's event service does not answer".to_owned()))??;
    let known = Known::default();
    let mut missed = known.list(&client).await?;
    let running = running_tasks(channel).await?;
    missed.retain(|told| !running.contains(&told.container_id));
    // What was told to others shortly before, and CRI does not show yet, is told to this reader too; once.
    let mut said: HashMap<String, ContainerEventType> =
        missed.iter().map(|told| (told.container_id.clone(), told.what)).collect();
    let told = events.map_err(|status| from_status(&status)).try_filter_map(move |event| {
        let told = told(&event).filter(|told| said.remove(&told.container_id) != Some(told.what));
        std::future::ready(Ok(told))
    });
    let told = futures::stream::iter(missed.into_iter().map(Ok)).chain(told).boxed();
    let lanes = Lanes::new(move |told, is_gone| {
        let (client, known) = (client.clone(), known.clone());
        async move { settle(&client, &known, &told, &is_gone).await }.boxed()
    });
    Ok(driven(ordered(told, lanes)))
}

async fn announce(service: &mut EventsClient<Channel>) -> Result<()> {
    let event = NamespaceUpdate { name: NAMESPACE.to_owned(), ..Default::default() };
    let event = Some(containerd_client::to_any(&event));
    let request = PublishRequest { topic: SUBSCRIBED.to_owned(), event };
    let request = in_namespace(request, None).map_err(|status| from_status(&status))?;
    service.publish(request).await.map_err(|status| from_status(&status))?;
    Ok(())
}

/// The containers and sandboxes of which a process runs.
async fn running_tasks(channel: Channel) -> Result<HashSet<String>> {
    let request = in_namespace(ListTasksRequest::default(), None).map_err(|status| from_status(&status))?;
    let answer = TasksClient::new(channel).list(request).await.map_err(|status| from_status(&status))?;
    let is_running = |task: &Process| !matches!(task.status(), TaskStatus::Stopped | TaskStatus::Unknown);
    Ok(answer.into_inner().tasks.into_iter().filter(is_running).map(|task| task.id).collect())
}

fn ended() -> Error {
    Error::Unavailable("containerd's event service ended the stream".to_owned())
}

/// What an envelope tells of a container; nothing for a command that was run inside of one.
fn told(envelope: &Envelope) -> Option<Told> {
    let bytes = envelope.event.as_ref().map(|event| event.value.as_slice()).unwrap_or_default();
    let mut exit_code = 0;
    let (what, container_id) = match envelope.topic.as_str() {
        "/containers/create" => (ContainerEventType::Created, ContainerCreate::decode(bytes).ok()?.id),
        "/tasks/start" => (ContainerEventType::Started, TaskStart::decode(bytes).ok()?.container_id),
        "/tasks/exit" => {
            let exit = TaskExit::decode(bytes).ok()?;
            if exit.id != exit.container_id {
                return None;
            }
            exit_code = i32::try_from(exit.exit_status).unwrap_or(i32::MAX);
            (ContainerEventType::Stopped, exit.container_id)
        }
        "/containers/delete" => (ContainerEventType::Deleted, ContainerDelete::decode(bytes).ok()?.id),
        _ => return None,
    };
    let at = envelope.timestamp.as_ref();
    let at = at.map_or(0, |at| at.seconds.saturating_mul(1_000_000_000).saturating_add(at.nanos.into()));
    Some(Told { what, container_id, at, exit_code })
}

// ---------------------------------------------------------------------------------------------------------------------

type Settled = Option<ContainerEventResponse>;
type Settle = Box<dyn Fn(Told, Arc<AtomicBool>) -> BoxFuture<'static, Settled> + Send>;

/// One lane for each container about which something waits.
struct Lanes {
    settle: Settle,
    lanes: HashMap<String, Lane>,
    running: FuturesUnordered<BoxFuture<'static, (String, Settled)>>,
    waiting: usize,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Told>,
    /// Its end is among what waits: nobody will know more of it.
    is_gone: Arc<AtomicBool>,
}

impl Lanes {
    fn new(settle: impl Fn(Told, Arc<AtomicBool>) -> BoxFuture<'static, Settled> + Send + 'static) -> Self {
        let settle = Box::new(settle);
        Self { settle, lanes: HashMap::new(), running: FuturesUnordered::new(), waiting: 0 }
    }

    /// Takes what was told; false when too much waits.
    fn push(&mut self, told: Told) -> bool {
        if self.waiting >= MAX_WAITING {
            return false;
        }
        self.waiting += 1;
        if let Some(lane) = self.lanes.get_mut(&told.container_id) {
            lane.is_gone.fetch_or(told.what == ContainerEventType::Deleted, Ordering::Relaxed);
            lane.queue.push_back(told);
            return true;
        }
        let lane = Lane::default();
        let is_gone = lane.is_gone.clone();
        self.lanes.insert(told.container_id.clone(), lane);
        self.start(told, is_gone);
        true
    }

    fn start(&mut self, told: Told, is_gone: Arc<AtomicBool>) {
        let id = told.container_id.clone();
        let settling = (self.settle)(told, is_gone);
        self.running.push(async move { (id, settling.await) }.boxed());
    }

    /// The next of a container comes after this one.
    fn finished(&mut self, id: &str) {
        self.waiting = self.waiting.saturating_sub(1);
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let is_gone = lane.is_gone.clone();
        match lane.queue.pop_front() {
            Some(told) => self.start(told, is_gone),
            None => {
                self.lanes.remove(id);
            }
        }
    }
}

/// Events as they settle, each container's in order. Ends when containerd's stream does.
fn ordered(told: BoxStream<'static, Result<Told>>, lanes: Lanes) -> EventStream {
    futures::stream::unfold(Some((told, lanes)), |state| async move {
        let (mut told, mut lanes) = state?;
        loop {
            tokio::select! {
                next = told.next() => match next {
                    Some(Ok(next)) => if !lanes.push(next) {
                        let lost = format!("more than {MAX_WAITING} events wait for the runtime");
                        return Some((Err(Error::DataLoss(lost)), Some((told, lanes))));
                    },
                    Some(Err(error)) => return Some((Err(error), None)),
                    None => return Some((Err(ended()), None)),
                },
                Some((id, settled)) = lanes.running.next(), if !lanes.running.is_empty() => {
                    lanes.finished(&id);
                    if let Some(event) = settled {
                        return Some((Ok(event), Some((told, lanes))));
                    }
                }
            }
        }
    })
    .boxed()
}

/// The same events, looked after whether or not the reader reads: what was deleted meanwhile, nobody could ask for later.
fn driven(mut events: EventStream) -> EventStream {
    let (sender, receiver) = tokio::sync::mpsc::channel(MAX_WAITING);
    let driving = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut lost = 0_u64;
        while let Some(event) = events.next().await {
            if lost > 0 {
                let told = Err(Error::DataLoss(format!("{lost} container events were missed")));
                if sender.try_send(told).is_ok() {
                    lost = 0;
                }
            }
            match sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => lost += 1,
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }));
    // The task ends with the stream that it feeds.
    futures::stream::unfold((receiver, driving), |(mut receiver, driving)| async move {
        receiver.recv().await.map(|event| (event, (receiver, driving)))
    })
    .boxed()
}

// ---------------------------------------------------------------------------------------------------------------------

/// What CRI last said of each container and sandbox: of those that are deleted, nobody else can tell.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<HashMap<String, Last>>>);

#[derive(Clone)]
enum Last {
    Sandbox(Box<PodSandboxStatus>),
    Container { sandbox_id: String, status: Option<Box<ContainerStatus>> },
}

impl Known {
    fn get(&self, id: &str) -> Option<Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn put(&self, id: &str, last: Last) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), last);
    }

    fn remove(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Everything that is there already; answers the ends that CRI has not noticed, if they have come.
    async fn list(&self, client: &Client) -> Result<Vec<Told>> {
        let mut missed = Vec::new();
        let stopped = |id: &str| Told {
            what: ContainerEventType::Stopped,
            container_id: id.to_owned(),
            at: 0,
            exit_code: 0,
        };
        for sandbox in client.list_pod_sandbox(&PodSandboxFilter::default()).await? {
            if let Ok(answer) = client.pod_sandbox_status(&sandbox.id).await {
                self.put(&sandbox.id, Last::Sandbox(Box::new(answer.status)));
            }
            if sandbox.state == PodSandboxState::Ready {
                missed.push(stopped(&sandbox.id));
            }
        }
        for container in client.list_containers(&ContainerFilter::default()).await? {
            if container.state == ContainerState::Running {
                missed.push(stopped(&container.id));
            }
            let status = client.container_status(&container.id).await.ok().map(Box::new);
            self.put(&container.id, Last::Container { sandbox_id: container.pod_sandbox_id, status });
        }
        Ok(missed)
    }
}

/// Waits until CRI shows what was told; `None` for what is no CRI container, and for what CRI never gets to know.
async fn settle(client: &Client, known: &Known, told: &Told, is_gone: &AtomicBool) -> Settled {
    if told.what == ContainerEventType::Deleted {
        return deleted(client, known, told).await;
    }
    let looking = async {
        let mut pause = SETTLE_PAUSE;
        loop {
            if let Some(found) = look(client, known, told).await {
                return Some(found);
            }
            if is_gone.load(Ordering::Relaxed) {
                return as_told(known, told);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_SETTLE_PAUSE);
        }
    };
    tokio::time::timeout(SETTLE_TIMEOUT, looking).await.ok().flatten()
}

/// CRI's answer, when it shows what was told.
async fn look(client: &Client, known: &Known, told: &Told) -> Settled {
    let id = &told.container_id;
    let last = match known.get(id) {
        Some(last) => last,
        None => first_look(client, id).await?,
    };
    known.put(id, last.clone());
    let sandbox_id = match &last {
        Last::Sandbox(_) => id,
        Last::Container { sandbox_id, .. } => sandbox_id,
    };
    let answer = client.pod_sandbox_status(sandbox_id).await.ok()?;
    known.put(sandbox_id, Last::Sandbox(Box::new(answer.status.clone())));
    for status in &answer.containers_statuses {
        let (sandbox_id, status) = (sandbox_id.clone(), Some(Box::new(status.clone())));
        known.put(
            &status.as_ref().map(|status| status.id.clone()).unwrap_or_default(),
            Last::Container { sandbox_id, status },
        );
    }
    let is_shown = match &last {
        Last::Sandbox(_) => shows_sandbox(told.what, &answer.status),
        Last::Container { .. } => {
            answer.containers_statuses.iter().any(|status| status.id == *id && shows(told.what, status))
        }
    };
    is_shown.then(|| event(told, answer.status, answer.containers_statuses))
}

async fn first_look(client: &Client, id: &str) -> Option<Last> {
    let filter = ContainerFilter { id: id.to_owned(), ..ContainerFilter::default() };
    if let Some(container) = client.list_containers(&filter).await.ok()?.into_iter().next() {
        return Some(Last::Container { sandbox_id: container.pod_sandbox_id, status: None });
    }
    let answer = client.pod_sandbox_status(id).await.ok()?;
    Some(Last::Sandbox(Box::new(answer.status)))
}

fn shows(what: ContainerEventType, status: &ContainerStatus) -> bool {
    match what {
        ContainerEventType::Started => status.state != ContainerState::Created,
        ContainerEventType::Stopped => status.state == ContainerState::Exited,
        ContainerEventType::Created | ContainerEventType::Deleted => true,
    }
}

fn shows_sandbox(what: ContainerEventType, status: &PodSandboxStatus) -> bool {
    what != ContainerEventType::Stopped || status.state == PodSandboxState::NotReady
}

async fn deleted(client: &Client, known: &Known, told: &Told) -> Settled {
    let last = known.get(&told.container_id)?;
    known.remove(&told.container_id);
    match last {
        Last::Sandbox(status) => {
            let status = PodSandboxStatus { state: PodSandboxState::NotReady, ..*status };
            Some(event(told, status, Vec::new()))
        }
        Last::Container { sandbox_id, .. } => match client.pod_sandbox_status(&sandbox_id).await {
            Ok(answer) => Some(event(told, answer.status, answer.containers_statuses)),
            Err(_) => match known.get(&sandbox_id) {
                Some(Last::Sandbox(status)) => Some(event(told, *status, Vec::new())),
                _ => None,
            },
        },
    }
}

/// What was told of something that CRI has forgotten meanwhile, on top of what CRI said last.
fn as_told(known: &Known, told: &Told) -> Settled {
    match known.get(&told.container_id)? {
        Last::Sandbox(mut status) => {
            if told.what == ContainerEventType::Stopped {
                status.state = PodSandboxState::NotReady;
            }
            Some(event(told, *status, Vec::new()))
        }
        Last::Container { sandbox_id, status } => {
            let Some(Last::Sandbox(sandbox)) = known.get(&sandbox_id) else { return None };
            let mut status = *status?;
            match told.what {
                ContainerEventType::Started => {
                    status.state = ContainerState::Running;
                    status.started_at = told.at;
                }
                ContainerEventType::Stopped => {
                    status.state = ContainerState::Exited;
                    status.finished_at = told.at;
                    status.exit_code = told.exit_code;
                    status.reason = if told.exit_code == 0 { "Completed" } else { "Error" }.to_owned();
                }
                ContainerEventType::Created | ContainerEventType::Deleted => {}
            }
            Some(event(told, *sandbox, vec![status]))
        }
    }
}

fn event(
    told: &Told,
    sandbox: PodSandboxStatus,
    containers_statuses: Vec<ContainerStatus>,
) -> ContainerEventResponse {
    ContainerEventResponse {
        container_id: told.container_id.clone(),
        container_event_type: told.what,
        created_at: told.at,
        pod_sandbox_status: Some(sandbox),
        containers_statuses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(id: &str, what: ContainerEventType, at: i64) -> Told {
        Told { what, container_id: id.to_owned(), at, exit_code: 0 }
    }

    #[test]
    fn a_command_that_ends_inside_a_container_is_not_the_containers_end() {
        for (id, expected) in [("c", true), ("some-command", false)] {
            let exit = TaskExit { container_id: "c".to_owned(), id: id.to_owned(), ..Default::default() };
            let envelope = Envelope {
                topic: "/tasks/exit".to_owned(),
                event: Some(containerd_client::to_any(&exit)),
                ..Default::default()
            };
            assert_eq!(told(&envelope).is_some(), expected, "{id}");
        }
    }

    #[tokio::test]
    async fn a_container_that_takes_long_to_settle_holds_up_its_own_events_only() {
        use ContainerEventType::{Created, Started};
        let lanes = Lanes::new(|told, _| {
            async move {
                let wait = if told.container_id == "slow" && told.what == Created { 300 } else { 1 };
                tokio::time::sleep(Duration::from_millis(wait)).await;
                Some(event(&told, PodSandboxStatus::default(), Vec::new()))
            }
            .boxed()
        });
        let source = vec![
            told_of("slow", Created, 1),
            told_of("slow", Started, 2),
            told_of("quick", Created, 3),
            told_of("quick", Started, 4),
        ];
        let source = futures::stream::iter(source.into_iter().map(Ok)).chain(futures::stream::pending());
        let order: Vec<i64> =
            ordered(source.boxed(), lanes).take(4).map(|event| event.unwrap().created_at).collect().await;
        assert_eq!(order, [3, 4, 1, 2]);
    }

    #[tokio::test]
    async fn too_many_events_are_told_as_lost_and_a_broken_stream_ends() {
        let lanes = Lanes::new(|_, _| std::future::pending().boxed());
        let many = (0..=MAX_WAITING).map(|n| Ok(told_of(&n.to_string(), ContainerEventType::Created, 0)));
        let mut events = ordered(futures::stream::iter(many).boxed(), lanes);
        assert!(matches!(events.next().await, Some(Err(Error::DataLoss(_)))));
        assert!(matches!(events.next().await, Some(Err(Error::Unavailable(_)))));
        assert!(events.next().await.is_none());
    }
}
