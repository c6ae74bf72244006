//! Which backend serves.

use std::{fmt, str::FromStr};

/// How Services are served (`--proxy-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyMode {
    /// The best that works here.
    #[default]
    Auto,
    /// Sockets are balanced when they connect, by eBPF; what comes from outside by nftables.
    Ebpf,
    /// Packets are translated by nftables.
    Nftables,
    /// Packets are translated by iptables.
    Iptables,
    /// Connections are accepted and copied by this process.
    Userspace,
}

impl ProxyMode {
    /// All, in the order in which [`choose`] prefers them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Ebpf, Self::Nftables, Self::Iptables, Self::Userspace];

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Userspace => "userspace",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No mode of that name.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no proxy mode `{0}`: choose auto, ebpf, nftables, iptables or userspace")]
pub struct UnknownMode(String);

impl FromStr for ProxyMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

/// What was found out about this machine: for each backend, whether it works, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Pods and Services have addresses in 127.0.0.0/8.
    pub is_loopback: bool,
    /// [`ProxyMode::Ebpf`].
    pub ebpf: Result<(), String>,
    /// [`ProxyMode::Nftables`].
    pub nftables: Result<(), String>,
    /// [`ProxyMode::Iptables`].
    pub iptables: Result<(), String>,
}

/// A backend, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Never [`ProxyMode::Auto`].
    pub mode: ProxyMode,
    /// For the log.
    pub reason: String,
}

/// The backend that `wanted` means here.
///
/// # Errors
/// The one that was asked for by name does not work here, or none does: the reasons.
pub fn choose(wanted: ProxyMode, capabilities: &Capabilities) -> Result<Choice, String> {
    let works = |mode: ProxyMode| match mode {
        ProxyMode::Userspace if capabilities.is_loopback => Ok(()),
        ProxyMode::Userspace => Err("pod and Service addresses are not this machine's own".to_owned()),
        _ if capabilities.is_loopback => {
            Err("the kernel does not translate addresses in 127.0.0.0/8".to_owned())
        }
        ProxyMode::Ebpf => capabilities.ebpf.clone(),
        ProxyMode::Nftables => capabilities.nftables.clone(),
        ProxyMode::Iptables => capabilities.iptables.clone(),
        ProxyMode::Auto => Err(String::new()),
    };
    if wanted != ProxyMode::Auto {
        return match works(wanted) {
            Ok(()) => Ok(Choice { mode: wanted, reason: "asked for".to_owned() }),
            Err(reason) => Err(format!("--proxy-mode={wanted} does not work here: {reason}")),
        };
    }
    let mut refused = Vec::new();
    for mode in [ProxyMode::Ebpf, ProxyMode::Nftables, ProxyMode::Iptables, ProxyMode::Userspace] {
        match works(mode) {
            Ok(()) if refused.is_empty() => {
                return Ok(Choice { mode, reason: "the best there is".to_owned() });
            }
            Ok(()) => return Ok(Choice { mode, reason: refused.join("; ") }),
            Err(reason) => refused.push(format!("not {mode}: {reason}")),
        }
    }
    Err(format!("no proxy mode works here: {}", refused.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(is_loopback: bool, works: [bool; 3]) -> Capabilities {
        let [ebpf, nftables, iptables] =
            works.map(|works| works.then_some(()).ok_or_else(|| "no".to_owned()));
        Capabilities { is_loopback, ebpf, nftables, iptables }
    }

    #[test]
    fn the_best_that_works_is_chosen_and_what_was_asked_for_is_never_replaced() {
        use ProxyMode::{Auto, Ebpf, Iptables, Nftables, Userspace};
        let table = [
            (Auto, false, [true, true, true], Some(Ebpf)),
            (Auto, false, [false, true, true], Some(Nftables)),
            (Auto, false, [false, false, true], Some(Iptables)),
            (Auto, false, [false, false, false], None),
            (Auto, true, [true, true, true], Some(Userspace)),
            (Nftables, false, [true, true, true], Some(Nftables)),
            (Nftables, false, [true, false, true], None),
            (Nftables, true, [true, true, true], None),
            (Userspace, true, [false, false, false], Some(Userspace)),
            (Userspace, false, [true, true, true], None),
        ];
        for (wanted, is_loopback, works, want) in table {
            let got = choose(wanted, &capabilities(is_loopback, works)).ok().map(|choice| choice.mode);
            assert_eq!(got, want, "{wanted} {is_loopback} {works:?}");
        }
    }

    #[test]
    fn the_reason_names_every_better_mode_that_does_not_work() {
        let choice = choose(ProxyMode::Auto, &capabilities(false, [false, false, true])).unwrap();
        assert_eq!(choice.reason, "not ebpf: no; not nftables: no");
        let error = choose(ProxyMode::Iptables, &capabilities(false, [true, true, false])).unwrap_err();
        assert_eq!(error, "--proxy-mode=iptables does not work here: no");
    }

    #[test]
    fn every_name_is_read_back() {
        for mode in ProxyMode::ALL {
            assert_eq!(mode.name().parse::<ProxyMode>().unwrap(), mode);
        }
        assert!("ipvs".parse::<ProxyMode>().is_err());
    }
}
