//! The commands of `novacron`: which there are, and who does each.

mod dev;
mod examine;
mod membership;
mod node;
mod program;
mod run;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use dev::Dev;
use examine::{ConfigVerb, Debug};
use node::Node;

/// A control plane for virtual machines that needs no database, no broker and no Kubernetes.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
First steps:
  novacron dev                      a whole cluster on this machine, with simulated hosts
  novacron init; novacron run       a cluster of one, from cluster.toml
  novacron join TOKEN; novacron run another node

Exit codes: 0 done, 1 error, 2 wrong usage, 3 no host takes the VM or its operation is stuck (for \
`run`: the data cannot be trusted), 4 not found, 5 conflict, 6 not allowed, 7 timeout."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: cli::Common,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node in the foreground.
    Run(ConfigFile),
    /// Found a cluster: this machine becomes its first node.
    Init {
        #[command(flatten)]
        config: ConfigFile,
        /// Where to write what operator commands need: addresses, authority, admin credential.
        #[arg(long, value_name = "FILE", default_value = "novacron-access.json")]
        access_out: PathBuf,
        /// Go on from a backup that `novacron cluster backup` made, at its next epoch, with this node alone.
        /// The cluster's name is the backup's.
        #[arg(long, value_name = "FILE")]
        restore: Option<PathBuf>,
        /// With --restore: the epoch in which it goes on, later than any that the cluster has had. Needed
        /// when a backup is restored for the second time, or is older than a recovery.
        #[arg(long, value_name = "N", requires = "restore")]
        epoch: Option<u16>,
    },
    /// Join a cluster: `novacron token create` there makes the token.
    Join {
        /// The token.
        token: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// A whole cluster in this process, on loopback, with simulated hosts.
    Dev(Dev),
    /// This machine as a node.
    #[command(subcommand)]
    Node(Node),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Look this machine over, as a node or before it is one, and the cluster if one is chosen: disk, ports,
    /// certificate, hypervisor, guard, clock, votes. Each finding says what to do; nothing is changed. The exit
    /// code is 1 when something is bad.
    Doctor(ConfigFile),
    /// What helps somebody who helps.
    #[command(subcommand)]
    Debug(Debug),
    /// The versions of this program and of the cluster.
    Version,
    /// Print a completion script, for `source <(novacron completion bash)`.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command, for `man`.
    Man {
        /// Where to.
        directory: PathBuf,
    },
    #[command(flatten)]
    Operate(cli::Command),
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(
        short,
        long,
        env = "NOVACRON_CONFIG",
        value_name = "FILE",
        default_value = "cluster.toml"
    )]
    config: PathBuf,
}

/// Does what was asked for.
///
/// # Errors
/// What went wrong.
pub(crate) async fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(file) => run::run(&file).await,
        Command::Init { config, access_out, restore, epoch } => {
            let backup = restore.as_deref().map(|file| (file, epoch));
            membership::init(&config, &access_out, backup).await
        }
        Command::Join { token, config } => membership::join(&config, &token).await,
        Command::Dev(options) => dev::run(options).await,
        Command::Node(verb) => node::run(verb).await,
        Command::Config(ConfigVerb::Check(file)) => examine::check(&file),
        Command::Doctor(file) => examine::doctor(&file, &cli.common).await,
        Command::Debug(Debug::Bundle { config, out }) => {
            examine::bundle(&config, &out, &cli.common).await
        }
        Command::Version => program::version(cli.common).await,
        Command::Completion { shell } => program::complete(shell),
        Command::Man { directory } => program::write_manual(&directory),
        Command::Operate(command) => cli::run(command, cli.common).await,
    }
}
