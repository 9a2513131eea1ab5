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
