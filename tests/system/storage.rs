//! Claims and volumes, as a user meets them with kubectl.

mod claims;
mod containers;
mod limits;
mod volumes;
