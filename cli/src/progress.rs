//! Waiting, with something to look at.

use std::time::Duration;

use anyhow::Result;
use client::{Error, v1};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    Session,
    exit::Exit,
    output::{Format, plain},
};

/// Bytes that are on their way.
pub(crate) struct Transfer(ProgressBar);

impl Transfer {
    /// Shows how far it is; of `bytes` in all, if that is known.
    pub(crate) fn start(what: &str, bytes: Option<u64>) -> Transfer {
        const KNOWN: &str = "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}";
        const UNKNOWN: &str = "{msg} {bytes}, {bytes_per_sec}";
        let bar = bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = if bytes.is_some() { KNOWN } else { UNKNOWN };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Transfer(bar)
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Session {
    /// Waits until what was accepted is so; with `--async`, prints the operation. Prints what was
    /// done, in words, to standard error, and the object's name to standard output.
    pub(crate) async fn settle(&self, what: &str, outcome: Option<v1::Outcome>) -> Result<()> {
        let outcome = outcome.unwrap_or_default();
        self.client.note(outcome.revision);
        if outcome.operation.is_empty() {
            eprintln!("{what}: done");
            return Ok(());
        }
        if self.no_wait {
            println!("{}", outcome.operation);
            return Ok(());
        }
        self.await_operation(what, &outcome.operation).await
    }

    /// Waits for one operation.
    pub(crate) async fn await_operation(&self, what: &str, operation: &str) -> Result<()> {
        let begun = std::time::Instant::now();
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut last = v1::Operation::default();
        let ended = self.client.wait(operation, self.timeout, |seen| {
            bar.set_message(format!("{what}: {}", stage(seen)));
            last = seen.clone();
            last.message = plain(&last.message);
        });
        let ended = ended.await;
        bar.finish_and_clear();
        let ended = match ended {
            Err(Error::Timeout(operation)) => return Err(not_yet(what, &operation, &last).into()),
            ended => ended?,
        };
        let took = begun.elapsed();
        match ended.status.as_str() {
            "done" => {
                let note = match ended.message.as_str() {
                    "" => String::new(),
                    message => format!(" ({})", plain(message)),
                };
                if self.output.format != Format::Name {
                    eprintln!("{what}: done in {:.1} s{note}", took.as_secs_f64());
                }
                Ok(())
            }
            status => {
                let message = format!("{what}: {status}: {}", plain(&ended.message));
                Err(Exit::Stuck(message).into())
            }
        }
    }
}

/// Where an operation stands, in a line.
fn stage(seen: &v1::Operation) -> String {
    let mut text = seen.status.clone();
    if !seen.step.is_empty() && seen.status == "running" {
        text = seen.step.clone();
    }
    if let Some(progress) = seen.progress.filter(|_| seen.step == "copy") {
        let mib = |bytes: u64| bytes >> 20;
        text = format!(
            "{text}, {} of {} MiB left, round {}, {} MiB/s written",
            mib(progress.remaining_bytes),
            mib(progress.total_bytes),
            progress.rounds,
            mib(progress.dirty_bytes_per_second)
        );
        if (1..progress.expected_downtime_ms).contains(&progress.allowed_downtime_ms) {
            text.push_str(&format!(
                ", would stand still for {} ms of {} allowed",
                progress.expected_downtime_ms, progress.allowed_downtime_ms
            ));
        }
    }
    if seen.message.is_empty() { text } else { format!("{text}: {}", plain(&seen.message)) }
}

/// What to tell of an operation that goes on. One that is queued and says why has no host.
fn not_yet(what: &str, operation: &str, last: &v1::Operation) -> Exit {
    let why = if last.message.is_empty() { last.status.as_str() } else { last.message.as_str() };
    let text = format!("{what}: not yet: {why}\nIt goes on: `novacron operation get {operation}`");
    if last.status == "queued" && !last.ready && !last.message.is_empty() {
        Exit::Stuck(text)
    } else {
        Exit::Timeout(text)
    }
}
