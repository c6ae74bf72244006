//! The node's HTTPS API.

use std::sync::Arc;

use crate::error::Error;
use crate::kubelet::Kubelet;

pub(crate) async fn start(_kubelet: &Arc<Kubelet>) -> Result<u16, Error> {
    Ok(0)
}
