//! Role-based access control: which rules a user has, and who may hand out which.

pub mod aggregation;
pub mod escalation;
pub mod policies;
pub mod rule;

pub use policies::{Kind, Policies, RoleRef};
pub use rule::PolicyRule;
