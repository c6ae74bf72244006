//! The pod network: on machines of the tests' own. Only root can make them; for anybody else these tests are skipped, and say so.

mod container_streams;
mod containers;
mod matrix;
mod nodes;
mod remains;

/// Whether this user can make machines; says so when not.
fn is_possible(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED {test}: only root can make network namespaces");
    }
    is_root
}
