//! Hosts.

use anyhow::Result;
use clap::Subcommand;
use client::v1::{self, hosts_client::HostsClient};

use crate::{
    Session, all_pages, call,
    output::{Column, at, column, number, wide},
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
    /// VMs on a host that are not the cluster's. They are never touched.
    Foreign {
        /// The host's name or id.
        name: String,
    },
    /// Say that you have seen a lost host to be off: VMs on it that are being deleted can then go.
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

const COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("STATUS", |row| at(row, "status")),
    column("NODE", |row| at(row, "node")),
    column("DRIVER", |row| at(row, "driver")),
    column("VMS", |row| number(row, "vms")),
    column("CPU", |row| share(row, "usedCpuMillicores", "cpuMillicores")),
    column("MEMORY", |row| share(row, "usedMemoryMib", "memoryMib")),
    wide("DISK", |row| share(row, "usedDiskMib", "diskMib")),
    wide("FOREIGN", |row| number(row, "foreign")),
    wide("ID", |row| at(row, "id")),
];

const FOREIGN_COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("RUNNING", |row| if row["running"] == true { "yes" } else { "no" }.to_owned()),
    column("UUID", |row| at(row, "uuid")),
];

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
        HostVerb::Foreign { name } => {
            let request = v1::ListForeignVmsRequest { host: name };
            let foreign = call!(session, HostsClient<_>, list_foreign_vms, request).await?;
            session.output.rows(&foreign.vms, FOREIGN_COLUMNS)
        }
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
