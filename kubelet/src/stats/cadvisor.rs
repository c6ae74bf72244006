//! `/metrics/cadvisor`: the names that dashboards ask for. Source: cAdvisor's `metrics/prometheus.go`.

use super::exposition::{Family, Kind, number, seconds};
use super::model::{CpuStats, InterfaceStats, MemoryStats, Summary};

/// What of the machine is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineFacts {
    /// Thousandths of a core.
    pub(crate) cpu_millicores: i64,
    /// Bytes.
    pub(crate) memory_bytes: i64,
}

struct Families {
    cpu: Family,
    working_set: Family,
    usage: Family,
    rss: Family,
    failures: Family,
    swap: Family,
    fs: Family,
    started: Family,
    seen: Family,
    processes: Family,
    received: Family,
    receive_errors: Family,
    transmitted: Family,
    transmit_errors: Family,
}

impl Families {
    fn new() -> Self {
        use Kind::{Counter, Gauge};
        Self {
            cpu: Family::new(
                "container_cpu_usage_seconds",
                "Cumulative cpu time consumed in seconds.",
                Counter,
            ),
            working_set: Family::new(
                "container_memory_working_set_bytes",
                "Current working set in bytes.",
                Gauge,
            ),
            usage: Family::new(
                "container_memory_usage_bytes",
                "Current memory usage in bytes, including all memory regardless of when it was accessed",
                Gauge,
            ),
            rss: Family::new("container_memory_rss", "Size of RSS in bytes.", Gauge),
            failures: Family::new(
                "container_memory_failures",
                "Cumulative count of memory allocation failures.",
                Counter,
            ),
            swap: Family::new("container_memory_swap", "Container swap usage in bytes.", Gauge),
            fs: Family::new(
                "container_fs_usage_bytes",
                "Number of bytes that are consumed by the container on this filesystem.",
                Gauge,
            ),
            started: Family::new(
                "container_start_time_seconds",
                "Start time of the container since unix epoch in seconds.",
                Gauge,
            ),
            seen: Family::new("container_last_seen", "Last time a container was seen by the exporter", Gauge),
            processes: Family::new(
                "container_processes",
                "Number of processes running inside the container.",
                Gauge,
            ),
            received: Family::new(
                "container_network_receive_bytes",
                "Cumulative count of bytes received",
                Counter,
            ),
            receive_errors: Family::new(
                "container_network_receive_errors",
                "Cumulative count of errors encountered while receiving",
                Counter,
            ),
            transmitted: Family::new(
                "container_network_transmit_bytes",
                "Cumulative count of bytes transmitted",
                Counter,
            ),
            transmit_errors: Family::new(
                "container_network_transmit_errors",
                "Cumulative count of errors encountered while transmitting",
                Counter,
            ),
        }
    }

    fn add_usage(&mut self, subject: &Subject<'_>, cpu: Option<CpuStats>, memory: Option<MemoryStats>) {
        if let Some(cpu) = cpu {
            let mut labels = subject.labels();
            labels.insert(1, ("cpu", "total".to_owned()));
            if let Some(used) = cpu.usage_core_nano_seconds {
                self.cpu.add(labels, seconds(used));
            }
            let milliseconds = u64::try_from(cpu.time.as_millisecond()).unwrap_or(0);
            self.seen.add(subject.labels(), number(milliseconds / 1000));
        }
        let Some(memory) = memory else { return };
        for (family, bytes) in [
            (&mut self.working_set, memory.working_set_bytes),
            (&mut self.usage, memory.usage_bytes),
            (&mut self.rss, memory.rss_bytes),
        ] {
            if let Some(bytes) = bytes {
                family.add(subject.labels(), number(bytes));
            }
        }
        for (kind, count) in [("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults)] {
            if let Some(count) = count {
                let mut labels = subject.labels();
                labels.push(("failure_type", kind.to_owned()));
                labels.push(("scope", "container".to_owned()));
                self.failures.add(labels, number(count));
            }
        }
    }

    fn add_traffic(&mut self, subject: &Subject<'_>, interface: &InterfaceStats) {
        for (family, count) in [
            (&mut self.received, interface.rx_bytes),
            (&mut self.receive_errors, interface.rx_errors),
            (&mut self.transmitted, interface.tx_bytes),
            (&mut self.transmit_errors, interface.tx_errors),
        ] {
            if let Some(count) = count {
                let mut labels = subject.labels();
                labels.push(("interface", interface.name.clone()));
                family.add(labels, number(count));
            }
        }
    }
}

/// What a number is of; empty labels are those of the whole node or pod, as cAdvisor has them.
#[derive(Default)]
struct Subject<'a> {
    container: &'a str,
    id: String,
    image: &'a str,
    namespace: &'a str,
    pod: &'a str,
}

impl Subject<'_> {
    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("container", self.container.to_owned()),
            ("id", self.id.clone()),
            ("image", self.image.to_owned()),
            (
                "name",
                self.id
                    .rsplit('/')
                    .next()
                    .filter(|_| !self.container.is_empty())
                    .unwrap_or_default()
                    .to_owned(),
            ),
            ("namespace", self.namespace.to_owned()),
            ("pod", self.pod.to_owned()),
        ]
    }
}

/// The metrics of a summary.
pub(crate) fn families(summary: &Summary, machine: MachineFacts) -> Vec<Family> {
    let mut all = Families::new();
    let node = Subject { id: "/".to_owned(), ..Subject::default() };
    all.add_usage(&node, summary.node.cpu, summary.node.memory);
    for interface in summary.node.network.iter().flat_map(|network| &network.interfaces) {
        all.add_traffic(&node, interface);
    }
    if let Some(bytes) = summary.node.fs.and_then(|fs| fs.used_bytes) {
        all.fs.add(node.labels(), number(bytes));
    }
    for pod in &summary.pods {
        let id = format!("/kubepods/pod{}", pod.pod_ref.uid);
        let subject = Subject {
            id: id.clone(),
            namespace: &pod.pod_ref.namespace,
            pod: &pod.pod_ref.name,
            ..Subject::default()
        };
        all.add_usage(&subject, pod.cpu, pod.memory);
        for interface in pod.network.iter().flat_map(|network| &network.interfaces) {
            all.add_traffic(&subject, interface);
        }
        if let Some(count) = pod.processes.and_then(|p| p.process_count) {
            all.processes.add(subject.labels(), number(count));
        }
        for container in &pod.containers {
            let subject = Subject {
                container: &container.name,
                id: format!("{id}/{}", container.id),
                image: &container.image,
                ..Subject { id: String::new(), ..subject_of(pod) }
            };
            all.add_usage(&subject, container.cpu, container.memory);
            if let Some(time) = container.start_time {
                let milliseconds = u64::try_from(time.as_millisecond()).unwrap_or(0);
                all.started.add(subject.labels(), number(milliseconds) / 1e3);
            }
            if let Some(bytes) = container.rootfs.and_then(|fs| fs.used_bytes) {
                all.fs.add(subject.labels(), number(bytes));
            }
            if let Some(bytes) = container.swap.and_then(|swap| swap.swap_usage_bytes) {
                all.swap.add(subject.labels(), number(bytes));
            }
        }
    }
    let whole = |value: i64| number(u64::try_from(value).unwrap_or(0));
    let mut cores = Family::new("machine_cpu_cores", "Number of logical CPU cores.", Kind::Gauge);
    cores.add(Vec::new(), whole(machine.cpu_millicores / 1000));
    let mut memory =
        Family::new("machine_memory_bytes", "Amount of memory installed on the machine.", Kind::Gauge);
    memory.add(Vec::new(), whole(machine.memory_bytes));
    vec![
        all.cpu,
        all.fs,
        all.seen,
        all.failures,
        all.rss,
        all.swap,
        all.usage,
        all.working_set,
        all.received,
        all.receive_errors,
        all.transmitted,
        all.transmit_errors,
        all.processes,
        all.started,
        cores,
        memory,
    ]
}

fn subject_of(pod: &super::model::PodStats) -> Subject<'_> {
    Subject { namespace: &pod.pod_ref.namespace, pod: &pod.pod_ref.name, ..Subject::default() }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::text;
    use super::super::model::*;
    use super::*;

    #[test]
    fn containers_pods_and_the_node_are_told_apart_by_their_labels() {
        let cpu = CpuStats { usage_core_nano_seconds: Some(2_000_000_000), ..CpuStats::default() };
        let interface =
            InterfaceStats { name: "eth0".into(), rx_bytes: Some(5), ..InterfaceStats::default() };
        let summary = Summary {
            node: NodeStats { cpu: Some(cpu), ..NodeStats::default() },
            pods: vec![PodStats {
                pod_ref: PodReference { name: "p".into(), namespace: "n".into(), uid: "u".into() },
                network: Some(NetworkStats { interfaces: vec![interface], ..NetworkStats::default() }),
                containers: vec![ContainerStats {
                    name: "c".into(),
                    id: "abc".into(),
                    image: "i:1".into(),
                    cpu: Some(cpu),
                    ..ContainerStats::default()
                }],
                ..PodStats::default()
            }],
        };
        let machine = MachineFacts { cpu_millicores: 2000, memory_bytes: 1 << 30 };
        let text = text(families(&summary, machine)).unwrap();
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",cpu=\"total\",id=\"/kubepods/podu/abc\",image=\"i:1\",name=\"abc\",namespace=\"n\",pod=\"p\"} 2.0",
            "container_cpu_usage_seconds_total{container=\"\",cpu=\"total\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"} 2.0",
            "container_network_receive_bytes_total{container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\",interface=\"eth0\"} 5.0",
            "machine_cpu_cores 2.0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
    }
}
