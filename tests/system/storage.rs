//! Claims and volumes, as a user meets them with kubectl.

mod claims;
mod limits;
mod volumes;
