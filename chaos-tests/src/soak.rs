//! Runs that are summed: a soak is made in segments, each a run of its own with a cluster of its own, and goes on
//! where it was left.

use std::{fmt, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::summary::Summary;

/// The file in which a soak is kept.
const FILE: &str = "soak.json";

/// What one run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Segment {
    seed: u64,
    nodes: usize,
    storm_s: u64,
    done: usize,
    refused: usize,
    unknown: usize,
    strikes: usize,
    proven: usize,
    keys: usize,
    violations: usize,
    undecided: usize,
    invalid: usize,
    availability_percent: f64,
    recovery_p50_ms: u64,
    recovery_max_ms: u64,
    elections: u64,
}

/// What the runs of a soak came to so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Soak {
    segments: Vec<Segment>,
}

impl Soak {
    /// The soak that is kept in a directory; a new one when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(directory: &Path) -> io::Result<Soak> {
        match std::fs::read(directory.join(FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Soak::default()),
            Err(error) => Err(error),
        }
    }

    /// Adds a run, and keeps the soak.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, summary: &Summary, directory: &Path) -> io::Result<()> {
        let (faults, outside) = (summary.in_faults, summary.outside);
        self.segments.push(Segment {
            seed: summary.seed,
            nodes: summary.nodes,
            storm_s: summary.storm_s,
            done: faults.ok + outside.ok,
            refused: faults.fail + outside.fail,
            unknown: faults.unknown + outside.unknown,
            strikes: summary.strikes.len(),
            proven: summary.strikes.iter().filter(|strike| strike.proof.is_some()).count(),
            keys: summary.compared.keys,
            violations: summary.violations.len(),
            undecided: summary.undecided.len(),
            invalid: summary.invalid.len(),
            availability_percent: summary.availability_percent,
            recovery_p50_ms: summary.recovery_p50_ms,
            recovery_max_ms: summary.recovery_max_ms,
            elections: summary.elections,
        });
        std::fs::create_dir_all(directory)?;
        // In one step: what was there is not lost when this ends in the middle.
        let new = directory.join(format!("{FILE}.new"));
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, directory.join(FILE))
    }

    /// How long faults were struck in all runs, seconds.
    #[must_use]
    pub fn storm_s(&self) -> u64 {
        self.segments.iter().map(|segment| segment.storm_s).sum()
    }
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TITLES: [&str; 11] = [
            "seconds",
            "done",
            "refused",
            "unknown",
            "strikes",
            "proven",
            "registers",
            "p50 ms",
            "max ms",
            "elections",
            "available",
        ];
        write!(f, "{:<22}", "seed")?;
        for title in TITLES {
            write!(f, "{title:>10}")?;
        }
        writeln!(f, "  violations, undecided, doubts")?;
        for segment in &self.segments {
            let Segment { seed, storm_s, done, refused, unknown, strikes, proven, .. } = segment;
            let Segment { keys, recovery_p50_ms, recovery_max_ms, elections, .. } = segment;
            let Segment { availability_percent, violations, undecided, invalid, .. } = segment;
            write!(
                f,
                "{seed:<22}{storm_s:>10}{done:>10}{refused:>10}{unknown:>10}{strikes:>10}{proven:>10}"
            )?;
            write!(f, "{keys:>10}{recovery_p50_ms:>10}{recovery_max_ms:>10}{elections:>10}")?;
            writeln!(f, "{availability_percent:>8.1} %  {violations}, {undecided}, {invalid}")?;
        }
        let sum = |part: fn(&Segment) -> usize| self.segments.iter().map(part).sum::<usize>();
        let (seconds, runs) = (self.storm_s(), self.segments.len());
        write!(
            f,
            "{seconds} s in {runs} runs: {} operations done, {} faults, violations {}, undecided {}",
            sum(|segment| segment.done),
            sum(|segment| segment.strikes),
            sum(|segment| segment.violations),
            sum(|segment| segment.undecided),
        )
    }
}
