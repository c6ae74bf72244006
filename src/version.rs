//! What this binary is.

/// Wherry's version.
pub const WHERRY: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from.
pub const COMMIT: &str = env!("WHERRY_COMMIT");

/// The Kubernetes version whose API is served.
pub const KUBERNETES: &str = "v1.36.0";

/// What `wherry --version` prints after the name.
pub const LONG: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("WHERRY_COMMIT"), ", Kubernetes v1.36.0)");
