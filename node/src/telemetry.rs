//! Logs and metrics.

use std::{io::IsTerminal, sync::OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use raft_store::Store;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{LogFormat, LogSection};

/// Libraries that say too much.
const QUIET: &str = "ractor=off,sled=warn,openraft=error,h2=warn,hyper=warn,tower=warn,rustls=warn";

/// Starts logging to standard error. A second start changes nothing.
pub fn log(section: &LogSection) {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", section.level))
        .unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},info")));
    let registry = tracing_subscriber::registry().with(filter);
    // Only the first call in a process can succeed; tests start several nodes in one.
    let _ = match section.format {
        LogFormat::Human => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
    };
}

fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).as_ref()
}

/// The metrics of this node in Prometheus' text form. Gauges are read from the state when they are
/// asked for: nothing is counted twice.
#[must_use]
pub fn render(store: &Store) -> String {
    let Some(recorder) = recorder() else { return String::new() };
    let (status, view) = (store.status(), store.view());
    #[expect(clippy::cast_precision_loss, reason = "a gauge of Prometheus is a float")]
    let gauge = |name: &'static str, value: u64| metrics::gauge!(name).set(value as f64);
    gauge("novacron_raft_term", status.term);
    gauge("novacron_raft_is_leader", u64::from(status.leads));
    gauge("novacron_raft_last_index", status.last_index.unwrap_or(0));
    gauge("novacron_raft_applied_index", status.applied_index.unwrap_or(0));
    gauge("novacron_raft_voters", status.voters.len() as u64);
    gauge("novacron_vms", view.state.vms.len() as u64);
    gauge("novacron_hosts", view.state.hosts.len() as u64);
    gauge("novacron_operations_open", view.state.open_operations() as u64);
    gauge("novacron_lease_time_milliseconds", view.state.now_ms);
    recorder.run_upkeep();
    recorder.render()
}
