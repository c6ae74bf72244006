//! Images: names, credentials, pulls.

pub mod pull_secrets;
pub mod puller;
pub mod reference;
