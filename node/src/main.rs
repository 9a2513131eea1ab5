//! `novacron`: the node and the operator commands in one binary.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what speaks to people")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};
use domain::name::Name;
use novacron::{
    config::Config,
    daemon::{Daemon, DaemonOptions},
    dev::{DevCluster, DevOptions},
    files::Files,
    founding::{self, Setup},
    hosts, logs,
};
use raft_store::{Timing, WalOptions};

/// A node makes and drops many small things on several threads; see docs/adr/0016.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
struct Cli {
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

#[derive(clap::Args)]
struct Dev {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// How many simulated hosts in all.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(0..=1000))]
    hosts: u16,
    /// VMs to create at the start.
    #[arg(long, default_value_t = 0)]
    seed_vms: u32,
    /// Driver calls that fail, out of a thousand.
    #[arg(long, default_value_t = 0)]
    failures_per_mille: u64,
    /// Keep everything here and go on with it next time; a temporary directory if absent.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Node {
    /// Empty this node's data directory for good, so that the machine can join anew.
    Reset {
        #[command(flatten)]
        config: ConfigFile,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Make a directory a pool of disks, once: where it is mounted, hosts take it for the pool that it is,
    /// and nowhere else. Then name it in each host's section of the configuration.
    MakePool {
        /// The directory, on storage that several hosts share.
        directory: PathBuf,
    },
    /// Have the cluster go on with this node alone, when a majority of its voters is lost for good. What
    /// this node was not told is lost. Its hosts' VMs are known again when it runs; those of other hosts
    /// are unknown until the hosts join anew or somebody has seen that they are off.
    Recover {
        #[command(flatten)]
        config: ConfigFile,
        /// Another member: you have seen that it does not run and will not again before it was reset.
        /// Every other member must be named.
        #[arg(long, value_name = "NODE")]
        lost: Vec<String>,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum Debug {
    /// Gather what the doctor finds, the configuration, the cluster's state, events, metrics and the journal into
    /// one file, without secrets: credentials, keys, passwords, users' data. Look through it before you send it.
    Bundle {
        #[command(flatten)]
        config: ConfigFile,
        /// Where to write it: a tar file, packed with zstd. It must not be there yet.
        #[arg(long, value_name = "FILE", default_value = "novacron-bundle.tar.zst")]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Tell all problems of a configuration file at once.
    Check(ConfigFile),
}

fn make_pool(directory: &Path) -> Result<()> {
    let id = drivers::pool::make(directory).with_context(|| format!("{}", directory.display()))?;
    println!("{} is pool {id}", directory.display());
    Ok(())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(cli));
    // A store that hangs on a broken disk must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(refused) = error.downcast_ref::<client::Error>() {
                for (field, problem) in refused.violations().iter().skip(1) {
                    eprintln!("       {field}: {problem}");
                }
            }
            ExitCode::from(code(&error))
        }
    }
}

/// 3 when the data directory cannot be trusted, else what operator commands say.
fn code(error: &anyhow::Error) -> u8 {
    let damaged = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<raft_store::StoreError>(),
            Some(raft_store::StoreError::Damage(_))
        )
    });
    if damaged { 3 } else { cli::exit_code(error) }
}

async fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(file) => run(&file).await,
        Command::Init { config, access_out, restore, epoch } => {
            init(&config, &access_out, restore.as_deref().map(|file| (file, epoch))).await
        }
        Command::Join { token, config } => join(&config, &token).await,
        Command::Dev(options) => dev(options).await,
        Command::Node(Node::Reset { config, yes }) => reset(&config, yes),
        Command::Node(Node::MakePool { directory }) => make_pool(&directory),
        Command::Node(Node::Recover { config, lost, yes }) => recover(&config, &lost, yes).await,
        Command::Config(ConfigVerb::Check(file)) => {
            Config::read(&file.config)?;
            println!("{} is good", file.config.display());
            Ok(())
        }
        Command::Doctor(file) => {
            let client = cli.common.client().map_err(|error| format!("{error:#}"));
            cli::report(&novacron::doctor::examine(&file.config, client).await, &cli.common)
        }
        Command::Debug(Debug::Bundle { config, out }) => {
            let parts = novacron::bundle::gather(&config.config, &cli.common).await;
            novacron::bundle::write(&parts, &out)?;
            for part in &parts {
                println!("{:>10}  {}", part.text.len(), part.name);
            }
            println!("{}: look through it (tar --zstd -xf) before you send it", out.display());
            Ok(())
        }
        Command::Version => version(cli.common).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "novacron", &mut script);
            match std::io::Write::write_all(&mut std::io::stdout(), &script) {
                // Who reads it has read enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                written => Ok(written?),
            }
        }
        Command::Man { directory } => {
            std::fs::create_dir_all(&directory)?;
            Ok(clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)?)
        }
        Command::Operate(command) => cli::run(command, cli.common).await,
    }
}

async fn run(file: &ConfigFile) -> Result<()> {
    let config = Config::read(&file.config)?;
    logs::start(&config.log);
    let data = config.node.data_directory.clone();
    let files = Files::load(&data)?;
    logs::of_node(files.node.name.as_str());
    if let Some(traces) = &config.traces {
        let told = traces.told_by(files.node.name.as_str());
        told.and_then(telemetry::trace::start)
            .map_err(|why| anyhow::anyhow!("cannot tell traces: {why}"))?;
    }
    let options = DaemonOptions {
        peer_listen: config.peer_listen(),
        peer_address: config.node.peer_address.get_ref().clone(),
        api_listen: config.api_listen(),
        api_address: config.node.api_address.get_ref().clone(),
        timing: config.timing(),
        wal: wal(),
        hosts: hosts::local_hosts(&data, &config.host)?,
        agents: config.agents(),
        receivers: config.receivers().map_err(anyhow::Error::msg)?,
        api: config.api,
        directory: data,
    };
    actors::planted::watch();
    let daemon = Daemon::start(options, files).await?;
    let node = daemon.store.node();
    tracing::info!(node_id = node, "the node runs");
    let mut removed = daemon.store.removed();
    let end = tokio::select! {
        signal = stop_signal() => signal.map(|name| tracing::info!(signal = name, "stopping")),
        _ = removed.wait_for(|removed| *removed) => Err(anyhow::anyhow!(
            "this node was removed from the cluster; run `novacron node reset` and join again"
        )),
        why = daemon.store.stopped() => Err(anyhow::anyhow!("the store has stopped: {why}")),
    };
    daemon.stop().await;
    // What waits still goes to the collector.
    let _ = tokio::task::spawn_blocking(telemetry::trace::stop).await;
    end
}

/// The log's files.
fn wal() -> WalOptions {
    // A release has no such policy.
    #[cfg(debug_assertions)]
    if raft_store::is_broken("never-sync") {
        return WalOptions { sync: raft_store::SyncPolicy::NeverForTests, ..WalOptions::default() };
    }
    WalOptions::default()
}

async fn stop_signal() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}

fn setup(config: &Config) -> Setup<'_> {
    Setup {
        directory: &config.node.data_directory,
        name: config.node_name(),
        peer_address: config.node.peer_address.get_ref(),
        api_address: config.node.api_address.get_ref(),
    }
}

async fn init(
    file: &ConfigFile,
    access_out: &PathBuf,
    backup: Option<(&Path, Option<u16>)>,
) -> Result<()> {
    let config = Config::read(&file.config)?;
    let names = |texts: &[toml::Spanned<String>]| {
        texts.iter().map(|text| Name::new(text.get_ref())).collect::<Result<Vec<_>, _>>()
    };
    let (cluster, expect) =
        (Name::new(config.cluster.name.get_ref())?, names(&config.cluster.expect)?);
    if access_out.exists() {
        bail!("{} exists already; give another --access-out", access_out.display());
    }
    let founded = match backup {
        Some((file, epoch)) => founding::restore(&setup(&config), file, epoch, &expect).await?,
        None => founding::found(&setup(&config), cluster, &expect).await?,
    };
    let access = cli::Access {
        endpoints: vec![config.node.api_address.get_ref().clone()],
        authority: founded.authority,
        server_name: raft_store::identity::cluster_name(founded.cluster),
        bearer: founded.bearer,
    };
    write_secret(access_out, &serde_json::to_string_pretty(&access)?)?;
    match backup {
        Some((file, _)) => println!("The cluster goes on from {}.", file.display()),
        None => println!("Cluster {} is founded.", config.cluster.name.get_ref()),
    }
    println!();
    println!("The admin credential lies in {}; keep it safe.", access_out.display());
    println!(
        "The authority's key lies in {}/identity/ca.key, and on every node that joins.",
        config.node.data_directory.display()
    );
    println!();
    println!("Start this node:         novacron run");
    for (name, token) in founded.tokens {
        println!("Then on {name}, once, within an hour:");
        println!("  novacron join {token}");
        println!("  novacron run");
    }
    println!("Operator commands:       export NOVACRON_ACCESS={}", access_out.display());
    println!("                         novacron cluster status");
    Ok(())
}

fn write_secret(path: &PathBuf, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

async fn join(file: &ConfigFile, token: &str) -> Result<()> {
    let config = Config::read(&file.config)?;
    let cluster = founding::join(&setup(&config), token).await?;
    println!("This machine belongs to cluster {cluster} now. Start it: novacron run");
    Ok(())
}

async fn recover(file: &ConfigFile, lost: &[String], yes: bool) -> Result<()> {
    let config = Config::read(&file.config)?;
    let survivor = founding::Survivor::find(&config.node.data_directory)?;
    let named = |name: &&Name| lost.iter().any(|lost| lost == name.as_str());
    let unnamed: Vec<_> = survivor.others.iter().filter(|name| !named(name)).collect();
    if let Some(stranger) =
        lost.iter().find(|lost| survivor.others.iter().all(|name| name.as_str() != **lost))
    {
        bail!("{stranger} is no other member of the cluster");
    }
    println!("This node knows revision {} with {} VMs.", survivor.revision, survivor.vms);
    if !unnamed.is_empty() {
        let flags: Vec<_> = survivor.others.iter().map(|name| format!("--lost {name}")).collect();
        bail!(
            "as long as others may run and decide, there would be two clusters. When you have seen that \
             they do not run: novacron node recover {}",
            flags.join(" ")
        );
    }
    if !yes {
        bail!(
            "this gives up on {} for good, and on whatever this node was not told. Add --yes to do it",
            lost.join(", ")
        );
    }
    survivor.go_on_alone().await?;
    println!("The cluster goes on with this node alone. Start it: novacron run");
    println!("The others: novacron node reset --yes, and then novacron join with a token of");
    println!("  novacron token create --node NAME");
    Ok(())
}

fn reset(file: &ConfigFile, yes: bool) -> Result<()> {
    let config = Config::read(&file.config)?;
    let data = &config.node.data_directory;
    if !yes {
        bail!(
            "this removes everything this node knows, in {}; if it is the cluster's only node, \
             that is the cluster. Add --yes to do it",
            data.display()
        );
    }
    founding::reset(data)?;
    println!("{} is empty; `novacron join TOKEN` makes this machine a new node", data.display());
    Ok(())
}

async fn version(common: cli::Common) -> Result<()> {
    println!(
        "novacron {} (protocol {})",
        env!("CARGO_PKG_VERSION"),
        domain::cluster::PROTOCOL_VERSION
    );
    match common.cluster_version().await {
        Ok(version) => {
            println!("cluster  {} (protocol {})", version.version, version.protocol_version)
        }
        Err(error) => println!("cluster  not asked: {error:#}"),
    }
    Ok(())
}

async fn dev(options: Dev) -> Result<()> {
    logs::start(&novacron::config::LogSection { level: "warn".to_owned(), ..Default::default() });
    let temporary = std::env::temp_dir().join(format!("novacron-dev-{}", std::process::id()));
    let kept = options.directory.is_some();
    let directory = options.directory.unwrap_or_else(|| temporary.clone());
    let begun = std::time::Instant::now();
    let cluster = DevCluster::start(DevOptions {
        nodes: usize::from(options.nodes),
        hosts: usize::from(options.hosts),
        directory: directory.clone(),
        failures_per_mille: options.failures_per_mille,
        timing: Timing::relaxed(),
        over: None,
        receivers: std::sync::Arc::default(),
    })
    .await?;
    let access = directory.join("access.json");
    if !access.exists() {
        write_secret(&access, &serde_json::to_string_pretty(&cluster.access)?)?;
    }
    println!("{} nodes run after {:.1} s.", options.nodes, begun.elapsed().as_secs_f64());
    for endpoint in &cluster.access.endpoints {
        println!("  https://{endpoint}");
    }
    println!();
    println!("In another terminal:");
    println!("  export NOVACRON_ACCESS={}", access.display());
    println!("  novacron cluster status");
    println!("  novacron image create tiny");
    println!("  novacron vm create web --image tiny");
    println!("  novacron vm list");
    if options.seed_vms > 0 {
        let begun = std::time::Instant::now();
        novacron::dev::seed(&cluster.access, options.seed_vms).await?;
        println!();
        println!(
            "{} VMs were accepted in {:.1} s.",
            options.seed_vms,
            begun.elapsed().as_secs_f64()
        );
    }
    println!();
    println!("Ctrl-C ends it.");
    stop_signal().await?;
    cluster.stop().await;
    if !kept {
        std::fs::remove_dir_all(&temporary)
            .with_context(|| format!("cannot remove {}", temporary.display()))?;
    }
    Ok(())
}
