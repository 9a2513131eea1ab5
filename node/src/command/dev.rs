//! `novacron dev`: a whole cluster in this process.

use std::{os::unix::fs::DirBuilderExt, path::PathBuf};

use anyhow::{Context, Result};
use novacron::{
    dev::{DevCluster, DevOptions},
    logs,
};
use raft_store::Timing;

use super::{membership::write_secret, run::stop_signal};

#[derive(clap::Args)]
pub(super) struct Dev {
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

pub(super) async fn run(options: Dev) -> Result<()> {
    logs::start(&novacron::config::LogSection { level: "warn".to_owned(), ..Default::default() });
    let temporary = std::env::temp_dir().join(format!("novacron-dev-{}", uuid::Uuid::now_v7()));
    let kept = options.directory.is_some();
    let directory = match options.directory {
        Some(directory) => directory,
        None => {
            // Nobody else has prepared it, or looks into it.
            let made = std::fs::DirBuilder::new().mode(0o700).create(&temporary);
            made.with_context(|| format!("cannot make {}", temporary.display()))?;
            temporary.clone()
        }
    };
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
