//! Migration policies.

use anyhow::Result;
use clap::{Args, Subcommand, value_parser};
use client::v1::{self, migration_policies_client::MigrationPoliciesClient};

use crate::{
    Session, all_pages, call,
    output::{Column, at, column, labels, number, wide},
    spec::read_labels,
};

/// What may be done with migration policies.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Make a policy, or have one be like this: what is not given is the default again.
    #[command(
        after_help = "Example:\n  novacron migration-policy set careful -l tier=gold --bandwidth 200 --when-silent return"
    )]
    Set(Box<Policy>),
    /// Show one policy.
    Get {
        /// Its name.
        name: String,
    },
    /// Show all policies. The one with the most labels counts, then one with a project, then the first.
    List,
    /// Remove a policy. Migrations that were asked for under it keep to it.
    Delete {
        /// Its name.
        name: String,
    },
}

/// To which VMs a policy applies, and what it says.
#[derive(Args, Clone, Debug)]
pub struct Policy {
    /// Its name.
    name: String,
    /// The project whose VMs it applies to; those of all, when none is named.
    #[arg(short, long, value_name = "NAME", default_value = "")]
    project: String,
    /// A label that a VM has to which it applies; may be given again, and then all count.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Most bandwidth, MiB/s; 0 for as much as there is.
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    bandwidth: u32,
    /// Longest time a guest may stand still at the end, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = value_parser!(u32).range(1..))]
    downtime: u32,
    /// Do not slow a guest down that writes faster than can be copied.
    #[arg(long)]
    never_slow_down: bool,
    /// Over how many connections a guest's memory is copied at a time, 1 to 16.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u32).range(1..=16))]
    connections: u32,
    /// Rounds over the guest's memory in which what remains may fail to fall.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// What is done then: the guest may stand still for so long, milliseconds; 0 to undo the migration.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    stalled_downtime: u32,
    /// Seconds it may take from its turn on; without, what the setting migration-deadline-ms says.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Seconds that each GiB of memory and disks adds to that; without, what the setting
    /// migration-deadline-ms-per-gib says.
    #[arg(long, value_name = "SECONDS")]
    deadline_per_gib: Option<u64>,
    /// What becomes of a guest that shows no sign of life on its new host for 30 s: it stays there
    /// and is looked at again until the migration is stuck, or it is taken back.
    #[arg(long, value_name = "WHAT", default_value = "stay", value_parser = ["stay", "return"])]
    when_silent: String,
}

const COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("PROJECT", |row| at(row, "project")),
    column("LABELS", labels),
    column("BANDWIDTH", |row| match at(row, "bandwidthMibPerSecond").as_str() {
        "-" | "0" => "all".to_owned(),
        mib => format!("{mib} MiB/s"),
    }),
    column("DOWNTIME", |row| format!("{} ms", number(row, "downtimeMs"))),
    column("STALLED", |row| match at(row, "stalledDowntimeMs").as_str() {
        "-" | "0" => "undo".to_owned(),
        ms => format!("{ms} ms"),
    }),
    column("SILENT", |row| at(row, "whenSilent")),
    wide("CONNECTIONS", |row| number(row, "connections")),
    wide("ROUNDS", |row| number(row, "roundsMax")),
    wide("SLOWED", |row| {
        if at(row, "neverSlowDown") == "true" { "never" } else { "if need be" }.to_owned()
    }),
    wide("DEADLINE", |row| milliseconds(&at(row, "deadlineMs"))),
    wide("PER GIB", |row| milliseconds(&at(row, "deadlineMsPerGib"))),
];

fn milliseconds(text: &str) -> String {
    if text == "-" { text.to_owned() } else { format!("{text} ms") }
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<()> {
    match verb {
        Verb::Set(policy) => {
            let what = format!("migration policy {} set", policy.name);
            let mutation = session.client.mutation().await?;
            let request = policy.request(mutation)?;
            let outcome =
                call!(session, MigrationPoliciesClient<_>, set_migration_policy, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        Verb::Get { name } => {
            let request = v1::GetMigrationPolicyRequest { migration_policy: name, freshness: None };
            let policy =
                call!(session, MigrationPoliciesClient<_>, get_migration_policy, request).await?;
            session.output.row(&policy, COLUMNS)
        }
        Verb::List => {
            let request = v1::ListMigrationPoliciesRequest::default();
            let (rows, _) = all_pages!(
                session,
                MigrationPoliciesClient<_>,
                list_migration_policies,
                request,
                migration_policies
            );
            session.output.rows(&rows, COLUMNS)
        }
        Verb::Delete { name } => {
            let what = format!("migration policy {name} deleted");
            let mutation = session.client.mutation().await?;
            let request = v1::DeleteMigrationPolicyRequest { mutation, migration_policy: name };
            let outcome =
                call!(session, MigrationPoliciesClient<_>, delete_migration_policy, request)
                    .await?;
            session.settle(&what, Some(outcome)).await
        }
    }
}

impl Policy {
    fn request(self, mutation: Option<v1::Mutation>) -> Result<v1::SetMigrationPolicyRequest> {
        let milliseconds = |seconds: u64| seconds.saturating_mul(1_000);
        let mut policy = v1::MigrationPolicy {
            project: self.project,
            bandwidth_mib_per_second: self.bandwidth,
            downtime_ms: self.downtime,
            never_slow_down: self.never_slow_down,
            connections: self.connections,
            rounds_max: self.rounds,
            stalled_downtime_ms: self.stalled_downtime,
            deadline_ms: self.deadline.map(milliseconds),
            deadline_ms_per_gib: self.deadline_per_gib.map(milliseconds),
            when_silent: self.when_silent,
            ..Default::default()
        };
        read_labels(&self.labels, &mut policy.labels)?;
        let (migration_policy, policy) = (self.name, Some(policy));
        Ok(v1::SetMigrationPolicyRequest { mutation, migration_policy, policy })
    }
}
