//! The node agent: pod workers, probes, volumes, images, status and the node API.
