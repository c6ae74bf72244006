//! REST verbs, written once for every kind; what distinguishes kinds is their [`strategy::Strategy`].

pub mod strategy;
