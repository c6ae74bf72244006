//! The configuration of our own containerd.

use std::path::PathBuf;

use wherry_runtime_cri::PAUSE_IMAGE;

/// What the configuration is made from.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Images and snapshots.
    pub(super) root: PathBuf,
    /// What does not outlive the machine's uptime.
    pub(super) state: PathBuf,
    /// Where containerd answers.
    pub(super) socket: PathBuf,
    /// Where the CNI plugins are.
    pub(super) cni_plugins: PathBuf,
    /// Where the CNI configuration is.
    pub(super) cni_config: PathBuf,
    /// `overlayfs`, or `native` where that does not work.
    pub(super) snapshotter: &'static str,
    /// Whether the kernel lets us lower the likelihood of being killed when memory is short.
    pub(super) may_lower_oom_score: bool,
}

/// The configuration, in containerd's format 2 (1.3 and newer; 2.x reads it too).
pub(super) fn config(facts: &Facts) -> String {
    let text = |path: &PathBuf| toml_string(&path.to_string_lossy());
    let (root, state, socket) = (text(&facts.root), text(&facts.state), text(&facts.socket));
    let opt = text(&facts.root.join("opt"));
    let runc_root = text(&facts.state.join("runc"));
    let (plugins, networks) = (text(&facts.cni_plugins), text(&facts.cni_config));
    let Facts { snapshotter, may_lower_oom_score, .. } = facts;
    format!(
        r#"# Written by wherry at every start; changes are lost.
version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
]

[debug]
  level = "warn"

[grpc]
  address = {socket}

[plugins."io.containerd.internal.v1.opt"]
  path = {opt}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE a container's score cannot be lower than our own.
  restrict_oom_score_adj = {}
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = {runc_root}
        # The kubelet makes the pods' cgroups itself, in cgroup v1, hybrid and v2 alike.
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {plugins}
    conf_dir = {networks}
"#,
        !may_lower_oom_score
    )
}

/// A TOML string. Source: TOML 1.0, basic strings.
fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            control if control.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_choices_are_in_the_configuration() {
        let facts = Facts {
            root: "/data/\"odd\"".into(),
            state: "/run/s".into(),
            socket: "/run/c.sock".into(),
            cni_plugins: "/usr/lib/cni".into(),
            cni_config: "/data/cni".into(),
            snapshotter: "native",
            may_lower_oom_score: false,
        };
        let text = config(&facts);
        for line in [
            r#"root = "/data/\"odd\"""#,
            r#"  address = "/run/c.sock""#,
            r#"  sandbox_image = "wherry.local/pause:1""#,
            "  restrict_oom_score_adj = true",
            r#"    snapshotter = "native""#,
            r#"        Root = "/run/s/runc""#,
            r#"    conf_dir = "/data/cni""#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
