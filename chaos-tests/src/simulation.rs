//! A cluster in a simulated world: its nodes, what is between them, their clocks and the disks under their logs
//! are steps of one thread, and every choice comes from one seed.
//!
//! Real are the stores: proposals and reads, the law, snapshots, elections, and what nodes say to each other.
//! Not here are TLS, the log's files and sled (real processes are for those), and everything above the store.

mod clients;
mod node;
mod nodes;
mod trace;
mod weather;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, ensure};
use domain::id::Digest;
use serde::Serialize;
use turmoil::Sim;

use crate::{
    checker::{Violation, judge},
    history::{History, Kind},
};
use nodes::Nodes;
use trace::Trace;
use weather::Weather;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct SimulationPlan {
    /// What every choice is made from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u64,
    /// For how long faults strike.
    pub storm: Duration,
    /// Where what happened is written, line by line.
    pub trace: Option<PathBuf>,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Simulated {
    /// See [`SimulationPlan::seed`].
    pub seed: u64,
    /// Things that happened: what clients asked and heard, what nodes applied, who led, what struck.
    pub events: u64,
    /// The hash of all of them, in their order.
    pub trace_sha256: String,
    /// What clients were told was done.
    pub done: u64,
    /// What they were told was not.
    pub refused: u64,
    /// What nobody knows of.
    pub unknown: u64,
    /// Terms in which somebody led.
    pub elections: usize,
    /// What struck, and how often.
    pub faults: BTreeMap<&'static str, u64>,
    /// What does not hold.
    pub violations: Vec<Violation>,
    /// Keys for which no order was found in time.
    pub undecided: Vec<String>,
}

impl Simulated {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }
}

/// A step of simulated time.
const TICK: Duration = Duration::from_millis(1);
/// How long everything may take to be well again.
const HEALING: Duration = Duration::from_secs(60);
/// Simulated time between two looks at all nodes.
const LOOK: Duration = Duration::from_millis(10);

/// Simulates a cluster, on this thread.
///
/// # Errors
/// When there is no run: what it needs outside of the simulation is missing. What the run finds is no error.
pub fn simulate(plan: &SimulationPlan) -> Result<Simulated> {
    watch_panics(plan.seed);
    let home = tempfile::Builder::new().prefix("simulated").tempdir_in(memory())?;
    // From here on: what the name of a directory is drawn from is not part of it.
    fastrand::seed(plan.seed);
    let trace = Rc::new(Trace::begin(plan.trace.as_deref())?);
    let now_ns = Arc::new(AtomicU64::new(0));
    let clock = now_ns.clone();
    let history = History::timed(std::io::sink(), move || clock.fetch_add(1, Ordering::Relaxed));
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .simulation_duration(Duration::MAX)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(3))
        .tcp_capacity(4_096)
        .build();
    let nodes = Nodes::new(plan.nodes, home.path(), history.clone());
    nodes.place(&mut sim);
    let mut run = Run { sim, now_ns, trace, history, nodes, looked: Duration::ZERO };
    let mut weather = Weather::new(plan.nodes);
    let ended = run.through(&mut weather, plan.storm);
    let mut violations = run.nodes.violations();
    for panic in PANICS.take() {
        violations.push(Violation { model: "panic", key: String::new(), what: panic });
    }
    if let Err(why) = ended {
        let (model, what) = ("course", why.to_string());
        violations.push(Violation { model, key: String::new(), what });
    }
    Ok(run.report(plan.seed, weather, violations))
}

struct Run {
    sim: Sim<'static>,
    now_ns: Arc<AtomicU64>,
    trace: Rc<Trace>,
    history: Arc<History>,
    nodes: Nodes,
    looked: Duration,
}

impl Run {
    /// The whole of it. The error is that it did not go as it must.
    fn through(&mut self, weather: &mut Weather, storm: Duration) -> Result<()> {
        self.until(HEALING, "found a cluster", |nodes| nodes.all_are_up())?;
        let end = self.sim.elapsed() + storm;
        while self.sim.elapsed() < end {
            weather.pass(&mut self.sim, &self.nodes, &self.trace);
            self.step()?;
        }
        weather.clear(&mut self.sim, &self.nodes, &self.trace);
        self.until(HEALING, "be well again", |nodes| nodes.all_are_up())?;
        self.nodes.stop();
        self.until(HEALING, "agree", |nodes| nodes.agree())
    }

    fn step(&mut self) -> Result<()> {
        let now = self.sim.elapsed();
        let now_ns = u64::try_from(now.as_nanos()).context("the simulation is too long")?;
        self.now_ns.fetch_max(now_ns, Ordering::Relaxed);
        // A task that panics takes its node's world with it.
        let step = catch_unwind(AssertUnwindSafe(|| self.sim.step()));
        let step = step.map_err(|_| anyhow!("a node panicked"))?;
        step.map_err(|error| anyhow!("a node ended: {error}"))?;
        if now >= self.looked + LOOK {
            self.looked = now;
            self.nodes.look(&self.trace);
        }
        Ok(())
    }

    fn until(&mut self, patience: Duration, what: &str, is: impl Fn(&Nodes) -> bool) -> Result<()> {
        let begun = self.sim.elapsed();
        while !is(&self.nodes) {
            ensure!(self.sim.elapsed() < begun + patience, "it does not {what}: {}", self.nodes);
            self.step()?;
        }
        Ok(())
    }

    fn report(self, seed: u64, weather: Weather, mut violations: Vec<Violation>) -> Simulated {
        let events = self.history.events();
        for event in &events {
            self.trace.note(&serde_json::to_string(event).unwrap_or_default());
        }
        let count = |kind: Kind| events.iter().filter(|event| event.kind == kind).count() as u64;
        let judgement = judge(&events);
        violations.extend(judgement.violations);
        let (traced, digest) = self.trace.end();
        Simulated {
            seed,
            events: traced,
            trace_sha256: digest.to_string(),
            done: count(Kind::Ok),
            refused: count(Kind::Fail),
            unknown: count(Kind::Info),
            elections: self.nodes.elections(),
            faults: weather.struck(),
            violations,
            undecided: judgement.undecided,
        }
    }
}

thread_local! {
    /// The seed of this thread's simulation.
    static SEED: Cell<u64> = const { Cell::new(0) };
    /// What panicked in it: a task that does is gone, and nobody is told.
    static PANICS: RefCell<Vec<String>> = RefCell::default();
}

#[allow(clippy::print_stderr, reason = "where panics are told")]
fn watch_panics(seed: u64) {
    static WATCHED: Once = Once::new();
    SEED.set(seed);
    PANICS.take();
    WATCHED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            // The process may not live to report it.
            eprintln!("in the simulation of seed {}:", SEED.get());
            before(panic);
        }));
    });
}

/// Where files are kept that need not outlive this program: in memory, where there is such a place.
fn memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}

/// A hash of a hash and a line.
fn link(before: Digest, line: &str) -> Digest {
    Digest::of(&[before.as_bytes(), line.as_bytes()])
}
