//! The container runtime interface in CRI's vocabulary, a fake, and the suite every runtime passes.
