//! `/version`.

use serde::Serialize;

/// What this server is, in the shape of `version.Info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Of the Kubernetes API that is served.
    pub major: &'static str,
    /// Of the Kubernetes API that is served.
    pub minor: &'static str,
    /// Whose behaviour is shown.
    pub emulation_major: &'static str,
    /// Whose behaviour is shown.
    pub emulation_minor: &'static str,
    /// The oldest server that can run beside this one.
    pub min_compatibility_major: &'static str,
    /// The oldest server that can run beside this one.
    pub min_compatibility_minor: &'static str,
    /// `v1.36.0+wherry.<version>`.
    pub git_version: String,
    /// The commit that was built; empty if not known.
    pub git_commit: String,
    /// `clean`, or `archive` if the commit is not known.
    pub git_tree_state: &'static str,
    /// When that was; empty if not known.
    pub build_date: String,
    /// Kubernetes has its Go version here.
    pub go_version: &'static str,
    /// The compiler.
    pub compiler: &'static str,
    /// Such as `linux/amd64`.
    pub platform: String,
}

impl Version {
    /// The version of this build; `commit` and `build_date` are empty if not known.
    pub fn new(commit: &str, build_date: &str) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            major: "1",
            minor: "36",
            emulation_major: "1",
            emulation_minor: "36",
            min_compatibility_major: "1",
            min_compatibility_minor: "35",
            git_version: format!("v1.36.0+wherry.{}", env!("CARGO_PKG_VERSION")),
            git_commit: commit.to_owned(),
            git_tree_state: if commit.is_empty() { "archive" } else { "clean" },
            build_date: build_date.to_owned(),
            go_version: "",
            compiler: "rustc",
            platform: format!("{}/{architecture}", std::env::consts::OS),
        }
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::new("", "")
    }
}
