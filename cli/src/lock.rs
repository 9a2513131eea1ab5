//! Locks.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use client::v1::{self, locks_client::LocksClient};
use tokio::process::{Child, Command};

use crate::{
    Session, all_pages, call,
    exit::Exit,
    output::{Column, at, column, number, wide},
    vm::Project,
};

/// How a lock is asked for.
#[derive(Clone, Debug, Args)]
pub struct Wish {
    /// The lock's name; it needs not be made before.
    name: String,
    #[command(flatten)]
    project: Project,
    /// Who asks; this machine's name and the process if absent.
    #[arg(long, default_value = "")]
    owner: String,
    /// Seconds that it is held from the grant and from each renewal.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    ttl: u64,
    /// Seconds to wait for it, in the order of asking; 0 to be refused at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

/// Which lock, and under which fence it is held.
#[derive(Clone, Debug, Args)]
pub struct Held {
    /// The lock's name.
    name: String,
    /// The fence that `acquire` printed.
    fence: u64,
    #[command(flatten)]
    project: Project,
}

/// What may be done with locks.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Take a lock, or wait for it; prints the fence.
    Acquire(Wish),
    /// Hold a lock for its time again.
    Renew(Held),
    /// Give a lock back.
    Release(Held),
    /// Run a command while a lock is held and renewed; it finds the fence in NOVACRON_FENCE, and is
    /// ended when the lock is lost.
    #[command(after_help = "Example:\n  novacron lock run backup --wait 600 -- ./backup.sh")]
    Run {
        #[command(flatten)]
        wish: Wish,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show one lock.
    Get {
        /// Its name.
        name: String,
        #[command(flatten)]
        project: Project,
    },
    /// Show all locks that are held.
    List {
        #[command(flatten)]
        project: Project,
        /// A filter, such as `owner:backup`.
        #[arg(short = 'l', long, value_name = "FILTER", default_value = "")]
        selector: String,
    },
}

const COLUMNS: &[Column] = &[
    column("NAME", |row| at(row, "name")),
    column("OWNER", |row| at(row, "owner")),
    column("FENCE", |row| number(row, "fence")),
    column("LEFT", |row| {
        let ms = number(row, "leftMs").parse::<u64>().unwrap_or(0);
        format!("{} s", ms / 1_000)
    }),
    column("WAITING", |row| row["waiters"].as_array().map_or(0, Vec::len).to_string()),
    wide("PROJECT", |row| at(row, "project")),
];

pub(crate) async fn run(session: &Session, verb: Verb) -> Result<()> {
    match verb {
        Verb::Acquire(wish) => {
            println!("{}", acquire(session, &wish).await?);
            Ok(())
        }
        Verb::Renew(held) => {
            let outcome = renew(session, &held).await?;
            session.settle(&format!("lock {} renewed", held.name), Some(outcome)).await
        }
        Verb::Release(held) => {
            let request = request(session, &held).await?;
            let outcome = call!(session, LocksClient<_>, release_lock, request).await?;
            session.settle(&format!("lock {} released", held.name), Some(outcome)).await
        }
        Verb::Run { wish, command } => run_under(session, wish, command).await,
        Verb::Get { name, project } => {
            let request =
                v1::GetLockRequest { project: project.project, lock: name, freshness: None };
            let lock = call!(session, LocksClient<_>, get_lock, request).await?;
            session.output.row(&lock, COLUMNS)
        }
        Verb::List { project, selector } => {
            let page = v1::Page { filter: selector, page_size: 1000, ..Default::default() };
            let request = v1::ListLocksRequest {
                project: project.project,
                page: Some(page),
                freshness: None,
            };
            let (locks, _) = all_pages!(session, LocksClient<_>, list_locks, request, locks);
            session.output.rows(&locks, COLUMNS)
        }
    }
}

async fn request(session: &Session, held: &Held) -> Result<v1::HeldLockRequest, client::Error> {
    Ok(v1::HeldLockRequest {
        mutation: session.client.mutation().await?,
        project: held.project.project.clone(),
        lock: held.name.clone(),
        fence: held.fence,
    })
}

/// Asks until the lock is held; the answer is the fence.
async fn acquire(session: &Session, wish: &Wish) -> Result<u64> {
    let owner = match wish.owner.as_str() {
        "" => format!(
            "{}:{}",
            rustix::system::uname().nodename().to_string_lossy(),
            std::process::id()
        ),
        owner => owner.to_owned(),
    };
    let request = v1::AcquireLockRequest {
        mutation: session.client.mutation().await?,
        project: wish.project.project.clone(),
        lock: wish.name.clone(),
        owner,
        ttl_ms: wish.ttl.saturating_mul(1_000),
        wait_ms: wish.wait.saturating_mul(1_000),
    };
    // The same request waits on where the last call left off.
    loop {
        let answer = call!(session, LocksClient<_>, acquire_lock, request.clone()).await?;
        if answer.held {
            return Ok(answer.fence);
        }
    }
}

async fn renew(session: &Session, held: &Held) -> Result<v1::Outcome, client::Error> {
    let request = request(session, held).await?;
    call!(session, LocksClient<_>, renew_lock, request).await
}

async fn run_under(session: &Session, wish: Wish, command: Vec<String>) -> Result<()> {
    let fence = acquire(session, &wish).await?;
    let held = Held { name: wish.name.clone(), fence, project: wish.project.clone() };
    // When it was granted within that wait nobody knows; a renewal counts from before it was asked.
    let mut granted = Instant::now();
    renew(session, &held).await?;
    let (program, arguments) = command.split_first().context("there is no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("NOVACRON_FENCE", fence.to_string())
        .stdin(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let ttl = Duration::from_secs(wish.ttl);
    let mut renewal = tokio::time::interval(ttl / 3);
    renewal.tick().await;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = renewal.tick() => {
                let asked = Instant::now();
                let left = ttl.saturating_sub(granted.elapsed());
                let renewed = tokio::time::timeout(left, renew(session, &held)).await.ok();
                match renewed {
                    Some(Ok(_)) => granted = asked,
                    Some(Err(client::Error::Refused(status))) => {
                        end(&mut child).await;
                        bail!("the lock is lost, and the command was ended: {}", status.message());
                    }
                    // Nobody answered; the lock is held for as long as it was granted.
                    Some(Err(_)) | None if granted.elapsed() < ttl => {}
                    Some(Err(_)) | None => {
                        end(&mut child).await;
                        bail!("the lock could not be renewed in time, and the command was ended");
                    }
                }
            }
        }
    };
    let request = request(session, &held).await?;
    call!(session, LocksClient<_>, release_lock, request).await?;
    match status.code() {
        Some(0) => Ok(()),
        _ => Err(Exit::Stuck(format!("{program}: {status}")).into()),
    }
}

/// The lock does not protect any more what the command does.
async fn end(child: &mut Child) {
    let _ = child.kill().await;
}
