//! Where what happens is counted, and how an answer to a scrape is made.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{Described, Kind};

/// The recorder of this process. Nodes that share a process share it: what happens in one of them is counted for
/// all.
#[derive(Clone)]
pub struct Recorder {
    inventory: &'static [&'static [Described]],
    counted: PrometheusHandle,
}

impl Recorder {
    /// Starts to count, by these inventories. Later calls in a process get what the first one made; none when
    /// another program's recorder is there already.
    #[must_use]
    pub fn start(inventory: &'static [&'static [Described]]) -> Option<Recorder> {
        static STARTED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
        let started = STARTED.get_or_init(|| {
            let recorder = builder(inventory).build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            describe(inventory);
            keep(handle.clone());
            Some(handle)
        });
        started.clone().map(|counted| Recorder { inventory, counted })
    }

    /// An answer to a scrape: what was counted, and what `sample` sets now.
    #[must_use]
    pub fn read(&self, sample: impl FnOnce()) -> String {
        let sampled = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&sampled, || {
            describe(self.inventory);
            sample();
        });
        sampled.handle().render() + &self.counted.render()
    }
}

/// Puts what histograms were told into their buckets now and then: until then each value is kept, and perhaps nobody
/// ever scrapes this process.
fn keep(handle: PrometheusHandle) {
    const INTERVAL: Duration = Duration::from_secs(5);
    let kept = std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(INTERVAL);
            handle.run_upkeep();
        }
    });
    // Without it a scrape does the same.
    drop(kept);
}

fn builder(inventory: &[&[Described]]) -> PrometheusBuilder {
    inventory.iter().copied().flatten().fold(PrometheusBuilder::new(), |builder, metric| {
        let Kind::Histogram(buckets) = metric.kind else { return builder };
        let named = Matcher::Full(metric.name.to_owned());
        builder.set_buckets_for_metric(named, buckets).expect("it has buckets")
    })
}

fn describe(inventory: &[&[Described]]) {
    for metric in inventory.iter().copied().flatten() {
        metrics::with_recorder(|recorder| match metric.kind {
            Kind::Counter => {
                recorder.describe_counter(metric.name.into(), None, metric.help.into())
            }
            Kind::Gauge => recorder.describe_gauge(metric.name.into(), None, metric.help.into()),
            Kind::Histogram(_) => {
                recorder.describe_histogram(metric.name.into(), None, metric.help.into());
            }
        });
    }
}

/// Inventories as a table in Markdown, by name.
#[must_use]
pub fn render(inventory: &[&[Described]]) -> String {
    let mut metrics: Vec<&Described> = inventory.iter().copied().flatten().collect();
    metrics.sort_by_key(|metric| metric.name);
    let rows = metrics.iter().map(|metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = metric.labels.iter();
        let labels = labels.map(|label| format!("`{}`: {}", label.name, label.values));
        let labels = labels.collect::<Vec<_>>().join("; ");
        format!("| `{}` | {kind} | {} | {labels} |\n", metric.name, metric.help)
    });
    format!("| name | kind | what | labels |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, Gauge, Histogram, Label, Level};

    const OF: Label = Label { name: "of", values: "`a`, `b`" };
    static COUNTED: Counter<1> = Counter::new("counted_total", "What happens.", [OF]);
    static TOOK: Histogram<0> = Histogram::new("took_seconds", "How long.", [], &[1.0, 2.0]);
    static THERE: Level<0> = Level::new("there", "How many.", []);
    static READ: Gauge<1> = Gauge::new("read", "What is.", [OF]);
    static INVENTORY: &[&[Described]] =
        &[&[COUNTED.described(), TOOK.described(), THERE.described(), READ.described()]];

    #[test]
    fn what_happens_stays_and_what_is_belongs_to_its_answer() {
        let recorder = Recorder::start(INVENTORY).unwrap();
        COUNTED.of(["a"]).increment(2);
        TOOK.of::<&str>([]).record(1.5);
        let present = THERE.enter::<&str>([]);
        let first = recorder.read(|| READ.set(["a"], 7_u64));
        for line in [
            "# HELP counted_total What happens.",
            "counted_total{of=\"a\"} 2",
            "took_seconds_bucket{le=\"1\"} 0",
            "took_seconds_bucket{le=\"2\"} 1",
            "there 1",
            "read{of=\"a\"} 7",
        ] {
            assert!(first.lines().any(|told| told == line), "{line} is not in:\n{first}");
        }
        drop(present);
        let second = recorder.read(|| READ.set(["b"], 8_u64));
        for (line, is_there) in [
            ("counted_total{of=\"a\"} 2", true),
            ("there 0", true),
            ("read{of=\"b\"} 8", true),
            ("read{of=\"a\"} 7", false),
        ] {
            assert_eq!(second.lines().any(|told| told == line), is_there, "{line}:\n{second}");
        }
    }
}
