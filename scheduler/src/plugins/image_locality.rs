//! Nodes that have the pod's images already are better.

use crate::framework::{MAX_NODE_SCORE, Score};
use crate::pod_info::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

const MEGABYTE: i64 = 1024 * 1024;
/// Images of less than this make no difference.
const MIN_BYTES: i64 = 23 * MEGABYTE;
/// More than this, for each container, makes no difference either.
const MAX_BYTES_PER_CONTAINER: i64 = 1000 * MEGABYTE;

/// How many bytes of the pod's images the node has. An image counts in proportion to how many nodes have it, so that not
/// all pods go to the one node that has it.
#[derive(Debug)]
pub struct ImageLocality;

impl Score for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> i64 {
        let node_count = i64::try_from(snapshot.nodes().len()).unwrap_or(i64::MAX).max(1);
        let present = |image: &String| {
            let size_bytes = node.images.get(image)?;
            let nodes_with_it = i64::try_from(snapshot.nodes_with_image(image)).ok()?;
            Some(size_bytes.saturating_mul(nodes_with_it) / node_count)
        };
        let sum: i64 = pod.images.iter().filter_map(present).sum();
        let containers = i64::try_from(pod.container_count).unwrap_or(1).max(1);
        let max_bytes = MAX_BYTES_PER_CONTAINER * containers;
        MAX_NODE_SCORE * (sum.clamp(MIN_BYTES, max_bytes) - MIN_BYTES) / (max_bytes - MIN_BYTES)
    }
}
