//! The cluster as the scheduler sees it: its nodes, with what the pods on them take.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::host_ports::HostPort;
use crate::pod_info::PodInfo;
use crate::resources::{Resources, Weight};
use crate::volumes::Volumes;

/// A node, and what is left of it.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The object.
    pub node: Arc<Node>,
    /// Its name.
    pub name: String,
    /// What pods can have.
    pub allocatable: Resources,
    /// How many pods can be on it.
    pub allocatable_pods: usize,
    /// What its pods, assumed ones included, ask for.
    pub requested: Resources,
    /// The same for scores.
    pub weight: Weight,
    /// Ports that its pods have for themselves.
    pub used_ports: Vec<HostPort>,
    /// How many pods are on it.
    pub pod_count: usize,
    /// The images that it has, by each of their names, with their size in bytes.
    pub images: HashMap<String, i64>,
}

/// All nodes. The scheduling cycle reads it and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    index: HashMap<String, usize>,
    /// How many nodes have an image of this name.
    image_nodes: HashMap<String, usize>,
    volumes: Volumes,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: Arc<Node>) -> Self {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let pods = allocatable.and_then(|allocatable| allocatable.get("pods"));
        let images = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
        let images = images
            .flat_map(|image| {
                let size_bytes = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size_bytes))
            })
            .collect();
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            allocatable: allocatable.map(Resources::from_list).unwrap_or_default(),
            allocatable_pods: pods.map_or(0, whole_number),
            requested: Resources::default(),
            weight: Weight::default(),
            used_ports: Vec::new(),
            pod_count: 0,
            images,
            node,
        }
    }

    /// Its taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// Whether new pods are not wanted on it.
    pub fn is_unschedulable(&self) -> bool {
        self.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
    }

    /// Count a pod in.
    pub fn add_pod(&mut self, pod: &PodInfo) {
        self.requested.add(&pod.requests);
        self.weight.cpu_millicores += pod.weight.cpu_millicores;
        self.weight.memory_bytes += pod.weight.memory_bytes;
        self.used_ports.extend(pod.host_ports.iter().cloned());
        self.pod_count += 1;
    }

    /// Count a pod out that was counted in.
    pub fn remove_pod(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.requests);
        self.weight.cpu_millicores -= pod.weight.cpu_millicores;
        self.weight.memory_bytes -= pod.weight.memory_bytes;
        for port in &pod.host_ports {
            if let Some(at) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(at);
            }
        }
        self.pod_count = self.pod_count.saturating_sub(1);
    }

    /// The node has changed; its pods have not.
    fn replace_node(&mut self, node: Arc<Node>) {
        let empty = Self::new(node);
        self.node = empty.node;
        self.allocatable = empty.allocatable;
        self.allocatable_pods = empty.allocatable_pods;
        self.images = empty.images;
    }
}

fn whole_number(quantity: &Quantity) -> usize {
    let value =
        quantity.0.parse().map_or(0, |quantity: wherry_machinery::quantity::Quantity| quantity.value());
    usize::try_from(value).unwrap_or(0)
}

impl Snapshot {
    /// All nodes, in an order that stays while none comes or goes.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    pub(crate) fn node_mut(&mut self, name: &str) -> Option<&mut NodeInfo> {
        self.index.get(name).map(|at| &mut self.nodes[*at])
    }

    /// Claims, volumes and classes of storage.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    pub(crate) fn volumes_mut(&mut self) -> &mut Volumes {
        &mut self.volumes
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// A node has come, or is not what it was.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(at) = self.index.get(&name).copied() {
            self.count_images(at, |count| *count = count.saturating_sub(1));
            self.nodes[at].replace_node(node);
            self.count_images(at, |count| *count += 1);
        } else {
            let at = self.nodes.len();
            self.nodes.push(NodeInfo::new(node));
            self.index.insert(name, at);
            self.count_images(at, |count| *count += 1);
        }
    }

    /// A node is gone, with what was counted on it.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.remove(name) else { return };
        self.count_images(at, |count| *count = count.saturating_sub(1));
        self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name.clone(), at);
        }
    }

    fn count_images(&mut self, at: usize, change: fn(&mut usize)) {
        for image in self.nodes[at].images.keys() {
            let count = self.image_nodes.entry(image.clone()).or_default();
            change(count);
            if *count == 0 {
                self.image_nodes.remove(image);
            }
        }
    }
}
