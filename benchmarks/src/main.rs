//! How fast it is, beside etcd, `virsh` and the disk: each figure with its peer's, of the same run on the same machine.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a run tells belongs to the terminal"
)]

mod book;
mod etcd;
mod field;
mod growth;
mod load;
mod ours;
mod page;
mod row;

#[allow(missing_docs, clippy::all, reason = "made from another project's names")]
mod api {
    tonic::include_proto!("etcdserverpb");
}

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    book::Book,
    field::{Extent, Field},
    page::Circumstances,
    row::{
        append, failover, guests, idle, lists, many, mixed, placement, reads, traces, watches,
        writes,
    },
};

/// Measures NovaCron beside its peers, and writes a page of it.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Take only these rows, by number.
    #[arg(long = "row", value_name = "N", value_delimiter = ',')]
    rows: Vec<u8>,
    /// With so many clients at a time.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,
    /// Measure how it grows, beside nothing: with nodes, with VMs, and over links that are late.
    #[arg(long, conflicts_with_all = ["rows", "clients"])]
    growth: bool,
    /// Only see that it works: the figures mean nothing.
    #[arg(long)]
    short: bool,
    /// Where to write the page.
    #[arg(long, value_name = "FILE", default_value = "target/benchmarks.md")]
    page: PathBuf,
    /// Where to write the figures.
    #[arg(long, value_name = "FILE", default_value = "target/benchmarks.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return failed(&error.into()),
    };
    // What is measured is dropped then, and with it ends what was started.
    let measured = tokio::select! {
        measured = measure(&cli) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    };
    measured.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("benchmarks: {error:#}");
    ExitCode::FAILURE
}

/// Measures, and writes what there is, also when a row failed.
async fn measure(cli: &Cli) -> Result<()> {
    let around = Circumstances::look()?;
    let in_memory = around.disk == "tmpfs" && !cli.short;
    ensure!(!in_memory, "/tmp lies in memory, where a sync costs nothing; mount a disk there");
    let mut book = Book::default();
    let me = std::env::current_exe()?;
    let programs = me.parent().context("this program lies nowhere")?;
    let (layout, measured) = if cli.growth {
        let extent = if cli.short { growth::Extent::short() } else { growth::Extent::whole() };
        (growth::PAGE, growth::measure(&extent, programs, &mut book).await)
    } else {
        (page::BESIDE_PEERS, rows(cli, programs.to_owned(), &mut book).await)
    };
    page::write(&layout, &book, &around, &cli.page, &cli.json)?;
    println!("{}", cli.page.display());
    measured
}

async fn rows(cli: &Cli, programs: PathBuf, book: &mut Book) -> Result<()> {
    let extent = if cli.short { Extent::short() } else { Extent::whole(cli.clients.clone()) };
    let wanted = |rows: &[u8]| cli.rows.is_empty() || rows.iter().any(|row| cli.rows.contains(row));
    if wanted(&[7]) {
        placement::measure(&extent, book)?;
    }
    if wanted(&[12]) {
        append::measure(&extent, book)?;
    }
    if wanted(&[6]) {
        many::measure(&extent, programs.clone(), book).await?;
    }
    if wanted(&[14]) {
        traces::measure(&extent, programs.clone(), book).await?;
    }
    if wanted(&[3, 4, 5, 8, 9, 10, 13]) {
        let mut field = Field::start(programs.clone(), extent.clone()).await?;
        if wanted(&[10]) {
            failover::measure(&mut field, book).await?;
        }
        if wanted(&[3]) {
            reads::measure(&field, book).await?;
        }
        if wanted(&[4, 5, 8, 13]) {
            lists::measure(&field, book).await?;
        }
        if wanted(&[8, 13]) {
            idle::measure(&mut field, book).await?;
        }
        if wanted(&[4]) {
            mixed::measure(&field, book).await?;
        }
        if wanted(&[9]) {
            watches::measure(&field, book).await?;
        }
    }
    if wanted(&[1]) {
        writes::measure(&programs, &extent, book).await?;
    }
    if wanted(&[2]) {
        // On a cluster of its own: those that create leave as many VMs as there may be.
        let mut field = Field::start(programs.clone(), extent.clone()).await?;
        writes::measure_streams(&mut field, book).await?;
    }
    // Last: what real guests need may not be there.
    if wanted(&[11]) {
        guests::measure(&extent, &programs, book).await?;
    }
    Ok(())
}
