//! The cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::Subcommand;
use client::v1::{self, clusters_client::ClustersClient};
use indicatif::ProgressBar;

use crate::{
    Session, call,
    output::{Column, Format, at, column, number, wide},
};

/// What may be done with the cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Where the cluster stands, and how many more nodes may be lost.
    Status,
    /// Expel a node. Its id never returns; on the node, `novacron node reset` comes next.
    Remove {
        /// Its name or id.
        node: String,
    },
    /// Write the cluster's whole state to a file: everything but images' files and guests' disks. The cluster
    /// goes on meanwhile. `novacron init --restore FILE` begins again from it.
    Backup {
        /// The new file. It holds hashes of secrets and the VMs' user data: keep it safe.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Hand the leadership over.
    TransferLeader {
        /// The voter that is to lead; any if absent.
        #[arg(default_value = "")]
        node: String,
    },
}

pub(crate) const COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("ID", |row| at(row, "id")),
    column("ROLE", |row| at(row, "role")),
    column("API", |row| at(row, "apiAddress")),
    wide("PEER", |row| at(row, "peerAddress")),
    column("DISK", |row| format!("{} %", number(row, "diskUsedPercent"))),
    column("BEHIND", |row| at(row, "behind")),
    wide("SILENT", |row| at(row, "silentMs")),
    wide("VERSION", |row| at(row, "version")),
    wide("PROTOCOL", |row| at(row, "protocolMax")),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<()> {
    match verb {
        Verb::Status => status(session).await,
        Verb::Remove { node } => {
            let what = format!("node {node} removed");
            let request =
                v1::RemoveNodeRequest { mutation: session.client.mutation().await?, node };
            let outcome = call!(session, ClustersClient<_>, remove_node, request).await?;
            session.settle(&what, Some(outcome)).await
        }
        Verb::Backup { out } => back_up(session, &out).await,
        Verb::TransferLeader { node } => {
            let request = v1::TransferLeaderRequest { node };
            let answer = call!(session, ClustersClient<_>, transfer_leader, request).await?;
            eprintln!("{} leads now", answer.leader);
            Ok(())
        }
    }
}

async fn back_up(session: &Session, out: &Path) -> Result<()> {
    anyhow::ensure!(!out.exists(), "{} exists already; give another --out", out.display());
    // What broke off must not look like a backup.
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let bar = ProgressBar::no_length();
    let made = session.client.back_up(&part, |bytes, all| {
        bar.set_length(all);
        bar.set_position(bytes);
    });
    let made = made.await;
    bar.finish_and_clear();
    let written = made.map_err(anyhow::Error::from).and_then(|backup| {
        std::fs::rename(&part, out)?;
        Ok(backup)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    let backup = written?;
    eprintln!(
        "{} holds the state at revision {}: {} KiB",
        out.display(),
        backup.revision,
        backup.size_bytes.div_ceil(1_024)
    );
    Ok(())
}

async fn status(session: &Session) -> Result<()> {
    // What one node knows, however old it is: without a majority that is all there is.
    const PATIENCE: Duration = Duration::from_secs(4);
    let freshness = Some(v1::Freshness { stale: true, ..Default::default() });
    let request = v1::GetClusterRequest { freshness };
    let known = call!(session, ClustersClient<_>, get_cluster, request).await?;
    let request = v1::GetClusterRequest::default();
    let asked = async { call!(session, ClustersClient<_>, get_cluster, request).await };
    let Ok(cluster) = tokio::time::timeout(PATIENCE, asked).await else {
        return undecided(session, &known);
    };
    let cluster = cluster?;
    if !matches!(session.output.format, Format::Table | Format::Wide) {
        return session.output.row(&cluster, COLUMNS);
    }
    let voters =
        cluster.nodes.iter().filter(|node| matches!(node.role.as_str(), "leader" | "voter"));
    println!("cluster    {} ({})", cluster.name, cluster.id);
    println!("leader     {} (term {})", cluster.leader, cluster.term);
    // Only the leader hears of all voters, so only its count is worth anything.
    if cluster.answered_by == cluster.leader {
        println!("voters     {}; {} more may be lost", voters.count(), cluster.losable);
    } else {
        println!("voters     {}", voters.count());
    }
    println!("hosts      {} of {} ready", cluster.hosts_ready, cluster.hosts);
    println!("vms        {}", cluster.vms);
    println!("operations {} unfinished", cluster.open_operations);
    println!("protocol   {}", cluster.protocol_version);
    println!();
    session.output.rows(&cluster.nodes, COLUMNS)
}

/// What a node knows of a cluster that does not answer, and how long the node's guests have left.
fn undecided(session: &Session, known: &v1::Cluster) -> Result<()> {
    if matches!(session.output.format, Format::Table | Format::Wide) {
        println!("cluster    {} ({})", known.name, known.id);
        println!("decides    nothing, as {} sees it: no majority answers", known.answered_by);
        for row in &known.guarded_hosts {
            let left = match row.ends_in_ms {
                0 => "its guard ends guests that may be made anew elsewhere".to_owned(),
                ms => format!(
                    "in {} s its guard ends guests that may be made anew elsewhere, unless a majority is back",
                    ms.div_ceil(1_000)
                ),
            };
            println!("host       {}: {left}", row.host);
        }
    } else {
        session.output.row(known, COLUMNS)?;
    }
    anyhow::bail!("the cluster does not decide at present")
}
