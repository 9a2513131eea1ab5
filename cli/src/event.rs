//! Events.

use anyhow::Result;
use clap::Subcommand;
use client::v1::{self, events_client::EventsClient};

use crate::{
    Session, call,
    output::{Format, plain},
};

/// What may be done with events.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show the newest events; with -f, go on as they happen.
    List {
        /// Only events after this revision.
        #[arg(long, value_name = "REVISION", default_value_t = 0)]
        since: u64,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Go on.
        #[arg(short, long)]
        follow: bool,
    },
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<()> {
    let Verb::List { since, limit, follow } = verb;
    let request = v1::ListEventsRequest { since_revision: since, limit };
    let answer = call!(session, EventsClient<_>, list_events, request).await?;
    for event in &answer.events {
        show(session, event)?;
    }
    if !follow {
        return Ok(());
    }
    let request = v1::WatchRequest { since_revision: answer.revision, ..Default::default() };
    let mut watch = session.client.watch(request);
    loop {
        show(session, &watch.next().await?)?;
    }
}

fn show(session: &Session, event: &v1::Event) -> Result<()> {
    if matches!(session.output.format, Format::Json | Format::Ndjson | Format::Yaml) {
        println!("{}", serde_json::to_string(event)?);
        return Ok(());
    }
    for change in &event.changes {
        let what = match change {
            v1::Change { deleted: true, .. } => "gone".to_owned(),
            v1::Change { vm: Some(vm), .. } => format!("{} {}", vm.name, vm.phase),
            v1::Change { operation: Some(row), .. } => {
                format!("{} of {} {} {}", row.kind, row.vm, row.status, row.message)
            }
            v1::Change { host: Some(host), .. } => format!("{} {}", host.name, host.status),
            v1::Change { alert: Some(alert), .. } => {
                format!("{} of {} {} {}", alert.rule, alert.of, alert.name, alert.state)
            }
            v1::Change { image: Some(image), .. } => image.name.clone(),
            v1::Change { .. } => change.object.clone(),
        };
        println!(
            "{}  {:<10} {:<11} {}",
            event.at,
            event.revision & 0xffff_ffff_ffff,
            change.kind,
            plain(what.trim_end())
        );
    }
    Ok(())
}
