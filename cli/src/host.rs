//! Hosts.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Subcommand;
use client::v1::{self, hosts_client::HostsClient, operations_client::OperationsClient};
use indicatif::ProgressBar;

use crate::{
    Session, all_pages, call,
    exit::Exit,
    metrics,
    output::{Column, at, column, list, number, wide},
    spec::read_labels,
};

/// What may be done with hosts.
#[derive(Clone, Debug, Subcommand)]
pub enum HostVerb {
    /// Show one host.
    Get {
        /// Its name or id.
        name: String,
    },
    /// Show all hosts, or those that pass a filter.
    List {
        /// A filter, such as `status=lost`.
        #[arg(short = 'l', long, value_name = "FILTER", default_value = "")]
        selector: String,
    },
    /// What hosts use now, those first that use most.
    Top(metrics::Order),
    /// What a host used over time: within the last hour, or as far back as 30 days.
    Metrics {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        window: metrics::Window,
    },
    /// VMs on a host that are not the cluster's. They are never touched.
    Foreign {
        /// The host's name or id.
        name: String,
    },
    /// Let no VM come to a host; those on it stay.
    Cordon {
        /// Its name or id.
        name: String,
    },
    /// Have VMs leave a host, and let none come. Waits until those have left that can.
    Drain {
        /// Its name or id.
        name: String,
        /// Only show what would become of each VM.
        #[arg(long)]
        dry_run: bool,
    },
    /// Let VMs come to a host again; guests that have not begun to leave stay.
    Uncordon {
        /// Its name or id.
        name: String,
    },
    /// Give a host labels, for the rules of VMs: `rack=a`; `rack-` takes it away.
    Label {
        /// Its name or id.
        name: String,
        /// `KEY=VALUE` or `KEY-`.
        #[arg(required = true)]
        labels: Vec<String>,
    },
    /// Ask hosts' drivers whether they answer, and how fast.
    Probe {
        /// Names or ids; all hosts that are heard of, when there is none.
        names: Vec<String>,
        /// Whose workers do it: `monitoring-alerts` or `cost-analysis`.
        #[arg(long, default_value = "monitoring-alerts")]
        class: String,
    },
    /// Let VMs come to a host again, and have those come back that left it because it was drained.
    Restore {
        /// Its name or id.
        name: String,
    },
    /// Say that you have seen a lost host to be off. VMs on it that are being deleted can then go, and those
    /// whose failover is `rebuild` are made anew elsewhere. The host may not come back without a reboot.
    ConfirmDead {
        /// Its name or id.
        name: String,
    },
    /// Forget a lost host that has no VMs.
    Remove {
        /// Its name or id.
        name: String,
    },
}

pub(crate) const COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("STATUS", |row| at(row, "status")),
    column("SCHEDULE", |row| at(row, "schedule")),
    column("NODE", |row| at(row, "node")),
    column("DRIVER", |row| at(row, "driver")),
    column("VMS", |row| number(row, "vms")),
    column("CPU", |row| share(row, "usedCpuMillicores", "cpuMillicores")),
    column("MEMORY", |row| share(row, "usedMemoryMib", "memoryMib")),
    wide("DISK", |row| share(row, "usedDiskMib", "diskMib")),
    column("FENCING", fencing),
    wide("POOLS", |row| list(row, "pools")),
    wide("FOREIGN", |row| number(row, "foreign")),
    wide("ID", |row| at(row, "id")),
];

const PROBE_COLUMNS: &[Column] = &[
    column("HOST", |row| at(row, "host")),
    column("STATUS", |row| at(row, "status")),
    column("ANSWER", |row| at(row, "message")),
    wide("OPERATION", |row| at(row, "id")),
];

const DRAIN_COLUMNS: &[Column] = &[
    column("PROJECT", |row| at(row, "project")),
    column("VM", |row| at(row, "vm")),
    column("FATE", |row| at(row, "fate")),
    column("HOST", |row| at(row, "host")),
    column("REASON", |row| at(row, "reason")),
];

const FOREIGN_COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("RUNNING", |row| if row["running"] == true { "yes" } else { "no" }.to_owned()),
    column("UUID", |row| at(row, "uuid")),
];

/// What would end its guests, and of a lost host how it is known that they have ended.
fn fencing(row: &serde_json::Value) -> String {
    match at(row, "ended") {
        ended if ended.is_empty() || ended == "-" => at(row, "fencing"),
        ended => format!("ended: {ended}"),
    }
}

/// Used of all, in percent.
fn share(row: &serde_json::Value, used: &str, whole: &str) -> String {
    let amount = |path: &str| number(row, path).parse::<u64>().unwrap_or(0);
    format!("{} %", amount(used) * 100 / amount(whole).max(1))
}

pub(crate) async fn run(session: &Session, verb: HostVerb) -> Result<()> {
    match verb {
        HostVerb::Get { name } => {
            let request = v1::GetHostRequest { host: name, freshness: None };
            let host = call!(session, HostsClient<_>, get_host, request).await?;
            session.output.row(&host, COLUMNS)
        }
        HostVerb::List { selector } => {
            let page = v1::Page { filter: selector, page_size: 1000, ..Default::default() };
            let request = v1::ListHostsRequest { page: Some(page), freshness: None };
            let (hosts, _) = all_pages!(session, HostsClient<_>, list_hosts, request, hosts);
            session.output.rows(&hosts, COLUMNS)
        }
        HostVerb::Top(top) => metrics::top_hosts(session, &top).await,
        HostVerb::Metrics { name, window } => metrics::of_host(session, name, &window).await,
        HostVerb::Foreign { name } => {
            let request = v1::ListForeignVmsRequest { host: name };
            let foreign = call!(session, HostsClient<_>, list_foreign_vms, request).await?;
            session.output.rows(&foreign.vms, FOREIGN_COLUMNS)
        }
        HostVerb::Cordon { name } => {
            let mutation = session.client.mutation().await?;
            let request = v1::ScheduleHostRequest { mutation, host: name.clone() };
            let outcome = call!(session, HostsClient<_>, cordon_host, request).await?;
            session.settle(&format!("host {name} cordoned"), Some(outcome)).await
        }
        HostVerb::Uncordon { name } => {
            let mutation = session.client.mutation().await?;
            let request = v1::ScheduleHostRequest { mutation, host: name.clone() };
            let outcome = call!(session, HostsClient<_>, uncordon_host, request).await?;
            session.settle(&format!("host {name} uncordoned"), Some(outcome)).await
        }
        HostVerb::Restore { name } => {
            let mutation = session.client.mutation().await?;
            let request = v1::ScheduleHostRequest { mutation, host: name.clone() };
            let outcome = call!(session, HostsClient<_>, restore_host, request).await?;
            session.settle(&format!("host {name} restored"), Some(outcome)).await
        }
        HostVerb::Drain { name, dry_run: true } => {
            session.output.rows(&fates(session, &name).await?, DRAIN_COLUMNS)
        }
        HostVerb::Drain { name, dry_run: false } => drain(session, &name).await,
        HostVerb::Label { name, labels } => {
            let what = format!("host {name} labelled");
            let (remove, give): (Vec<_>, Vec<_>) =
                labels.into_iter().partition(|label| label.ends_with('-') && !label.contains('='));
            let mut request = v1::LabelHostRequest {
                mutation: session.client.mutation().await?,
                host: name,
                ..Default::default()
            };
            read_labels(&give, &mut request.set)?;
            request.remove =
                remove.iter().map(|label| label.trim_end_matches('-').to_owned()).collect();
            let outcome = call!(session, HostsClient<_>, label_host, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        HostVerb::Probe { names, class } => probe(session, names, class).await,
        HostVerb::ConfirmDead { name } => {
            let what = format!("host {name} confirmed dead");
            let mutation = session.client.mutation().await?;
            let request = v1::ConfirmHostDeadRequest { mutation, host: name };
            let outcome = call!(session, HostsClient<_>, confirm_host_dead, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        HostVerb::Remove { name } => {
            let what = format!("host {name} removed");
            let request =
                v1::RemoveHostRequest { mutation: session.client.mutation().await?, host: name };
            let outcome = call!(session, HostsClient<_>, remove_host, request).await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

/// Waits for the answers, and shows one row for each host.
async fn probe(session: &Session, hosts: Vec<String>, class: String) -> Result<()> {
    let mutation = session.client.mutation().await?;
    let request = v1::ProbeHostsRequest { mutation, hosts, class };
    let outcome = call!(session, OperationsClient<_>, probe_hosts, request).await?;
    session.client.note(outcome.revision);
    if session.no_wait {
        println!("{}", outcome.operation);
        return Ok(());
    }
    let ended = session.await_operation("probe", &outcome.operation).await;
    let filter = format!("parent={}", outcome.operation);
    let page = v1::Page { filter, page_size: 1000, ..Default::default() };
    let request = v1::ListOperationsRequest { page: Some(page), freshness: None };
    let (parts, _) = all_pages!(session, OperationsClient<_>, list_operations, request, operations);
    session.output.rows(&parts, PROBE_COLUMNS)?;
    ended
}

async fn fates(session: &Session, host: &str) -> Result<Vec<v1::DrainRow>> {
    let request = v1::PreviewDrainRequest { host: host.to_owned() };
    Ok(call!(session, HostsClient<_>, preview_drain, request).await?.vms)
}

/// Waits until nobody is left who can leave, and tells who stays.
async fn drain(session: &Session, name: &str) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(500);
    let request = v1::ScheduleHostRequest {
        mutation: session.client.mutation().await?,
        host: name.to_owned(),
    };
    let outcome = call!(session, HostsClient<_>, drain_host, request).await?;
    session.client.note(outcome.revision);
    if session.no_wait {
        println!("{}", outcome.operation);
        return Ok(());
    }
    let begun = Instant::now();
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    loop {
        let left = fates(session, name).await?;
        let request = v1::GetHostRequest { host: name.to_owned(), freshness: None };
        let host = call!(session, HostsClient<_>, get_host, request).await?;
        if !host.schedule.starts_with("drain") {
            anyhow::bail!(
                "host {name} is not drained any more: somebody made it {}",
                host.schedule
            );
        }
        let stay: Vec<_> = left.iter().filter(|row| row.fate == "stays").cloned().collect();
        if stay.len() == left.len() {
            bar.finish_and_clear();
            if stay.is_empty() {
                eprintln!("host {name} drained: done in {:.1} s", begun.elapsed().as_secs_f64());
                return Ok(());
            }
            session.output.rows(&stay, DRAIN_COLUMNS)?;
            let text = format!("host {name} is not drained: {} VMs stay", stay.len());
            return Err(Exit::Stuck(text).into());
        }
        bar.set_message(format!("host {name}: {} VMs to leave", left.len() - stay.len()));
        if begun.elapsed() > session.timeout {
            let text = format!(
                "host {name}: {} VMs have not left yet; they go on, until `novacron host uncordon {name}`",
                left.len() - stay.len()
            );
            return Err(Exit::Timeout(text).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}
