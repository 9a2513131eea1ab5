//! What VMs and hosts use, now and over time.

use anyhow::Result;
use clap::{Args, ValueEnum};
use client::v1::{self, monitoring_client::MonitoringClient};
use serde_json::Value;

use crate::{
    Session, call,
    output::{Column, Format, at, column},
    vm::Project,
};

/// How what is used now is shown.
#[derive(Args, Clone, Debug)]
pub struct Order {
    /// Who uses most of this comes first.
    #[arg(long, value_enum, default_value_t = By::Cpu)]
    by: By,
    /// At most so many. A table has 20 if absent, any other format all.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// What is used.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// Processors.
    Cpu,
    /// Memory.
    Memory,
    /// What is read from disks.
    Read,
    /// What is written to disks.
    Written,
    /// What is received.
    Received,
    /// What is sent.
    Sent,
}

/// From when on, and how far apart.
#[derive(Args, Clone, Debug)]
pub struct Window {
    /// How far back: seconds, or with m, h or d, as in 6h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    since: u32,
    /// How far apart: 10, 60 or 600 seconds; the least that reaches so far back, if absent.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    step: u32,
}

fn seconds(text: &str) -> Result<u32, String> {
    let unit = text.chars().last().unwrap_or_default();
    let (number, each) = match unit {
        's' => (&text[..text.len() - 1], 1),
        'm' => (&text[..text.len() - 1], 60),
        'h' => (&text[..text.len() - 1], 3_600),
        'd' => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let number = number.parse::<u32>().ok().and_then(|number| number.checked_mul(each));
    number
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "use a time such as 90s, 6h or 7d".to_owned())
}

/// What is measured, as it is shown.
struct Measure {
    name: &'static str,
    of: fn(&v1::Sample) -> f32,
    shown: fn(f32) -> String,
}

const MEASURES: [Measure; 6] = [
    Measure { name: "CPUS", of: |sample| sample.cpus, shown: |cpus| format!("{cpus:.2}") },
    Measure { name: "MEMORY", of: |sample| sample.memory_bytes, shown: bytes },
    Measure { name: "READ", of: |sample| sample.disk_read_bytes_per_second, shown: rate },
    Measure { name: "WRITTEN", of: |sample| sample.disk_written_bytes_per_second, shown: rate },
    Measure { name: "RECEIVED", of: |sample| sample.received_bytes_per_second, shown: rate },
    Measure { name: "SENT", of: |sample| sample.sent_bytes_per_second, shown: rate },
];

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "amounts are not negative, and smaller than 2^64"
)]
fn bytes(amount: f32) -> String {
    indicatif::BinaryBytes(amount as u64).to_string()
}

fn rate(amount: f32) -> String {
    format!("{}/s", bytes(amount))
}

const VM_COLUMNS: &[Column] = &[
    column("VM", |row| at(row, "name")),
    column("PROJECT", |row| at(row, "project")),
    column("HOST", |row| at(row, "host")),
    column("CPUS", |row| amount(row, 0)),
    column("MEMORY", |row| amount(row, 1)),
    column("READ", |row| amount(row, 2)),
    column("WRITTEN", |row| amount(row, 3)),
    column("RECEIVED", |row| amount(row, 4)),
    column("SENT", |row| amount(row, 5)),
];

const HOST_COLUMNS: &[Column] = &[
    column("HOST", |row| at(row, "name")),
    column("CPUS", |row| amount(row, 0)),
    column("MEMORY", |row| amount(row, 1)),
    column("READ", |row| amount(row, 2)),
    column("WRITTEN", |row| amount(row, 3)),
    column("RECEIVED", |row| amount(row, 4)),
    column("SENT", |row| amount(row, 5)),
];

fn amount(row: &Value, measure: usize) -> String {
    let sample: v1::Sample = serde_json::from_value(row["sample"].clone()).unwrap_or_default();
    let Measure { of, shown, .. } = &MEASURES[measure];
    shown(of(&sample))
}

const SERIES_COLUMNS: &[Column] = &[
    column("", |row| at(row, "name")),
    column("OLDEST TO NEWEST", |row| at(row, "line")),
    column("LEAST", |row| at(row, "least")),
    column("MEAN", |row| at(row, "mean")),
    column("MOST", |row| at(row, "most")),
    column("LAST", |row| at(row, "last")),
];

/// What was measured lies on the nodes: no majority is needed to see it.
const STALE: Option<v1::Freshness> =
    Some(v1::Freshness { min_revision: 0, max_age_ms: 0, stale: true });

/// Shows what VMs use now.
pub(crate) async fn top_vms(session: &Session, project: &str, top: &Order) -> Result<()> {
    let request = v1::ListUseRequest { project: project.to_owned(), freshness: STALE };
    let answer = call!(session, MonitoringClient<_>, list_vm_use, request).await?;
    show_top(session, answer, top, VM_COLUMNS)
}

/// Shows what hosts use now.
pub(crate) async fn top_hosts(session: &Session, top: &Order) -> Result<()> {
    let request = v1::ListUseRequest { freshness: STALE, ..Default::default() };
    let answer = call!(session, MonitoringClient<_>, list_host_use, request).await?;
    show_top(session, answer, top, HOST_COLUMNS)
}

fn show_top(
    session: &Session,
    answer: v1::ListUseResponse,
    top: &Order,
    columns: &[Column],
) -> Result<()> {
    let measure = match top.by {
        By::Cpu => 0,
        By::Memory => 1,
        By::Read => 2,
        By::Written => 3,
        By::Received => 4,
        By::Sent => 5,
    };
    let amount = |row: &v1::Use| row.sample.as_ref().map_or(0.0, MEASURES[measure].of);
    let mut rows = answer.uses;
    rows.sort_by(|one, other| amount(other).total_cmp(&amount(one)));
    /// Of a table.
    const ROWS: usize = 20;
    let is_table = matches!(session.output.format, Format::Table | Format::Wide);
    rows.truncate(top.limit.unwrap_or(if is_table { ROWS } else { usize::MAX }));
    tell_silent(&answer.silent);
    session.output.rows(&rows, columns)
}

/// Shows what a VM used over time.
pub(crate) async fn of_vm(
    session: &Session,
    project: Project,
    vm: String,
    window: &Window,
) -> Result<()> {
    let request = v1::GetVmMetricsRequest {
        project: project.project,
        vm,
        since_seconds: window.since,
        step_seconds: window.step,
        freshness: STALE,
    };
    let series = call!(session, MonitoringClient<_>, get_vm_metrics, request).await?;
    show_series(session, &series, window.since)
}

/// Shows what a host used over time.
pub(crate) async fn of_host(session: &Session, host: String, window: &Window) -> Result<()> {
    let request = v1::GetHostMetricsRequest {
        host,
        since_seconds: window.since,
        step_seconds: window.step,
        freshness: STALE,
    };
    let series = call!(session, MonitoringClient<_>, get_host_metrics, request).await?;
    show_series(session, &series, window.since)
}

fn show_series(session: &Session, series: &v1::Series, since_s: u32) -> Result<()> {
    if matches!(session.output.format, Format::Json | Format::Yaml) {
        return session.output.row(series, SERIES_COLUMNS);
    }
    tell_silent(&series.silent);
    let rows = if series.samples.is_empty() { Vec::new() } else { lines(series, since_s) };
    session.output.rows(&rows, SERIES_COLUMNS)
}

/// A row for each measure.
#[expect(clippy::cast_precision_loss, reason = "there are few")]
fn lines(series: &v1::Series, since_s: u32) -> Vec<Value> {
    /// A value is measured so much later, at most, than its time ends.
    const LATE_S: u64 = 30;
    let new_s = series.until.saturating_sub(u64::from(series.step_seconds) + LATE_S);
    let is_new = |sample: &v1::Sample| sample.at >= new_s;
    let rows = MEASURES.iter().map(|Measure { name, of, shown }| {
        let values: Vec<f32> = series.samples.iter().map(of).collect();
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = values.iter().copied().fold(0.0, f32::max);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        serde_json::json!({
            "name": name,
            "line": spark(series, *of, since_s),
            "least": shown(least),
            "mean": shown(mean),
            "most": shown(most),
            "last": series.samples.last().filter(|it| is_new(it)).map(|it| shown(of(it))),
        })
    });
    rows.collect()
}

/// Characters of a line.
const WIDTH: u64 = 40;

/// A line of bars; where nothing was measured there is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a bar is one of eight"
)]
fn spark(series: &v1::Series, of: fn(&v1::Sample) -> f32, since_s: u32) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let samples = &series.samples;
    let step_s = u64::from(series.step_seconds).max(1);
    let since_s = u64::from(since_s);
    // As many steps as it takes, and no fewer than one.
    let each_s = since_s.div_ceil(WIDTH).next_multiple_of(step_s);
    // The newest value may be on its way.
    let end_s = series.until.saturating_sub(step_s);
    let most = samples.iter().map(of).fold(0.0, f32::max);
    let bar = |back: u64| {
        let upto_s = end_s.saturating_sub(back * each_s);
        let within = samples.iter().filter(|it| it.at <= upto_s && it.at + each_s > upto_s);
        let values: Vec<f32> = within.map(of).collect();
        if values.is_empty() {
            return ' ';
        }
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let height = if most > 0.0 { mean / most * 7.0 } else { 0.0 };
        BARS[(height.round() as usize).min(7)]
    };
    (0..since_s.div_ceil(each_s).min(WIDTH)).rev().map(bar).collect()
}

fn tell_silent(silent: &[String]) {
    if !silent.is_empty() {
        eprintln!("{} did not answer: what they measured is missing", silent.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_bar_for_each_time_and_gaps() {
        let sample = |at: u64, cpus: f32| v1::Sample { at, cpus, ..Default::default() };
        // A bar for each ten seconds: it rises, nothing for ten of them, then a half.
        let rising = (1..=15_u16).map(|n| sample(u64::from(n) * 10, f32::from(n)));
        let rest = (26..=40).map(|n| sample(n * 10, 7.5));
        let samples: Vec<v1::Sample> = rising.chain(rest).collect();
        let series = v1::Series { samples, step_seconds: 10, until: 410, ..Default::default() };
        let line = spark(&series, |sample| sample.cpus, 400);
        assert_eq!(line, "▁▂▂▃▃▄▄▅▅▆▆▇▇██          ▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅");
        assert_eq!(spark(&v1::Series::default(), |sample| sample.cpus, 400).trim(), "");
        // Bars are never shorter than what was measured, and end now: it stopped 100 s ago.
        let few: Vec<v1::Sample> = (1..=20).map(|n| sample(n * 10, 1.0)).collect();
        let series =
            v1::Series { samples: few, step_seconds: 10, until: 310, ..Default::default() };
        assert_eq!(spark(&series, |sample| sample.cpus, 300), "████████████████████          ");
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in
            [("90", Some(90)), ("90s", Some(90)), ("6h", Some(21_600)), ("7d", Some(604_800))]
        {
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
        for text in ["", "0", "h", "-1h", "1w", "99999999d", "ä"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
