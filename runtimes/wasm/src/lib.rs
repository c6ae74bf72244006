//! The WebAssembly runtime, on wasmtime.
