//! The controllers, one folder each, each with a pure plan.
