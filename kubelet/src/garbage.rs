//! What pods leave behind: dead containers, directories of pods that are gone, logs that have grown.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wherry_runtimes::{Container, ContainerFilter, ContainerState};

use crate::kubelet::Kubelet;
use crate::pod::labels;
use crate::{logs, pleg};

/// Time between two collections.
const INTERVAL: Duration = Duration::from_secs(10);
/// Collections between two looks at directories.
const DIRECTORIES_EVERY: u32 = 6;
/// Dead containers kept for each container of a pod, for `kubectl logs --previous`. Source: Kubernetes.
const KEPT_DEAD: usize = 1;

/// Collects; for ever. May be dropped at any moment.
pub(crate) async fn collect(kubelet: Arc<Kubelet>) -> std::convert::Infallible {
    if kubelet.config.static_pod_dir.is_none() {
        pleg::remove_orphans(&kubelet).await;
    } else {
        // Static pods are read from files right after the start.
        tokio::time::sleep(Duration::from_secs(5)).await;
        pleg::remove_orphans(&kubelet).await;
    }
    let mut round = 0_u32;
    loop {
        tokio::time::sleep(INTERVAL).await;
        for runtime in kubelet.runtimes.all() {
            let Ok(containers) = runtime.service.list_containers(&ContainerFilter::default()).await else {
                continue;
            };
            for id in removable(&containers) {
                if let Err(error) = runtime.service.remove_container(&id).await {
                    tracing::debug!(%error, container = %id, "dead container cannot be removed");
                }
            }
            logs::rotate_all(&kubelet, runtime, &containers).await;
        }
        if round.is_multiple_of(DIRECTORIES_EVERY) {
            remove_directories(&kubelet).await;
        }
        round = round.wrapping_add(1);
    }
}

/// Ended containers that nobody will ask for: of each container of a pod, all but the newest dead ones.
fn removable(containers: &[Container]) -> Vec<String> {
    let mut dead: HashMap<(&str, &str), Vec<&Container>> = HashMap::new();
    for container in containers.iter().filter(|c| c.state == ContainerState::Exited) {
        let label = |name| container.labels.get(name).map(String::as_str).unwrap_or_default();
        dead.entry((label(labels::POD_UID), label(labels::CONTAINER_NAME))).or_default().push(container);
    }
    let live: HashSet<(&str, &str)> = containers
        .iter()
        .filter(|c| c.state != ContainerState::Exited)
        .map(|c| {
            let label = |name| c.labels.get(name).map(String::as_str).unwrap_or_default();
            (label(labels::POD_UID), label(labels::CONTAINER_NAME))
        })
        .collect();
    let mut ids = Vec::new();
    for (key, mut group) in dead {
        group.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.metadata.attempt)));
        // The newest dead one is the present state when nothing runs; one more is the previous one.
        let kept = if live.contains(&key) { KEPT_DEAD } else { KEPT_DEAD + 1 };
        ids.extend(group.into_iter().skip(kept).map(|c| c.id.clone()));
    }
    ids
}

async fn remove_directories(kubelet: &Arc<Kubelet>) {
    let known = kubelet.workers.uids();
    let (pods, logs) = (kubelet.config.root_dir.join("pods"), kubelet.config.log_dir.clone());
    let workers = kubelet.clone();
    let work = tokio::task::spawn_blocking(move || {
        if let Some(cgroups) = &workers.cgroups {
            cgroups.remove_orphans(|uid| known.contains(uid) || workers.workers.get(uid).is_some());
        }
        let is_orphan = |uid: &str| !known.contains(uid) && workers.workers.get(uid).is_none();
        for path in orphaned(&pods, |name| is_orphan(name))
            .into_iter()
            .chain(orphaned(&logs, |name| name.rsplit_once('_').is_some_and(|(_, uid)| is_orphan(uid))))
        {
            if let Err(error) = crate::volumes::mount::tear_down(&path) {
                tracing::debug!(%error, path = %path.display(), "directory cannot be removed");
            }
        }
    });
    if let Err(error) = work.await {
        tracing::warn!(%error, "orphaned directories were not looked at");
    }
}

fn orphaned(directory: &Path, is_orphan: impl Fn(&str) -> bool) -> BTreeSet<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return BTreeSet::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter(|entry| entry.file_name().to_str().is_some_and(&is_orphan))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wherry_runtimes::ContainerMetadata;

    fn container(id: &str, attempt: u32, state: ContainerState) -> Container {
        Container {
            id: id.to_owned(),
            metadata: ContainerMetadata { name: "c".to_owned(), attempt },
            created_at: i64::from(attempt),
            state,
            labels: [(labels::POD_UID, "u"), (labels::CONTAINER_NAME, "c")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..Container::default()
        }
    }

    #[test]
    fn the_previous_container_is_kept_and_older_ones_are_not() {
        use ContainerState::{Exited, Running};
        let running = [container("a", 0, Exited), container("b", 1, Exited), container("c", 2, Running)];
        assert_eq!(removable(&running), ["a"]);
        let ended = [container("a", 0, Exited), container("b", 1, Exited), container("c", 2, Exited)];
        assert_eq!(removable(&ended), ["a"]);
        assert_eq!(removable(&running[1..]), Vec::<String>::new());
    }
}
