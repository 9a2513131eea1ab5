//! `novacron config check`, `doctor` and `debug bundle`: a machine is looked over, and nothing is changed.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use novacron::{bundle, config::Config, doctor};

use super::ConfigFile;

#[derive(Subcommand)]
pub(super) enum Debug {
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
pub(super) enum ConfigVerb {
    /// Tell all problems of a configuration file at once.
    Check(ConfigFile),
}

pub(super) fn check(file: &ConfigFile) -> Result<()> {
    Config::read(&file.config)?;
    println!("{} is good", file.config.display());
    Ok(())
}

pub(super) async fn doctor(file: &ConfigFile, common: &cli::Common) -> Result<()> {
    let client = common.client().map_err(|error| format!("{error:#}"));
    cli::report(&doctor::examine(&file.config, client).await, common)
}

pub(super) async fn bundle(file: &ConfigFile, out: &Path, common: &cli::Common) -> Result<()> {
    let parts = bundle::gather(&file.config, common).await;
    bundle::write(&parts, out)?;
    for part in &parts {
        println!("{:>10}  {}", part.text.len(), part.name);
    }
    println!("{}: look through it (tar --zstd -xf) before you send it", out.display());
    Ok(())
}
