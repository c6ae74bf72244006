//! The Service proxy: pure rules and the backends that carry them out.
