//! What reaches a pod, and what a pod reaches.

mod outbound;
mod services;
