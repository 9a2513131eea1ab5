//! The operator commands: `novacron NOUN VERB`. A command waits until what it asked for is so;
//! `--async` prints the operation instead.
//!
//! Exit codes: 0 done, 1 error, 2 wrong usage, 3 no host takes the VM or its operation is stuck,
//! 4 not found, 5 somebody else changed it first or it exists already, 6 not allowed, 7 it takes
//! longer than `--timeout`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what speaks to people")]

mod access;
mod admin;
mod alert;
mod apply;
mod cluster;
mod console;
mod context;
mod download;
mod event;
mod exit;
mod finding;
mod host;
mod image;
mod lock;
mod metrics;
mod migration_policy;
mod operation;
mod output;
mod progress;
mod scrape;
mod spec;
mod top;
mod vm;

pub use access::{Access, AccessOptions};
pub use exit::{Exit, exit_code};
pub use finding::{Finding, Verdict, report};

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use client::Client;

use output::Output;

/// What every operator command understands.
#[derive(Clone, Debug, Args)]
pub struct Common {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: AccessOptions,
    /// How long to wait for operations, seconds.
    #[arg(long, global = true, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Do not wait: print the operation and leave.
    #[arg(long = "async", global = true)]
    no_wait: bool,
}

impl Common {
    /// A client of the cluster that is chosen.
    ///
    /// # Errors
    /// When none is chosen, or its access cannot be read.
    pub fn client(&self) -> Result<Client> {
        self.access.client()
    }

    /// What each node of the cluster measures: its address, and the text, or why there is none.
    pub async fn metrics(&self, client: &Client) -> Vec<(String, Result<String>)> {
        let asked =
            client.call(client::v1::GetClusterRequest::default(), async |channel, request| {
                client::v1::clusters_client::ClustersClient::new(channel).get_cluster(request).await
            });
        let nodes = asked.await.map(|cluster| cluster.nodes).unwrap_or_default();
        let mut told = Vec::new();
        for node in nodes {
            let text = scrape::metrics(&self.access, &node.api_address).await;
            told.push((node.api_address, text));
        }
        told
    }

    /// The version of the cluster's program.
    ///
    /// # Errors
    /// When no cluster is chosen or none answers.
    pub async fn cluster_version(&self) -> Result<client::v1::Version> {
        let client = self.access.client()?;
        let asked = client.call(client::v1::GetVersionRequest {}, async |channel, request| {
            client::v1::clusters_client::ClustersClient::new(channel).get_version(request).await
        });
        Ok(asked.await?)
    }
}

/// The operator commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// VMs: create, run, change, delete.
    #[command(subcommand)]
    Vm(vm::Verb),
    /// Machines that run VMs.
    #[command(subcommand)]
    Host(host::HostVerb),
    /// What VMs boot from.
    #[command(subcommand)]
    Image(image::ImageVerb),
    /// Locks with fences: for what must have one owner at a time.
    #[command(subcommand)]
    Lock(lock::Verb),
    /// Long tasks: look at them, wait for them, cancel them.
    #[command(subcommand)]
    Operation(operation::Verb),
    /// What happened, and what happens.
    #[command(subcommand)]
    Event(event::Verb),
    /// Spaces of VM names.
    #[command(subcommand)]
    Project(admin::ProjectVerb),
    /// How VMs are migrated: those of a project, or with certain labels.
    #[command(subcommand)]
    MigrationPolicy(migration_policy::Verb),
    /// Alerts: what must not be so, and is.
    #[command(subcommand)]
    Alert(alert::AlertVerb),
    /// Rules of alerts: what must not be so.
    #[command(subcommand)]
    AlertRule(alert::RuleVerb),
    /// Silences: nobody is told of certain alerts for a while.
    #[command(subcommand)]
    Silence(alert::SilenceVerb),
    /// What can change while the cluster runs.
    #[command(subcommand)]
    Setting(admin::SettingVerb),
    /// Who may use the API.
    #[command(subcommand)]
    Credential(admin::CredentialVerb),
    /// Tokens with which nodes join.
    #[command(subcommand)]
    Token(admin::TokenVerb),
    /// The cluster: its nodes, its leader.
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Make VMs as a file describes them: create what is missing, change what differs.
    Apply(apply::Apply),
    /// Show what `apply` would do with a file, and where VMs would go. It changes nothing.
    Plan(apply::Apply),
    /// The cluster on the whole terminal, as it changes: VMs, hosts, operations, nodes; sorted and filtered.
    Top(top::Top),
    /// Which cluster commands go to.
    #[command(subcommand)]
    Context(context::Verb),
}

/// What commands work with.
struct Session {
    client: Client,
    output: Output,
    timeout: Duration,
    no_wait: bool,
}

/// Runs a command.
///
/// # Errors
/// What went wrong; [`exit_code`] says how the process is to end.
pub async fn run(command: Command, common: Common) -> Result<()> {
    if let Command::Context(verb) = command {
        return context::run(verb);
    }
    let session = Session {
        client: common.access.client()?,
        output: common.output,
        timeout: Duration::from_secs(common.timeout),
        no_wait: common.no_wait,
    };
    match command {
        Command::Vm(verb) => vm::run(&session, verb).await,
        Command::Host(verb) => host::run(&session, verb).await,
        Command::Image(verb) => image::run(&session, verb).await,
        Command::Lock(verb) => lock::run(&session, verb).await,
        Command::Operation(verb) => operation::run(&session, verb).await,
        Command::Event(verb) => event::run(&session, verb).await,
        Command::Project(verb) => admin::run_project(&session, verb).await,
        Command::MigrationPolicy(verb) => migration_policy::run(&session, verb).await,
        Command::Alert(verb) => alert::run(&session, verb).await,
        Command::AlertRule(verb) => alert::run_rule(&session, verb).await,
        Command::Silence(verb) => alert::run_silence(&session, verb).await,
        Command::Setting(verb) => admin::run_setting(&session, verb).await,
        Command::Credential(verb) => admin::run_credential(&session, verb).await,
        Command::Token(verb) => admin::run_token(&session, verb).await,
        Command::Cluster(verb) => cluster::run(&session, verb).await,
        Command::Apply(apply) => apply::run(&session, apply).await,
        Command::Plan(apply) => apply::plan(&session, apply).await,
        Command::Top(top) => top::run(&session, top).await,
        Command::Context(verb) => context::run(verb),
    }
}

/// Asks for all pages of a list: `$rows` of `$client::$method`.
macro_rules! all_pages {
    ($session:expr, $client:path, $method:ident, $request:expr, $rows:ident) => {{
        let mut all = Vec::new();
        let mut request = $request;
        loop {
            let answer = $session
                .client
                .call(request.clone(), async |channel, request| {
                    <$client>::new(channel).$method(request).await
                })
                .await?;
            $session.client.note(answer.revision);
            all.extend(answer.$rows);
            if answer.next_page_token.is_empty() {
                break (all, answer.revision);
            }
            request.page.get_or_insert_default().page_token = answer.next_page_token;
        }
    }};
}
pub(crate) use all_pages;

/// Calls `$client::$method` with `$request`.
macro_rules! call {
    ($session:expr, $client:path, $method:ident, $request:expr) => {
        $session
            .client
            .call($request, async |channel, request| <$client>::new(channel).$method(request).await)
    };
}
pub(crate) use call;
