//! A run: a cluster, those who use it, what befalls it, and what comes out.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{Broken, Cluster, ClusterOptions, HostRecords, Hosts, Storage};

use crate::{
    afterwards::{AFTERWARDS, Afterwards, VOTERS, note_bodies, votes_max},
    checker::{Judgement, Violation, bodies, bodies::Body, judge},
    fault::Site,
    history::History,
    nemesis::{Nemesis, Storm},
    page,
    summary::Summary,
    users::Users,
    workload::{GUEST, HostKind, lists, lives, locks, queue, registers, watches},
};

/// What a run is to be like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Repeats the choices of a run: which faults, in which order, at whom, for how long.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How long faults strike; up to four times as long when one of them has not been seen to happen by then.
    pub storm: Duration,
    /// The program of an earlier version that all nodes begin with, if any: they are upgraded one by one meanwhile.
    pub previous: Option<PathBuf>,
    /// What is broken on purpose. Such a run ends as soon as a checker has noticed.
    pub broken: Broken,
    /// The directory with the programs.
    pub programs: PathBuf,
    /// Where everything is kept that comes out: `history.jsonl`, `summary.json`, `index.html`, and the logs of
    /// the nodes when something is wrong.
    pub out: PathBuf,
}

/// How long a host's lease lasts: as short as can be, so that hosts are lost.
const LEASE: &str = "host-lease-ttl-ms";
const LEASE_MS: u64 = 10_000;
/// In a longer run the state becomes large, and to write all of it as often as in a short one would keep two processors
/// busy with nothing else.
const LONG: Duration = Duration::from_secs(600);
const SNAPSHOT_ENTRIES: u64 = 10_000;
/// Between two looks of the checkers at a run in which something is broken.
const LOOK: Duration = Duration::from_secs(5);

/// Why this machine can have no such run, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    lab::is_possible()?;
    lab::disks_are_possible()?;
    lab::bridges_are_possible()?;
    lab::tampered_syncs_are_possible()?;
    lab::limits_are_possible()?;
    lab::late_packets_are_possible()?;
    lab::twice_is_possible()?;
    lab::wall_clocks_are_possible()
}

/// What comes more often when all nodes are to be upgraded.
const UPGRADES: &[&str] = &["restart"];

/// Faults without which nothing shows that something is broken: chance alone may have them come late.
fn brings_out(broken: Broken) -> &'static [&'static str] {
    match broken {
        Broken::NeverSyncs => &["power-cut", "power-cut-of-all"],
        Broken::Nothing
        | Broken::IgnoresFence
        | Broken::NoPause
        | Broken::TargetBeforeSource
        | Broken::UnsyncedFence
        | Broken::ReadsLocally
        | Broken::ForgetsRequests
        | Broken::DropsEvents
        | Broken::WallClockLeases
        | Broken::AppliesOutOfOrder
        | Broken::RestoresLeader => &[],
    }
}

/// Makes a run. `tell` hears of each step. The answer says what was found; whether that is good it says too.
///
/// # Errors
/// When there was no run: the cluster did not start, or nothing can be written.
pub async fn run(plan: &Plan, tell: impl Fn(&str) + Sync) -> Result<Summary> {
    fastrand::seed(plan.seed);
    std::fs::create_dir_all(&plan.out)?;
    let options = ClusterOptions {
        storage: Storage::Disk,
        broken: plan.broken,
        movable_clocks: true,
        settings: vec![(LEASE, LEASE_MS), (VOTERS, votes_max(plan.nodes))],
        previous: plan.previous.clone(),
        spare: true,
        snapshot_entries: (plan.storm > LONG).then_some(SNAPSHOT_ENTRIES),
        real_too: true,
        ..ClusterOptions::new(plan.nodes, Hosts::Apart, plan.programs.clone())
    };
    let cluster = Cluster::start(options, |step| tell(step)).await?;
    cluster.await_voters(plan.nodes).await?;
    import_guest(&cluster, &plan.out)?;
    HostKind::label(&cluster, plan.nodes).await?;
    let history = History::begin(&plan.out.join("history.jsonl"))?;
    let mut users = Users::begin(&cluster, history.clone(), &plan.out, plan.seed).await?;

    let hosts = cluster.host_records();
    let mut site = Site::new(cluster)?;
    let begun = Instant::now();
    let mut looked = Instant::now();
    let (seed, mut often) = (plan.seed, brings_out(plan.broken));
    if plan.previous.is_some() && often.is_empty() {
        often = UPGRADES;
    }
    let mut nemesis = Nemesis { seed, often, site: &mut site, history: &history, tell: &tell };
    let mut noticed = None;
    let storm = nemesis.rage(|storm| {
        if plan.broken != Broken::Nothing && looked.elapsed() > LOOK {
            looked = Instant::now();
            let wrong = wrong_so_far(&history, storm, &hosts);
            noticed = notices(plan.broken, &wrong).then(|| begun.elapsed());
        }
        let over = begun.elapsed() > plan.storm;
        // A fault that was not seen to happen comes again; but not for ever.
        let proven = storm.missing().is_empty() || begun.elapsed() > plan.storm * 10;
        noticed.is_some() || (over && (proven || plan.broken != Broken::Nothing))
    });
    let storm = storm.await?;
    let struck_ns = history.now_ns();

    let mut after = Afterwards::default();
    // What is broken need not come to rest, once that is noticed.
    if noticed.is_none() {
        tell("everything is mended");
        users.rest().await;
        after.heal(&mut site, &mut users).await;
        after.read_logs(&site);
    }
    // Before nodes are lost for good: guards end guests then.
    if let Err(error) = note_bodies(&hosts, &history) {
        after.complain("hosts", format!("what they have written down cannot be read: {error:#}"));
    }
    if plan.broken == Broken::Nothing {
        tell("a cluster begins again from the last backup");
        after.begin_again(&mut site, &users).await;
    }
    history.flush()?;
    let events = history.events();
    let mut judgement = judge(&events);
    judgement.violations.extend(ended(&storm));
    judgement.violations.append(&mut after.violations);
    let mut summary = Summary::of(plan, &events, &storm, struck_ns, judgement);
    if summary.violations.is_empty() {
        users.backups.remove();
    } else {
        summary.noticed_s = Some(noticed.unwrap_or_else(|| begun.elapsed()).as_secs());
        keep_logs(&site, &plan.out)?;
    }
    std::fs::write(plan.out.join("summary.json"), serde_json::to_string_pretty(&summary)?)?;
    std::fs::write(plan.out.join("index.html"), page::render(&summary, &storm, &events))?;
    Ok(summary)
}

/// What the checkers find in the middle of a run.
fn wrong_so_far(history: &History, storm: &Storm, hosts: &HostRecords) -> Vec<Violation> {
    let mut wrong = judge(&history.events());
    wrong.violations.extend(ended(storm));
    // One that is being written is read the next time. A guest that moves while one host is read and then the other
    // seems to be executed by both: not twice.
    let mut looks = [(); 2].map(|()| {
        let told = hosts.read().unwrap_or_default();
        let bodies: Vec<_> = told.into_iter().map(Body::of).collect();
        let mut judgement = Judgement::default();
        bodies::judge_bodies(&bodies, &mut judgement);
        judgement.violations
    });
    let [first, second] = &mut looks;
    first.retain(|it| second.iter().any(|again| (&again.key, &again.what) == (&it.key, &it.what)));
    wrong.violations.append(first);
    wrong.violations
}

/// Makes the image that real guests boot from.
fn import_guest(cluster: &Cluster, out: &Path) -> Result<()> {
    let kernel = out.canonicalize()?.join("idle-kernel");
    std::fs::write(&kernel, lab::idle_kernel())?;
    let kernel = kernel.to_str().context("a path is no text")?;
    cluster.novacron(0, &["image", "create", GUEST, "--kernel", kernel]).map(drop)
}

/// Judges a history that was kept.
///
/// # Errors
/// When it cannot be read.
pub fn judge_file(history: &Path) -> Result<Judgement> {
    Ok(judge(&History::read(history)?))
}

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

fn keep_logs(site: &Site, out: &Path) -> Result<()> {
    for node in 0..=site.cluster.spare().0 {
        std::fs::write(out.join(format!("n{}.log", node + 1)), site.cluster.log(node))?;
        std::fs::write(out.join(format!("h{}.log", node + 1)), site.cluster.driver_log(node))?;
        std::fs::write(out.join(format!("r{}.log", node + 1)), site.cluster.real_driver_log(node))?;
    }
    Ok(())
}

/// Whether a bug that was planted is noticed, by the checker whose matter it is.
#[must_use]
pub fn notices(broken: Broken, violations: &[Violation]) -> bool {
    let models: &[&str] = match broken {
        // What a power cut leaves of a log that was never synced can have holes: then its node does not run.
        Broken::NeverSyncs => &[registers::MODEL, lists::MODEL, watches::MODEL, PROCESS],
        Broken::ReadsLocally => &[registers::MODEL, lists::MODEL],
        Broken::ForgetsRequests => &[registers::MODEL, lives::MODEL, queue::MODEL],
        Broken::DropsEvents => &[watches::MODEL],
        Broken::WallClockLeases => &[locks::MODEL],
        Broken::AppliesOutOfOrder => {
            &[registers::MODEL, watches::MODEL, locks::MODEL, AFTERWARDS, PROCESS]
        }
        Broken::RestoresLeader => &[registers::MODEL, watches::MODEL],
        Broken::IgnoresFence
        | Broken::NoPause
        | Broken::TargetBeforeSource
        | Broken::UnsyncedFence => &[bodies::MODEL],
        Broken::Nothing => &[],
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
