//! What the node as a whole uses, from the kernel's files.

use std::fs;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;

use super::disk::file_system;
use super::model::{CpuStats, InterfaceStats, MemoryStats, NetworkStats, NodeStats, RlimitStats, SwapStats};
use super::rates::Rates;

/// Length of a tick in `/proc/stat`, in nanoseconds. Source: proc(5): `USER_HZ` is 100 on every architecture that Linux
/// runs on here.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// Measures. Blocking.
pub(super) fn measure(node_name: &str, root_dir: &Path, rates: &Rates, time: Timestamp) -> NodeStats {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let nanoseconds = i64::try_from(time.as_nanosecond()).unwrap_or(0);
    let used = cpu_nanoseconds(&text("/proc/stat"));
    let meminfo = text("/proc/meminfo");
    NodeStats {
        node_name: node_name.to_owned(),
        start_time: boot_time(&text("/proc/stat")),
        cpu: used.map(|used| CpuStats {
            time,
            usage_nano_cores: rates.look("", nanoseconds, used),
            usage_core_nano_seconds: Some(used),
        }),
        memory: Some(memory(&meminfo, &text("/proc/vmstat"), time)),
        network: Some(network(&text("/proc/net/dev"), &text("/proc/net/route"), time)),
        fs: file_system(root_dir, time),
        runtime: None,
        rlimit: Some(RlimitStats {
            time,
            maxpid: text("/proc/sys/kernel/pid_max").trim().parse().ok(),
            curproc: text("/proc/loadavg")
                .split('/')
                .nth(1)
                .and_then(|rest| rest.split(' ').next()?.parse().ok()),
        }),
        swap: swap(&meminfo, time),
    }
}

/// Time in which any core did something. Source: proc(5): user, nice, system, irq, softirq and steal; guests are in user.
fn cpu_nanoseconds(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index)).sum();
    Some(busy.saturating_mul(TICK_NANOSECONDS))
}

fn boot_time(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

fn field_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// As cgroups count: the working set is what is in use without the file cache that nobody used lately.
fn memory(meminfo: &str, vmstat: &str, time: Timestamp) -> MemoryStats {
    let of = |name| field_bytes(meminfo, name);
    let usage = of("MemTotal").zip(of("MemFree")).map(|(total, free)| total.saturating_sub(free));
    let working_set = usage.map(|usage| usage.saturating_sub(of("Inactive(file)").unwrap_or(0)));
    let fault =
        |name: &str| vmstat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    MemoryStats {
        time,
        available_bytes: of("MemTotal").zip(working_set).map(|(total, used)| total.saturating_sub(used)),
        usage_bytes: usage,
        working_set_bytes: working_set,
        rss_bytes: of("AnonPages"),
        page_faults: fault("pgfault "),
        major_page_faults: fault("pgmajfault "),
    }
}

fn swap(meminfo: &str, time: Timestamp) -> Option<SwapStats> {
    let (total, free) = field_bytes(meminfo, "SwapTotal").zip(field_bytes(meminfo, "SwapFree"))?;
    Some(SwapStats {
        time,
        swap_available_bytes: Some(free),
        swap_usage_bytes: Some(total.saturating_sub(free)),
    })
}

/// Interfaces other than the loopback; the default one is that of the default route.
fn network(devices: &str, routes: &str, time: Timestamp) -> NetworkStats {
    let interfaces: Vec<InterfaceStats> = devices
        .lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> =
                counters.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
            let name = name.trim();
            (name != "lo").then(|| InterfaceStats {
                name: name.to_owned(),
                rx_bytes: counters.first().copied(),
                rx_errors: counters.get(2).copied(),
                tx_bytes: counters.get(8).copied(),
                tx_errors: counters.get(10).copied(),
            })
        })
        .collect();
    let default_name = routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "00000000").then_some(name)
    });
    let default = interfaces.iter().find(|interface| Some(interface.name.as_str()) == default_name).cloned();
    NetworkStats { time, default, interfaces }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "cpu  100 10 50 900 7 3 2 1 40 0\ncpu0 1 1\nbtime 1700000000\n";
        assert_eq!(cpu_nanoseconds(stat), Some(166 * TICK_NANOSECONDS));
        assert_eq!(boot_time(stat), Timestamp::from_second(1_700_000_000).ok());
        let meminfo = "MemTotal: 1000 kB\nMemFree: 200 kB\nInactive(file): 300 kB\nAnonPages: 50 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n";
        let memory = memory(meminfo, "pgfault 7\npgmajfault 3\n", Timestamp::UNIX_EPOCH);
        assert_eq!(memory.usage_bytes, Some(800 * 1024));
        assert_eq!(memory.working_set_bytes, Some(500 * 1024));
        assert_eq!(memory.available_bytes, Some(500 * 1024));
        assert_eq!((memory.page_faults, memory.major_page_faults), (Some(7), Some(3)));
        assert_eq!(swap(meminfo, Timestamp::UNIX_EPOCH).unwrap().swap_usage_bytes, Some(6 * 1024));
        let devices = "Inter-|   Receive\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 1 2 0 0 0 0 0 20 1 4 0 0 0 0 0\n";
        let routes = "Iface\tDestination\neth0\t0000A8C0\neth0\t00000000\t0100A8C0\n";
        let network = network(devices, routes, Timestamp::UNIX_EPOCH);
        assert_eq!(network.interfaces.len(), 1);
        let eth0 = network.default.unwrap();
        assert_eq!(
            (eth0.rx_bytes, eth0.rx_errors, eth0.tx_bytes, eth0.tx_errors),
            (Some(10), Some(2), Some(20), Some(4))
        );
    }

    #[test]
    fn this_machine_uses_something() {
        let stats = measure("n", Path::new("/"), &Rates::default(), Timestamp::now());
        assert!(stats.cpu.unwrap().usage_core_nano_seconds > Some(0));
        assert!(stats.memory.unwrap().working_set_bytes > Some(0));
        assert!(stats.fs.unwrap().capacity_bytes > Some(0));
    }
}
