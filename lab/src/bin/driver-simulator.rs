//! A simulated host's driver as a process of its own, and its guard. It takes what other drivers take.
#![allow(clippy::print_stderr, reason = "what a driver says goes to its log")]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use domain::{Fence, host::Capacity, id::BootId};
use drivers::{
    Guard, protocol,
    simulator::{Options, Places, Simulator},
};
use guard::Request;
use rustix::fs::{FlockOperation, flock};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
};

/// Runs bodies on one simulated host for a NovaCron node.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The Unix socket on which the node finds this driver.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Where bodies lie, as long as the host has power.
    #[arg(long, value_name = "DIRECTORY")]
    state: PathBuf,
    /// `simulator:DIRECTORY`: where what must outlive a loss of power lies.
    #[arg(long, value_name = "URI")]
    uri: String,
    /// `simulator:ADDRESS:PORT`: where guests come from other hosts.
    #[arg(long, value_name = "URI")]
    migration_uri: String,
    /// The socket on which this is the host's guard too.
    #[arg(long, value_name = "PATH")]
    guard: PathBuf,
    /// Other drivers have a use for it.
    #[arg(long)]
    virt_type: Option<String>,
    /// Other drivers have a use for them.
    #[arg(long = "pool")]
    pools: Vec<String>,
}

/// What one is like: slow enough for much to happen meanwhile, and some calls so slow that whoever made them may
/// be the host's owner no more.
const LATENCY_MS_MAX: u64 = 50;
const SLOW_PER_MILLE: u64 = 50;
/// The same where it is planted that hosts ignore fences: only a call that outlives its owner shows that.
const SLOW_WITHOUT_FENCES_PER_MILLE: u64 = 250;
const COPY_MS: u64 = 1_000;

/// What its log says of guests that were made to crash, and then how many.
const CRASHED: &str = "guests that crashed: ";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.state)?;
    let lock = std::fs::File::create(arguments.state.join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).context("there is one already")?;
    let plain = |uri: &str| uri.strip_prefix("simulator:").map(str::to_owned);
    let durable = plain(&arguments.uri).context("--uri is of another driver")?.into();
    let address: SocketAddr =
        plain(&arguments.migration_uri).context("--migration-uri is of another driver")?.parse()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let boot: BootId = boot.trim().parse()?;
    let whole = Options::default();
    let options = Options {
        seed: u64::from(std::process::id()),
        latency_ms_max: LATENCY_MS_MAX,
        slow_per_mille: match guard::is_broken("ignore-fence") {
            true => SLOW_WITHOUT_FENCES_PER_MILLE,
            false => SLOW_PER_MILLE,
        },
        copy_ms: COPY_MS,
        address: Some(address.to_string()),
        guard: Some(arguments.guard.clone()),
        // Room for all that hours of a fault test leave.
        capacity: Capacity { cpu_millicores: 4_000_000, ..whole.capacity },
        ..whole
    };
    let places = Places { volatile: arguments.state, durable };
    let host = Arc::new(Simulator::open(options, boot, places)?);
    let guests = TcpListener::bind(address).await?;
    let _ = std::fs::remove_file(&arguments.guard);
    let guarded = UnixListener::bind(&arguments.guard)?;
    tokio::select! {
        ended = protocol::serve(host.clone(), &arguments.socket) => ended?,
        ended = host.receive_guests(guests) => ended?,
        ended = guard_it(&host, guarded) => ended?,
        ended = crash_guests(&host) => ended?,
        () = look_at_the_time(&host) => {}
    }
    Ok(())
}

/// Ends guests when their time is over, as guards do.
async fn look_at_the_time(host: &Simulator) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        host.look_at_the_time();
    }
}

/// All guests crash whenever it is signalled, and how many is told.
async fn crash_guests(host: &Simulator) -> std::io::Result<()> {
    let mut signals = signal(SignalKind::user_defined1())?;
    while signals.recv().await.is_some() {
        eprintln!("{CRASHED}{}", host.crash_all());
    }
    Ok(())
}

/// Answers as guards do.
async fn guard_it(host: &Arc<Simulator>, listener: UnixListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let host = host.clone();
        tokio::spawn(async move {
            // Whoever asks sees that nothing was answered.
            let _ = tokio::time::timeout(Duration::from_secs(1), answer(&host, stream)).await;
        });
    }
}

async fn answer(host: &Simulator, stream: UnixStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let done = match line.trim_end().parse::<Request>() {
        Ok(Request::Ready) => Ok(String::new()),
        Ok(Request::Hold(warrant)) => {
            let held = host.hold(warrant).await;
            held.map(|level| level.as_str().to_owned()).map_err(|error| error.to_string())
        }
        Ok(Request::May(lease, _)) => {
            let admitted = host.admits(Fence::from_u64(lease));
            admitted.map(|()| String::new()).map_err(|error| error.to_string())
        }
        Ok(Request::End) => {
            host.end().await.map(|()| String::new()).map_err(|error| error.to_string())
        }
        Err(error) => Err(error),
    };
    let said = match done {
        Ok(said) => format!("ok {said}"),
        Err(why) => format!("no {}", why.replace('\n', " ")),
    };
    stream.write_all(format!("{}\n", said.trim_end()).as_bytes()).await
}
