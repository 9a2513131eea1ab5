//! Runs that would find the bug.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a run tells belongs to the terminal"
)]

use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use lab::Broken;
use novacron_chaos_tests::{
    Plan, SimulationPlan, Soak, Summary, is_possible, judge_file, notices, run, simulate,
};

/// Clusters of real processes under real faults, and what must hold whatever befalls them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One run: faults of every kind at random, several at once.
    Run(Run),
    /// A run once more, with the same draws; who leads when a fault comes is up to the cluster.
    Replay {
        /// What the run said that it was.
        seed: u64,
        #[command(flatten)]
        options: Options,
    },
    /// One run for each bug that can be planted, until it is noticed.
    Planted(Planted),
    /// Clusters in a simulated world, one for each seed.
    Simulate(Simulate),
    /// Runs that are summed until faults have struck for so long; it goes on where it was left.
    Soak(Soaking),
    /// Judges a history that was kept.
    Judge {
        /// A `history.jsonl`.
        history: PathBuf,
    },
}

#[derive(Args)]
struct Soaking {
    /// How long faults are to strike in all, hours.
    #[arg(long)]
    hours: f64,
    /// How long each run is, minutes.
    #[arg(long, default_value_t = 30)]
    segment_minutes: u64,
    /// How many nodes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(5..=9))]
    nodes: u8,
    /// The program of an earlier version that all nodes of each run begin with; they are upgraded one by one.
    #[arg(long, value_name = "NOVACRON")]
    previous: Option<PathBuf>,
    /// Where to keep what comes out, and what there is so far.
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

#[derive(Args)]
struct Simulate {
    /// What the choices of the first are made from; another one each time without it.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// End with the first seed that is not well.
    #[arg(long)]
    stop_at_first: bool,
    /// How many nodes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// For how many seconds of simulated time faults strike.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What is broken on purpose: then some seed must notice.
    #[arg(long = "break", value_name = "WHAT", value_parser = broken, default_value = "nothing")]
    broken: Broken,
    /// Where to write everything that happens, line by line; for one seed.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// This is the process that simulates, in the environment that was made for it.
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Args)]
struct Planted {
    /// For how many seconds of faults each may go unnoticed.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Where to keep what comes out.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

#[derive(Args)]
struct Run {
    /// What the choices are made from; another one each time without it.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(5..=9))]
    nodes: u8,
    /// For how many seconds faults strike.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// The program of an earlier version that all nodes begin with; they are upgraded one by one.
    #[arg(long, value_name = "NOVACRON")]
    previous: Option<PathBuf>,
    /// What is broken on purpose; the run ends when that is noticed, and fails when it is not.
    #[arg(long = "break", value_name = "WHAT", value_parser = broken, default_value = "nothing")]
    broken: Broken,
    /// Where to keep the history, the summary and the page.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

fn broken(text: &str) -> Result<Broken, String> {
    let all = || [Broken::Nothing].into_iter().chain(Broken::NODE).chain([Broken::RestoresLeader]);
    let known: Vec<String> = all().map(|broken| broken.to_string()).collect();
    let found = all().find(|broken| broken.to_string() == text);
    found.ok_or_else(|| format!("it must be one of {}", known.join(", ")))
}

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            println!("there was no run: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The answer is 0 when nothing is wrong and that means something, else 1.
async fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(Run { seed, options }) => {
            make(seed.unwrap_or_else(|| fastrand::u64(..)), options).await
        }
        Command::Replay { seed, options } => make(seed, options).await,
        Command::Planted(Planted { seconds, out }) => {
            let mut code = ExitCode::SUCCESS;
            for broken in Broken::NODE {
                println!("{broken}");
                let options =
                    Options { nodes: 5, seconds, previous: None, broken, out: out.clone() };
                if make(fastrand::u64(..), options).await? != ExitCode::SUCCESS {
                    println!("{broken} was not noticed");
                    code = ExitCode::FAILURE;
                }
            }
            if !simulation_notices(Broken::RestoresLeader)? {
                code = ExitCode::FAILURE;
            }
            Ok(code)
        }
        Command::Simulate(asked) if asked.inside => simulate_all(&asked),
        Command::Simulate(asked) => simulate_apart(&asked),
        Command::Soak(soaking) => soak(soaking).await,
        Command::Judge { history } => {
            let judgement = judge_file(&history)
                .with_context(|| format!("cannot read {}", history.display()))?;
            println!("{}", serde_json::to_string_pretty(&judgement)?);
            let good = judgement.violations.is_empty() && judgement.undecided.is_empty();
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

const SIGABRT: i32 = 6;

/// Simulates in a process of its own: what is broken is so for a whole process, and so are its clocks. No time
/// of the machine passes there: the HTTP/2 library forgets streams by it, and whoever waits on a connection that
/// breaks is told in an order that depends on that.
fn simulate_apart(asked: &Simulate) -> Result<ExitCode> {
    if asked.trace.is_some() && asked.count > 1 {
        bail!("--trace is for one seed");
    }
    let mut apart = std::process::Command::new(std::env::current_exe()?);
    apart.args(std::env::args_os().skip(1)).arg("--inside").envs(asked.broken.environment());
    if asked.seed.is_none() {
        // Where no time passes nothing can be drawn but always the same.
        apart.args(["--seed", &fastrand::u64(..1 << 48).to_string()]);
    }
    match lab::stopped_clocks() {
        Ok(stopped) => drop(apart.envs(stopped)),
        Err(why) => eprintln!("a seed may not be the same run to the letter: {why}"),
    }
    if asked.broken == Broken::Nothing {
        return Err(apart.exec().into());
    }
    let ended = apart.status()?;
    // A leader panics that finds a log shorter than it was, and what panics while that is cleaned up after ends
    // the process.
    let aborted = ended.signal() == Some(SIGABRT) && asked.broken == Broken::NeverSyncs;
    let noticed = ended.code() == Some(1) || aborted;
    println!("{} was {}noticed", asked.broken, if noticed { "" } else { "not " });
    Ok(if noticed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether one of many seeds notices a bug that a run of processes has no time for: they take longer to start than the
/// others take to elect.
fn simulation_notices(broken: Broken) -> Result<bool> {
    const SEEDS: &str = "100";
    let begun = Instant::now();
    println!("{broken}, simulated");
    let mut simulate = std::process::Command::new(std::env::current_exe()?);
    simulate.args(["simulate", "--count", SEEDS, "--break", &broken.to_string()]);
    let noticed = simulate.status()?.success();
    println!("after {:.0?}", begun.elapsed());
    Ok(noticed)
}

/// Simulates every seed, on as many threads as there are processors.
fn simulate_all(asked: &Simulate) -> Result<ExitCode> {
    let stops = asked.stop_at_first || asked.broken != Broken::Nothing;
    let first = asked.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    let next = AtomicU64::new(first);
    let bad = AtomicU64::new(0);
    let threads = std::thread::available_parallelism()?.get();
    let work = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let found = stops && bad.load(Ordering::Relaxed) > 0;
            if seed >= first + asked.count || found {
                return Ok(());
            }
            let plan = SimulationPlan {
                seed,
                nodes: asked.nodes.into(),
                storm: Duration::from_secs(asked.seconds),
                trace: asked.trace.clone(),
            };
            let simulated = simulate(&plan)?;
            println!("{}", serde_json::to_string(&simulated)?);
            let well = if asked.broken == Broken::Nothing {
                simulated.is_good()
            } else {
                !notices(asked.broken, &simulated.violations)
            };
            if !well {
                bad.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().map_err(|_| anyhow::anyhow!("a simulation panicked"))?
        })
    })?;
    let bad = bad.into_inner();
    println!("{bad} of {} seeds are not well", next.into_inner().min(first + asked.count) - first);
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends with the first run that is not good.
async fn soak(
    Soaking { hours, segment_minutes, nodes, previous, out }: Soaking,
) -> Result<ExitCode> {
    let mut soak = Soak::load(&out)?;
    while (soak.storm_s() as f64) < hours * 3_600.0 {
        let options = Options {
            nodes,
            seconds: segment_minutes * 60,
            previous: previous.clone(),
            broken: Broken::Nothing,
            out: out.clone(),
        };
        let summary = summarize(fastrand::u64(..), options).await?;
        soak.add(&summary, &out)?;
        if !summary.is_good() {
            println!("{soak}");
            return Ok(ExitCode::FAILURE);
        }
    }
    println!("{soak}");
    Ok(ExitCode::SUCCESS)
}

async fn make(seed: u64, options: Options) -> Result<ExitCode> {
    let broken = options.broken;
    let summary = summarize(seed, options).await?;
    let good = if broken == Broken::Nothing {
        summary.is_good()
    } else {
        notices(broken, &summary.violations)
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn summarize(seed: u64, options: Options) -> Result<Summary> {
    if let Err(why) = is_possible() {
        bail!("{why}");
    }
    let me = std::env::current_exe()?;
    // Nodes run in directories of their own.
    let whole = |file: PathBuf| {
        file.canonicalize().with_context(|| format!("cannot find {}", file.display()))
    };
    let previous = options.previous.map(whole);
    let plan = Plan {
        seed,
        nodes: usize::from(options.nodes),
        storm: Duration::from_secs(options.seconds),
        previous: previous.transpose()?,
        broken: options.broken,
        programs: me.parent().context("this program lies nowhere")?.to_owned(),
        out: options.out.join(format!("{seed}-{}", options.broken).trim_end_matches("-nothing")),
    };
    println!("seed {seed}");
    let summary = run(&plan, |step| println!("{step}")).await?;
    println!("{summary}\n{}", plan.out.join("index.html").display());
    Ok(summary)
}
