//! The resource endpoints over HTTP: routing by [`request_info::RequestInfo`], content negotiation, verbs, watch streams.

pub mod query;
pub mod request_info;
