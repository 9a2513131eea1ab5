//! The page and the file that a run leaves.

use std::{fmt::Write, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::book::{Aim, Book, Figure, tell};

/// What a page is like besides its figures.
pub(crate) struct Layout {
    /// What stands before the tables.
    pub(crate) head: &'static str,
    /// What the rows are, by number.
    pub(crate) rows: &'static [(u8, &'static str)],
    /// What limits rows that do not reach what they are to, as profiles showed.
    pub(crate) limits: &'static [(u8, &'static str)],
    /// Whether figures of peers stand beside.
    pub(crate) has_peers: bool,
}

/// The page beside peers.
pub(crate) const BESIDE_PEERS: Layout = Layout {
    head: "\
# Benchmarks

`make bench` writes this page and `benchmarks.json`. Clusters of three nodes and three etcd members run on one machine
beside the clients that load them: figures of one and the other are taken in turn, while the processes of the one that is
not loaded stand still, and what counts is their ratio. Both speak TLS among themselves and with their clients, both sync before they answer, both are asked at the
node that leads, over the same number of connections, with their default timing; etcd's clients show certificates and
put 256 bytes, ours show a credential and carry a request id. A figure is the median of the rounds, with the lowest and
the highest. “Per s” is better when higher, times are better when lower.

",
    rows: &[
    (1, "Acknowledged changes, synced on a majority's disks before the answer"),
    (2, "The same over eight streams, beside calls to etcd"),
    (3, "Reads"),
    (4, "Reads and changes at a fixed rate"),
    (5, "Lists"),
    (6, "Many VMs that are wanted at once, on 102 simulated hosts"),
    (7, "Placement decisions of the planner by itself"),
    (8, "Memory, and a restart"),
    (9, "Who watches everything: how late it hears of a change, from when that was asked for"),
    (10, "A leader is killed: time to the next acknowledged change"),
    (11, "A real guest: asked for, and moved, beside what `virsh` does with the same guest on the same hosts"),
    (12, "The log by itself"),
    (13, "Nobody asks for anything"),
    (14, "Traces are told to a collector, beside the same without"),
],
    limits: &[
    (
        1,
        "Both processors are busy, with clients and all three nodes: the leader had 30 % of them, the clients 16 %, each follower 8 % (perf, 256 \
         clients that take locks). It is what a call costs on the way (HTTP/2, TLS, headers), not the disk: see row 2. A create \
         is several entries of the log: it is asked for, placed and reported. Where 256 clients create, the leader had 41 % of both processors, each \
         follower 16 %, the clients 15 %, the logs 5 %, the copies 1 %. Fewer clients wait for each other's entries, and for the entries that place and report.",
    ),
    (
        2,
        "The processors again. Of all their time (perf, labels): deciding and applying on three nodes 15 %, reading commands 5 %, HTTP/2 6 %, allocation \
         6 %, snapshots 5 %; the copies in sled had 21 % before their events were compressed. That was before entries were applied in place (ADR 0016).",
    ),
    (
        8,
        "The log in memory (up to 62,500 entries), 262,144 remembered requests, 100,000 events, and what the allocator keeps for later.",
    ),
    (
        9,
        "With 1,000 changes a second a million events are to be told each second, by three nodes that share two processors with those who read them. That \
         was not taken apart.",
    ),
    (
        11,
        "Here all three nodes and hypervisors run beside each other, and nodes have the timing that tests have: QEMU emulates. Ours, copy to switch, \
         is what the migration's steps in the log say; virsh's is the whole command.",
    ),
    (
        12,
        "Many entries together cost processor time, for checksums and copies, while the disk does ten thousand syncs a second.",
    ),
    (
        13,
        "Of what the busiest node uses (perf) heartbeats over gRPC are 19 %, Raft's loop is 10 %, threads that go to sleep are 18 %; hosts' actors are 4 %, \
         deciding is 2.4 %, and looking at alerts is in that.",
    ),
],
    has_peers: true,
};

/// Where and of what figures were taken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Circumstances {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) disk: String,
    pub(crate) etcd: String,
}

impl Circumstances {
    pub(crate) fn look() -> Result<Circumstances> {
        let said = |program: &str, arguments: &[&str]| -> Result<String> {
            let output = Command::new(program).args(arguments).output();
            let output = output.with_context(|| format!("cannot run {program}"))?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown", |model| model.trim_start_matches([':', '\t', ' ']));
        let cores = std::thread::available_parallelism()?;
        let kernel = said("uname", &["-sr"])?;
        let etcd = said("etcd", &["--version"]).unwrap_or_default();
        let commit = said("git", &["describe", "--always", "--dirty", "--abbrev=12"])?;
        let disk = said("stat", &["--file-system", "--format", "%T", "/tmp"])?;
        Ok(Circumstances {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            commit,
            machine: format!("{cores} processors ({model}), {kernel}"),
            disk,
            etcd: etcd.lines().next().unwrap_or_default().replace(": ", " "),
        })
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    circumstances: &'a Circumstances,
    figures: &'a [Figure],
}

/// Writes both.
pub(crate) fn write(
    layout: &Layout,
    book: &Book,
    around: &Circumstances,
    page: &Path,
    json: &Path,
) -> Result<()> {
    let whole = Whole { circumstances: around, figures: &book.figures };
    std::fs::write(json, serde_json::to_string_pretty(&whole)? + "\n")?;
    Ok(std::fs::write(page, text(layout, book, around)?)?)
}

fn text(layout: &Layout, book: &Book, around: &Circumstances) -> Result<String> {
    let mut text = layout.head.to_owned();
    let Circumstances { date, commit, machine, disk, etcd } = around;
    write!(text, "Taken on {date} of {commit}, on {machine}, {disk}")?;
    let beside = if layout.has_peers { format!(", beside {etcd}") } else { String::new() };
    writeln!(text, "{beside}.")?;
    for (row, title) in layout.rows {
        let figures: Vec<&Figure> = book.figures.iter().filter(|f| f.row == *row).collect();
        if figures.is_empty() {
            continue;
        }
        writeln!(text, "\n## {row}. {title}\n")?;
        writeln!(text, "| what | unit | ours | beside | ratio | to reach | |")?;
        writeln!(text, "|---|---|---:|---:|---:|---:|---|")?;
        for figure in figures {
            let beside = match figure.peer {
                "" => "–".to_owned(),
                peer => format!("{peer} {}", tell(&figure.beside)),
            };
            let ratio = figure.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let reached = match figure.is_reached() {
                Some(true) => "reached",
                Some(false) => "**not reached**",
                None => "",
            };
            let Figure { case, unit, ours, aim, .. } = figure;
            let aim: &Aim = aim;
            writeln!(
                text,
                "| {case} | {unit} | {} | {beside} | {ratio} | {aim} | {reached} |",
                tell(ours)
            )?;
        }
        if let Some((_, limits)) = layout.limits.iter().find(|(of, _)| of == row) {
            writeln!(text, "\n{limits}")?;
        }
    }
    Ok(text)
}
