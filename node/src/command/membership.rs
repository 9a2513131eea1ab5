//! `novacron init` and `join`: how a machine comes to a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use domain::name::Name;
use novacron::{
    config::Config,
    founding::{self, Setup},
};

use super::ConfigFile;

fn setup(config: &Config) -> Setup<'_> {
    Setup {
        directory: &config.node.data_directory,
        name: config.node_name(),
        peer_address: config.node.peer_address.get_ref(),
        api_address: config.node.api_address.get_ref(),
    }
}

pub(super) async fn init(
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

/// Writes a file that nobody else may read, and that is not there yet.
pub(super) fn write_secret(path: &PathBuf, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

pub(super) async fn join(file: &ConfigFile, token: &str) -> Result<()> {
    let config = Config::read(&file.config)?;
    let cluster = founding::join(&setup(&config), token).await?;
    println!("This machine belongs to cluster {cluster} now. Start it: novacron run");
    Ok(())
}
