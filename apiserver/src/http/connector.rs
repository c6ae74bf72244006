//! The seam for subresources that are not views of the object: logs, exec, tokens, proxies.

use async_trait::async_trait;
use axum::extract::Request;
use axum::response::Response;

use super::request_info::RequestInfo;
use crate::identity::Identity;
use crate::registry::{Refusal, Registry};

/// Answers the subresources that the table of kinds names [`crate::kinds::Subresource::Connect`].
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Answers a request to `info.subresource` of `info.resource`; whether the object exists is for the connector to find out.
    async fn connect(
        &self,
        registry: &Registry,
        identity: &Identity,
        info: &RequestInfo,
        request: Request,
    ) -> Result<Response, Refusal>;
}

/// A server without a node to connect to: every such request is refused.
#[derive(Debug, Default)]
pub struct NoConnector;

#[async_trait]
impl Connector for NoConnector {
    async fn connect(
        &self,
        _registry: &Registry,
        _identity: &Identity,
        _info: &RequestInfo,
        _request: Request,
    ) -> Result<Response, Refusal> {
        Err(super::no_such_resource())
    }
}
