//! A run: a cluster, those who use it, what befalls it, and what comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Broken, Cluster, ClusterOptions, Fencing, Hosts, Storage};

use crate::{
    checker::{Judgement, Violation, judge},
    fault::Site,
    history::History,
    nemesis::{Nemesis, Storm},
    page,
    summary::Summary,
    workload::{
        Load, lives, lives::Lives, locks, registers, registers::Registers, watches,
        watches::Watchers,
    },
};

/// What a run is to be like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Repeats the choices of a run: which faults, in which order, at whom, for how long.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How long faults strike; up to twice as long when one of them has not been seen to happen by then.
    pub storm: Duration,
    /// What is broken on purpose. Such a run ends as soon as a checker has noticed.
    pub broken: Broken,
    /// The directory with the programs.
    pub programs: PathBuf,
    /// Where everything is kept that comes out: `history.jsonl`, `summary.json`, `index.html`, and the logs of
    /// the nodes when something is wrong.
    pub out: PathBuf,
}

/// Clients that use registers, that use locks, and that lead VMs through their lives.
const CLIENTS: u64 = 24;
const HOLDERS: u64 = 10;
const LEADERS: u64 = 4;
/// Between two looks of the checkers at a run in which something is broken.
const LOOK: Duration = Duration::from_secs(5);
/// How long clients may wait for the answers to what they asked last.
const LAST_ANSWERS: Duration = Duration::from_secs(20);
/// How long everything may take to be well again.
const HEALING: Duration = Duration::from_secs(90);

/// Why this machine can have no such run, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    lab::disks_are_possible()?;
    lab::bridges_are_possible()?;
    lab::tampered_syncs_are_possible()?;
    lab::limits_are_possible()?;
    lab::late_packets_are_possible()?;
    lab::twice_is_possible()?;
    lab::wall_clocks_are_possible()
}

/// Makes a run. `tell` hears of each step. The answer says what was found; whether that is good it says too.
///
/// # Errors
/// When there was no run: the cluster did not start, or nothing can be written.
pub async fn run(plan: &Plan, tell: impl Fn(&str) + Sync) -> Result<Summary> {
    fastrand::seed(plan.seed);
    std::fs::create_dir_all(&plan.out)?;
    let history_file = plan.out.join("history.jsonl");
    let options = ClusterOptions {
        nodes: plan.nodes,
        hosts: Hosts::Bridged,
        programs: plan.programs.clone(),
        storage: Storage::Disk,
        fencing: Fencing::None,
        broken: plan.broken,
        slow_clock: None,
        movable_clocks: true,
    };
    let cluster = Cluster::start(options, |step| tell(step)).await?;
    cluster.await_voters(plan.nodes).await?;
    let history = History::begin(&history_file)?;
    let load = Load::new(&cluster, history.clone())?;
    let registers = Registers::make(&load).await.context("cannot make registers")?;
    let since = registers.write_one(&load).await.context("cannot write to a register")?;
    let watchers = Watchers::begin(&load, since);
    let lives = Arc::new(Lives::default());
    let users = [
        registers.use_them(&load, CLIENTS, plan.seed),
        locks::take(&load, HOLDERS, plan.seed),
        lives.lead(&load, LEADERS, plan.seed),
    ];

    let mut site = Site::new(cluster)?;
    let begun = Instant::now();
    let mut looked = Instant::now();
    let mut nemesis = Nemesis { seed: plan.seed, site: &mut site, history: &history, tell: &tell };
    let mut noticed = None;
    let storm = nemesis.rage(|storm| {
        if plan.broken != Broken::Nothing && looked.elapsed() > LOOK {
            looked = Instant::now();
            let mut wrong = judge(&history.events());
            wrong.violations.extend(ended(storm));
            noticed = notices(plan.broken, &wrong.violations).then(|| begun.elapsed());
        }
        let over = begun.elapsed() > plan.storm;
        // A fault that was not seen to happen comes again; but not for ever.
        let proven = storm.missing().is_empty() || begun.elapsed() > plan.storm * 2;
        noticed.is_some() || (over && (proven || plan.broken != Broken::Nothing))
    });
    let storm = storm.await?;
    let struck_ns = history.now_ns();

    tell("everything is mended");
    load.stop();
    for mut users in users {
        // What is still asked then is never answered: nobody knows what became of it.
        let all = async { while users.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS, all).await;
        users.shutdown().await;
    }
    let mut after = Judgement::default();
    after.violations.extend(ended(&storm));
    if let Err(error) = heal(&mut site, &load, &registers, &lives, watchers, &mut after).await {
        complain(&mut after, "cluster", format!("{error:#}"));
    }
    for node in 0..plan.nodes {
        let log = site.cluster.log(node);
        // The thread that keeps a copy of the state in sled lives with sled's panics, and makes it again.
        let panicked = |line: &&str| {
            let thread = line.strip_prefix("thread '").filter(|rest| rest.contains("panicked at"));
            thread.is_some_and(|thread| !thread.starts_with("state-copy'"))
        };
        if let Some(line) = log.lines().find(panicked) {
            complain(&mut after, &format!("n{}", node + 1), line.to_owned());
        }
    }
    history.flush()?;
    let events = history.events();
    let mut judgement = judge(&events);
    judgement.violations.append(&mut after.violations);
    let mut summary = Summary::of(plan, &events, &storm, struck_ns, judgement);
    if !summary.violations.is_empty() {
        summary.noticed_s = Some(noticed.unwrap_or_else(|| begun.elapsed()).as_secs());
        keep_logs(&site, &plan.out)?;
    }
    std::fs::write(plan.out.join("summary.json"), serde_json::to_string_pretty(&summary)?)?;
    std::fs::write(plan.out.join("index.html"), page::render(&summary, &storm, &events))?;
    Ok(summary)
}

/// Judges a history that was kept.
///
/// # Errors
/// When it cannot be read.
pub fn judge_file(history: &Path) -> Result<Judgement> {
    Ok(judge(&History::read(history)?))
}

/// What is looked at when everything is mended.
const AFTERWARDS: &str = "afterwards";
/// What is looked at all the time: that the nodes run.
const PROCESS: &str = "process";

/// Nodes that ended, or did another thing that no node may do.
fn ended(storm: &Storm) -> impl Iterator<Item = Violation> {
    storm.ended.iter().map(|(node, how)| Violation {
        model: PROCESS,
        key: format!("n{}", node + 1),
        what: how.clone(),
    })
}

fn complain(judgement: &mut Judgement, key: &str, what: String) {
    judgement.violations.push(Violation { model: AFTERWARDS, key: key.to_owned(), what });
}

/// Waits until every node is well, and looks whether all hold the same: fresh writes are done, every watcher
/// has come to them, and every node answers what was written.
async fn heal(
    site: &mut Site,
    load: &Load,
    registers: &Registers,
    lives: &Lives,
    watchers: Watchers,
    after: &mut Judgement,
) -> Result<()> {
    for node in 0..site.nodes() {
        site.cluster.await_ready(node).await?;
    }
    let last = registers.write_one(load).await.context("a fresh write")?;
    for behind in watchers.end(last).await {
        complain(after, "watch", behind);
    }
    for node in 0..site.nodes() {
        if let Err(silent) = registers.read_all(load, node).await {
            complain(after, &silent, format!("n{} did not answer", node + 1));
        }
    }
    if let Err(restless) = lives.look(load).await {
        complain(after, "life", restless);
    }
    agree(site).await
}

/// Waits until all nodes were compared with each other, at whichever revisions two were seen: the same history
/// must be behind them.
async fn agree(site: &Site) -> Result<()> {
    let begun = Instant::now();
    let mut seen: BTreeMap<u64, BTreeMap<String, BTreeSet<usize>>> = BTreeMap::new();
    // Nodes that were compared with each other.
    let mut met: Vec<BTreeSet<usize>> = (0..site.nodes()).map(|node| [node].into()).collect();
    while met.len() > 1 {
        for (node, view) in site.views().await.into_iter().enumerate() {
            let Some(view) = view else { continue };
            let chains = seen.entry(view.revision).or_default();
            let nodes = chains.entry(view.chain).or_default();
            nodes.insert(node);
            let (mut one, others) =
                met.into_iter().partition::<Vec<_>, _>(|met| !met.is_disjoint(nodes));
            met = others;
            met.push(one.drain(..).flatten().collect());
            ensure!(
                chains.len() == 1,
                "at {} nodes hold different histories: {chains:?}",
                view.revision
            );
        }
        ensure!(begun.elapsed() < HEALING, "only these were seen at the same revisions: {met:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn keep_logs(site: &Site, out: &Path) -> Result<()> {
    for node in 0..site.nodes() {
        std::fs::write(out.join(format!("n{}.log", node + 1)), site.cluster.log(node))?;
    }
    Ok(())
}

/// Whether a bug that was planted is noticed, by the checker whose matter it is.
#[must_use]
pub fn notices(broken: Broken, violations: &[Violation]) -> bool {
    let models: &[&str] = match broken {
        // What a power cut leaves of a log that was never synced can have holes: then its node does not run.
        Broken::NeverSyncs => &[registers::MODEL, watches::MODEL, PROCESS],
        Broken::ReadsLocally => &[registers::MODEL],
        Broken::ForgetsRequests => &[registers::MODEL, lives::MODEL],
        Broken::DropsEvents => &[watches::MODEL],
        Broken::WallClockLeases => &[locks::MODEL],
        Broken::AppliesOutOfOrder => {
            &[registers::MODEL, watches::MODEL, locks::MODEL, AFTERWARDS, PROCESS]
        }
        Broken::RestoresLeader => &[registers::MODEL, watches::MODEL],
        Broken::Nothing | Broken::IgnoresFence | Broken::NoPause => &[],
    };
    // A node that is killed from outside has noticed nothing.
    let counts = |it: &Violation| it.model != PROCESS || it.what.contains("exit status");
    violations.iter().any(|violation| models.contains(&violation.model) && counts(violation))
}

/// What has befallen the cluster is told by its kind.
pub(crate) fn window(storm: &Storm, at_ns: u64) -> impl Iterator<Item = &'static str> {
    let there = storm
        .strikes
        .iter()
        .filter(move |strike| (strike.begun_ns..=strike.ended_ns).contains(&at_ns));
    there.map(|strike| strike.kind)
}
