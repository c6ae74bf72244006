//! Making and starting one container.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use wherry_client::EventType;
use wherry_runtimes::{ImageSpec, Mount, PodSandboxConfig};

use super::container_config::{ContainerInput, container_config};
use super::environment::{EnvironmentInput, container_environment};
use super::ephemeral::is_ephemeral;
use super::field_ref::PodFacts;
use super::hosts_file::{self, hosts_text, is_managed};
use super::labels;
use super::observed::ContainerObserved;
use super::security_context::{ImageUser, verify_run_as_non_root};
use super::service_environment::{MASTER_SERVICE_NAMESPACE, is_visible, service_environment};
use super::sources::References;
use super::status::Waiting;
use super::unsupported::{self, guest_fields_of};
use crate::images::puller::{ImageState, look, pull_secrets};
use crate::kubelet::{Kubelet, path_part};
use crate::pod::hooks;
use crate::runtimes::{NodeRuntime, RuntimeKind, container_observed};
use crate::volumes::mount::{SubPaths, VolumePaths, Writer, container_mounts, make_directory};

/// What became of an attempt to start a container.
pub(crate) enum Launched {
    /// Its image has to be fetched first, by this runtime.
    NeedsImage(Arc<NodeRuntime>),
    /// It cannot be made now.
    Waiting(Waiting),
    /// It was started.
    Started(ContainerObserved),
    /// It was made but not started (or its `postStart` hook failed).
    Failed(Waiting, Option<ContainerObserved>),
}

/// Everything that a launch needs.
pub(crate) struct Launch {
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) runtime: Arc<NodeRuntime>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) sandbox_id: String,
    pub(crate) sandbox_config: Arc<PodSandboxConfig>,
    pub(crate) pod_ips: Vec<String>,
    pub(crate) volumes: VolumePaths,
    /// The image, when it has been fetched, and by whom.
    pub(crate) image_ref: Option<(String, Arc<NodeRuntime>)>,
    pub(crate) restart_count: u32,
    /// The id of the container that an ephemeral one names; an error when that one does not run.
    pub(crate) target_id: Option<Result<String, String>>,
    pub(crate) references: References,
}

impl Launch {
    /// Makes and starts the container, with the events that tell of it.
    ///
    /// Cancellation: leaves at most a container that was made and not started; the next plan starts a new one.
    pub(crate) async fn run(self) -> Launched {
        let name = self.container.name.clone();
        let (image_ref, holder) = match &self.image_ref {
            Some(found) => found.clone(),
            None => {
                let holder = self.image_holder().await;
                match look(&self.kubelet, &holder, &self.pod, &self.container).await {
                    Ok(ImageState::Present(reference)) => (reference, holder),
                    Ok(ImageState::Absent) => return Launched::NeedsImage(holder),
                    Err(error) => return self.waits(error.reason, &error.message, error.reason),
                }
            }
        };
        let (environment, mounts) = match self.configure(holder.kind()).await {
            Ok(configured) => configured,
            Err(message) => return self.waits("CreateContainerConfigError", &message, &message),
        };
        let image_user = match self.image_user(&image_ref, &holder).await {
            Ok(user) => user,
            Err(message) => return self.waits("CreateContainerConfigError", &message, &message),
        };
        let target_id = match self.target_id.clone().transpose() {
            Ok(target) => target,
            Err(message) => return self.waits("CreateContainerConfigError", &message, &message),
        };
        if let Err(message) = self.tell_unsupported(holder.kind()) {
            return self.waits("CreateContainerConfigError", &message, &message);
        }
        let mut config = container_config(ContainerInput {
            pod: &self.pod,
            container: &self.container,
            image_ref: &image_ref,
            runtime_handler: &holder.handler,
            environment: &environment,
            mounts: &mounts,
            restart_count: self.restart_count,
            image_user: &image_user,
            target_id: target_id.as_deref(),
            node: &self.kubelet.node_facts,
        });
        config.annotations.insert(labels::CONTAINER_RUNTIME.to_owned(), holder.name().to_owned());
        let service = &self.runtime.service;
        let id = match service.create_container(&self.sandbox_id, &config, &self.sandbox_config).await {
            Ok(id) => id,
            Err(error) => {
                let message = error.to_string();
                return self.waits("CreateContainerError", &message, &message);
            }
        };
        let event =
            |kind, reason, message| self.kubelet.container_event(&self.pod, &name, kind, reason, message);
        event(EventType::Normal, "Created", format!("Created container: {name}"));
        let started = service.start_container(&id).await;
        let seen = match service.container_status(&id).await {
            Ok(status) => Some(container_observed(&status, &self.sandbox_id)),
            Err(_) => None,
        };
        if let Err(error) = started {
            let message = error.to_string();
            event(EventType::Warning, "Failed", format!("Error: {message}"));
            return Launched::Failed(Waiting { reason: "RunContainerError".to_owned(), message }, seen);
        }
        event(EventType::Normal, "Started", format!("Started container {name}"));
        if let Some(hook) = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
            let target = hooks::Target {
                kubelet: &self.kubelet,
                runtime: &self.runtime,
                container: &self.container,
                container_id: &id,
                pod_ip: self.pod_ips.first().map(String::as_str),
            };
            if let Err(message) = hooks::run(&target, hook).await {
                event(EventType::Warning, "FailedPostStartHook", "PostStartHook failed".to_owned());
                event(EventType::Normal, "Killing", "FailedPostStartHook".to_owned());
                // The restart policy decides what follows; what cannot be stopped is seen as running.
                let _ = service.stop_container(&id, hooks::grace_period(&self.pod)).await;
                let waiting = Waiting { reason: "PostStartHookError".to_owned(), message };
                return Launched::Failed(waiting, seen);
            }
        }
        match seen {
            Some(seen) => Launched::Started(seen),
            None => {
                let message = format!("container {id} is gone from the runtime");
                Launched::Failed(Waiting { reason: "RunContainerError".to_owned(), message }, None)
            }
        }
    }

    /// The runtime that has, or is to fetch, the image: in a pod of two runtimes that depends on the image.
    async fn image_holder(&self) -> Arc<NodeRuntime> {
        if !self.kubelet.runtimes.is_mixed(&self.runtime) {
            return self.runtime.clone();
        }
        let secrets = pull_secrets(&self.kubelet, &self.pod, &self.references).await;
        let image = self.container.image.as_deref().unwrap_or_default();
        self.kubelet.runtimes.by_image(image, &secrets).await
    }

    fn waits(&self, reason: &str, message: &str, event: &str) -> Launched {
        let text = format!("Error: {event}");
        self.kubelet.container_event(&self.pod, &self.container.name, EventType::Warning, "Failed", text);
        Launched::Waiting(Waiting { reason: reason.to_owned(), message: message.to_owned() })
    }

    /// A guest that was not looked through with its pod, because it is ephemeral or stands beside processes.
    ///
    /// # Errors
    /// What it asks for and cannot have; an ephemeral one came to look, not to be kept out.
    fn tell_unsupported(&self, kind: RuntimeKind) -> Result<(), String> {
        let name = &self.container.name;
        let is_ephemeral = is_ephemeral(&self.pod, name);
        if kind != RuntimeKind::Wasm || !(is_ephemeral || self.runtime.kind() == RuntimeKind::Linux) {
            return Ok(());
        }
        let (refused, mut fields) = guest_fields_of(&self.pod, &self.container);
        if !refused.is_empty() && !is_ephemeral {
            return Err(format!("a WebAssembly guest cannot have {}", refused.join(", ")));
        }
        fields.extend(refused);
        if !fields.is_empty() {
            let message = format!("Fields without effect here: {}", fields.join(", "));
            self.kubelet.container_event(&self.pod, name, EventType::Warning, unsupported::REASON, message);
        }
        Ok(())
    }

    /// The user that the image names, checked against the pod's wish not to be root. Guests have no user.
    async fn image_user(&self, image_ref: &str, holder: &NodeRuntime) -> Result<ImageUser, String> {
        if holder.kind() == RuntimeKind::Wasm {
            return Ok(ImageUser::default());
        }
        let spec = ImageSpec { image: image_ref.to_owned(), ..ImageSpec::default() };
        let image = holder.service.image_status(&spec).await.map_err(|error| error.to_string())?;
        let user =
            image.map(|image| ImageUser { uid: image.uid, username: image.username }).unwrap_or_default();
        verify_run_as_non_root(&self.pod, &self.container, &user)?;
        Ok(user)
    }

    /// The pod's `/etc/hosts`, unless the container brings its own. Guests have no root that would keep it from them.
    async fn hosts_mount(&self, kind: RuntimeKind) -> Result<Option<Mount>, String> {
        let is_guest = kind == RuntimeKind::Wasm;
        if self.pod_ips.is_empty() || !is_managed(&self.container, is_guest) {
            return Ok(None);
        }
        let (pod, pod_ips) = (self.pod.clone(), self.pod_ips.clone());
        let domain = self.kubelet.node_facts.cluster_domain.clone();
        let pod_dir = self.kubelet.pod_dir(self.pod.metadata.uid.as_deref().unwrap_or_default());
        let made = tokio::task::spawn_blocking(move || {
            let on_host = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
            let host =
                if on_host { std::fs::read_to_string(hosts_file::CONTAINER_PATH)? } else { String::new() };
            let mount = hosts_file::hosts_mount(&pod_dir, &hosts_text(&pod, &pod_ips, &domain, &host))?;
            Ok::<_, std::io::Error>(Mount { readonly: is_guest, ..mount })
        });
        match made.await {
            Ok(made) => made.map(Some).map_err(|error| format!("failed to write hosts file: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn configure(&self, kind: RuntimeKind) -> Result<(BTreeMap<String, String>, Vec<Mount>), String> {
        let metadata = &self.pod.metadata;
        let (namespace, uid) =
            (metadata.namespace.as_deref().unwrap_or_default(), metadata.uid.as_deref().unwrap_or_default());
        let sources = self
            .kubelet
            .objects
            .gather(uid, namespace, &self.references)
            .await
            .map_err(|error| error.to_string())?;
        let links = self.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
        let store = self.kubelet.services.store();
        let mut visible = store.list_namespace(MASTER_SERVICE_NAMESPACE);
        if namespace != MASTER_SERVICE_NAMESPACE {
            visible.extend(store.list_namespace(namespace));
        }
        visible.retain(|service| is_visible(service, namespace, links));
        let services = service_environment(visible.iter().map(std::convert::AsRef::as_ref));
        let facts = PodFacts {
            host_ip: self.kubelet.host_ip.clone(),
            pod_ips: self.pod_ips.clone(),
            allocatable: self.kubelet.allocatable.clone(),
        };
        let input =
            EnvironmentInput { pod: &self.pod, sources: &sources, facts: &facts, services: &services };
        let environment = container_environment(input, &self.container).map_err(|error| error.to_string())?;
        let owner = self.kubelet.config.runtime_owner_uid;
        let pod_dir = self.kubelet.pod_dir(uid);
        let is_root = rustix::process::geteuid().is_root();
        let sub_paths = if is_root && kind == RuntimeKind::Linux {
            SubPaths::Mounted(&pod_dir)
        } else {
            SubPaths::ByPath
        };
        let (pod, container, volumes) = (&self.pod, &self.container, &self.volumes);
        let mut mounts = container_mounts(pod, container, volumes, &environment, owner, sub_paths)?;
        mounts.extend(self.hosts_mount(kind).await?);
        mounts.push(self.termination_message_mount().map_err(|error| error.to_string())?);
        Ok((environment, mounts))
    }

    /// A file for the container's last words.
    fn termination_message_mount(&self) -> std::io::Result<Mount> {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let pod_dir = self.kubelet.pod_dir(uid);
        let owner = self.kubelet.config.runtime_owner_uid;
        let file = termination_message_file(&self.kubelet, uid, &self.container.name, self.restart_count);
        if let Some(parent) = file.parent() {
            make_directory(&pod_dir, parent, Writer::Kubelet, owner)?;
        }
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&file)?;
        made.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        if owner.is_some() {
            std::os::unix::fs::fchown(&made, owner, owner)?;
        }
        let path = self.container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        Ok(Mount {
            container_path: path.unwrap_or("/dev/termination-log").to_owned(),
            host_path: file.to_string_lossy().into_owned(),
            ..Mount::default()
        })
    }
}

/// Where a container's last words are kept on the node.
pub(crate) fn termination_message_file(
    kubelet: &Kubelet,
    uid: &str,
    container: &str,
    restart_count: u32,
) -> PathBuf {
    kubelet
        .pod_dir(uid)
        .join("containers")
        .join(path_part(container))
        .join(format!("termination-{restart_count}"))
}
