//! What the program tells of itself: its version, completion scripts, manual pages.

use std::path::Path;

use anyhow::Result;
use clap::CommandFactory;

use super::Cli;

pub(super) async fn version(common: cli::Common) -> Result<()> {
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

pub(super) fn complete(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "novacron", &mut script);
    match std::io::Write::write_all(&mut std::io::stdout(), &script) {
        // Who reads it has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

pub(super) fn write_manual(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    Ok(clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)?)
}
