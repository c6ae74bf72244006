//! Metrics as text.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text as openmetrics};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows. `_total` is added to the name.
    Counter,
    /// It is so now.
    Gauge,
}

/// A number with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Labels.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// Numbers of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Name, without `_total`.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    /// What they mean.
    pub kind: Kind,
    /// The numbers.
    pub samples: Vec<Sample>,
}

impl Family {
    /// Without numbers.
    pub fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    /// Adds a number.
    pub fn add(&mut self, labels: Vec<(&'static str, String)>, value: f64) {
        self.samples.push(Sample { labels, value });
    }
}

/// Bytes, and other whole numbers: exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "the format's numbers are floating")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

/// Seconds from nanoseconds.
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    number(nanoseconds) / 1e9
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in &family.samples {
                if sample.labels.is_empty() {
                    write(&mut metric, family.kind, sample.value)?;
                } else {
                    write(&mut metric.encode_family(&sample.labels)?, family.kind, sample.value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(encoder: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Counter => encoder.encode_counter::<Vec<(&'static str, String)>, f64, f64>(&value, None),
        Kind::Gauge => encoder.encode_gauge(&value),
    }
}

/// The text, in OpenMetrics' format.
///
/// # Errors
/// Never in practice: writing to a string does not fail.
pub(crate) fn text(families: Vec<Family>) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    openmetrics::encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_with_their_types_and_labels() {
        let mut counter = Family::new("cpu_seconds", "Time.", Kind::Counter);
        counter.add(vec![("pod", "a\"b".to_owned()), ("namespace", "n".to_owned())], 1.5);
        let mut gauge = Family::new("memory_bytes", "Memory.", Kind::Gauge);
        gauge.add(Vec::new(), 7.0);
        let empty = Family::new("nothing", "None.", Kind::Gauge);
        let written = text(vec![counter, gauge, empty]).unwrap();
        assert_eq!(
            written,
            "# HELP cpu_seconds Time.\n# TYPE cpu_seconds counter\ncpu_seconds_total{pod=\"a\\\"b\",namespace=\"n\"} 1.5\n# HELP memory_bytes Memory.\n# TYPE memory_bytes gauge\nmemory_bytes 7.0\n# EOF\n"
        );
    }
}
