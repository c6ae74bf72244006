//! `/metrics`.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Source: kube-apiserver's buckets, thinned.
const DURATION_BUCKETS_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What a request was, by names from a bounded set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) scope: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestTotalLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

/// The server's own measurements.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestTotalLabels, Counter>,
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    in_flight: Family<KindLabels, Gauge>,
    long_running: Gauge,
    started: SystemTime,
}

fn histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS_SECONDS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestTotalLabels, Counter>::default();
        let durations =
            Family::<RequestLabels, Histogram, fn() -> Histogram>::new_with_constructor(histogram);
        let in_flight = Family::<KindLabels, Gauge>::default();
        let long_running = Gauge::default();
        // The encoder appends `_total` to counters.
        registry.register("apiserver_request", "Requests by verb, resource and code", requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to answer, without watches and other streams",
            durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being answered, by kind",
            in_flight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches and other open streams",
            long_running.clone(),
        );
        Self { registry, requests, durations, in_flight, long_running, started: SystemTime::now() }
    }

    /// Counts an answered request; streams have no duration.
    pub(crate) fn observe(&self, labels: RequestLabels, code: u16, duration: Option<Duration>) {
        if let Some(duration) = duration {
            self.durations.get_or_create(&labels).observe(duration.as_secs_f64());
        }
        let RequestLabels { verb, group, version, resource, subresource, scope } = labels;
        let labels = RequestTotalLabels {
            verb,
            group,
            version,
            resource,
            subresource,
            scope,
            component: "apiserver",
            code,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// The gauge of open streams.
    pub(crate) fn long_running(&self) -> &Gauge {
        &self.long_running
    }

    /// Everything, in the OpenMetrics text form.
    pub(crate) fn encode(&self, (read_only, mutating): (usize, usize)) -> String {
        let set = |request_kind, value: usize| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            self.in_flight.get_or_create(&KindLabels { request_kind }).set(value);
        };
        set("readOnly", read_only);
        set("mutating", mutating);
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut out, &self.registry);
        self.encode_process(&mut out);
        let _ = text::encode_eof(&mut out);
        out
    }

    fn encode_process(&self, out: &mut String) {
        let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{suffix} {value}\n");
        };
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        metric("process_start_time_seconds", "gauge", "When the process started", started);
        if let Some(process) = Process::read() {
            metric("process_cpu_seconds", "counter", "CPU time used", process.cpu_seconds);
            metric("process_resident_memory_bytes", "gauge", "Resident memory", process.resident_bytes);
            metric("process_virtual_memory_bytes", "gauge", "Address space", process.virtual_bytes);
            metric("process_open_fds", "gauge", "Open file descriptors", process.open_files);
        }
    }
}

/// What the kernel knows of this process.
struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_files: f64,
}

impl Process {
    fn read() -> Option<Self> {
        // The kernel's clock ticks are 100 a second, and pages 4 KiB, on the machines that we run on.
        const TICKS_PER_SECOND: f64 = 100.0;
        const PAGE_BYTES: f64 = 4096.0;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The program's name stands in brackets and may hold anything; the fields after it are counted from 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * PAGE_BYTES,
            open_files: std::fs::read_dir("/proc/self/fd")
                .ok()?
                .count()
                .try_into()
                .map(|count: u32| f64::from(count))
                .ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_were() {
        let metrics = Metrics::new();
        let labels = RequestLabels {
            verb: "LIST".to_owned(),
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            subresource: String::new(),
            scope: "namespace",
        };
        metrics.observe(labels.clone(), 200, Some(Duration::from_millis(3)));
        metrics.observe(labels, 403, None);
        let text = metrics.encode((2, 1));
        for line in [
            r#"apiserver_request_total{verb="LIST",group="",version="v1",resource="pods",subresource="",scope="namespace",component="apiserver",code="200"} 1"#,
            r#"apiserver_request_duration_seconds_bucket{le="0.005",verb="LIST",group="",version="v1",resource="pods",subresource="",scope="namespace"} 1"#,
            r#"apiserver_current_inflight_requests{request_kind="readOnly"} 2"#,
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
