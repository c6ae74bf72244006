//! CRI over gRPC: any endpoint as a runtime, and any runtime as an endpoint.
