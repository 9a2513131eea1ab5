//! `novacron node …`: this machine as a node that does not run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use domain::name::Name;
use novacron::{config::Config, founding};

use super::ConfigFile;

#[derive(Subcommand)]
pub(super) enum Node {
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

pub(super) async fn run(verb: Node) -> Result<()> {
    match verb {
        Node::Reset { config, yes } => reset(&config, yes),
        Node::MakePool { directory } => make_pool(&directory),
        Node::Recover { config, lost, yes } => recover(&config, &lost, yes).await,
    }
}

fn make_pool(directory: &Path) -> Result<()> {
    let id = drivers::pool::make(directory).with_context(|| format!("{}", directory.display()))?;
    println!("{} is pool {id}", directory.display());
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
