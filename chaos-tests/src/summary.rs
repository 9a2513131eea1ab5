//! What a run comes to.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    checker::{Compared, Judgement, Violation},
    fault::KINDS,
    history::{End, Event, operations},
    nemesis::{Reign, Storm, Strike},
    run::{Plan, window},
    workload::{backups, lists, lives, locks, queue, registers, watches},
};

/// How operations ended.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// They were done.
    pub ok: usize,
    /// They were refused.
    pub fail: usize,
    /// Nobody knows.
    pub unknown: usize,
}

impl Counts {
    fn note(&mut self, end: &End) {
        match end {
            End::Ok(..) => self.ok += 1,
            End::Fail(..) => self.fail += 1,
            End::Unknown => self.unknown += 1,
        }
    }

    fn all(self) -> usize {
        self.ok + self.fail + self.unknown
    }
}

/// How often a kind of fault was struck.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Struck {
    /// In all.
    pub times: usize,
    /// With proof that it happened.
    pub proven: usize,
    /// At the leader too, of the proven ones.
    pub leader: usize,
    /// One of the proofs.
    pub proof: String,
    /// From when it was struck until the first change that was asked for after was acknowledged, milliseconds:
    /// half of the times, and the longest.
    pub recovery_p50_ms: u64,
    /// The longest.
    pub recovery_max_ms: u64,
}

/// What a run comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Repeats its choices.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How long faults were struck, seconds.
    pub storm_s: u64,
    /// What does not hold. There may be nothing.
    pub violations: Vec<Violation>,
    /// After how many seconds of faults it was noticed that something does not hold.
    pub noticed_s: Option<u64>,
    /// Keys of registers for which the search for an order was given up.
    pub undecided: Vec<String>,
    /// How much was looked at.
    #[serde(flatten)]
    pub compared: Compared,
    /// Operations while a fault was there.
    pub in_faults: Counts,
    /// Operations at other times.
    pub outside: Counts,
    /// By kind.
    pub faults: BTreeMap<&'static str, Struck>,
    /// Operations that were done while a fault was there: by workload, and then by kind.
    pub coverage: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// Seconds of the storm in which something that is linearizable was done, percent.
    pub availability_percent: f64,
    /// From a strike until the first change that was asked for after was acknowledged, milliseconds.
    pub recovery_p50_ms: u64,
    /// 99 of 100.
    pub recovery_p99_ms: u64,
    /// The longest.
    pub recovery_max_ms: u64,
    /// How often another leader was chosen.
    pub elections: u64,
    /// Who led.
    pub reigns: Vec<Reign>,
    /// Every fault.
    pub strikes: Vec<Strike>,
    /// Why the run proves nothing, if so: then it is to be repeated, and not believed.
    pub invalid: Vec<String>,
}

/// In how many of its operations nobody may know what became of them, percent.
const UNKNOWN_PERCENT_MAX: usize = 10;
/// So many operations at least must be done while faults are there, for each second.
const OK_PER_SECOND_MIN: u64 = 2;

/// The workloads.
const MODELS: [&str; 7] = [
    registers::MODEL,
    lists::MODEL,
    locks::MODEL,
    lives::MODEL,
    queue::MODEL,
    backups::MODEL,
    watches::MODEL,
];

impl Summary {
    pub(crate) fn of(
        plan: &Plan,
        events: &[Event],
        storm: &Storm,
        struck_ns: u64,
        judgement: Judgement,
    ) -> Summary {
        let (mut in_faults, mut outside) = (Counts::default(), Counts::default());
        let mut coverage: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        let mut changes = Vec::new();
        let first_ns = storm.strikes.first().map_or(struck_ns, |strike| strike.begun_ns);
        let seconds = usize::try_from(struck_ns.saturating_sub(first_ns) / SECOND_NS).unwrap_or(0);
        let mut available = vec![false; seconds];
        for model in MODELS {
            for row in operations(events, model) {
                let at_ns = match &row.end {
                    End::Ok(at, _) | End::Fail(at, _) => *at,
                    End::Unknown => row.invoked_ns,
                };
                let kinds: Vec<&str> = window(storm, at_ns).collect();
                let counts = if kinds.is_empty() { &mut outside } else { &mut in_faults };
                if model != watches::MODEL {
                    counts.note(&row.end);
                }
                if !matches!(row.end, End::Ok(..)) {
                    continue;
                }
                for kind in kinds {
                    *coverage.entry(model).or_default().entry(kind).or_default() += 1;
                }
                let second = at_ns.saturating_sub(first_ns) / SECOND_NS;
                let second = usize::try_from(second).ok().filter(|_| at_ns >= first_ns);
                if model == registers::MODEL
                    && matches!(row.f.as_str(), "read" | "write" | "swap")
                    && let Some(there) = second.and_then(|second| available.get_mut(second))
                {
                    *there = true;
                }
                if matches!(row.f.as_str(), "write" | "swap" | "acquire") {
                    changes.push((row.invoked_ns, at_ns));
                }
            }
        }
        let mut faults: BTreeMap<&str, Struck> = BTreeMap::new();
        let mut recoveries: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for strike in &storm.strikes {
            let struck = faults.entry(strike.kind).or_default();
            struck.times += 1;
            if let Some(proof) = &strike.proof {
                struck.proven += 1;
                struck.leader += usize::from(strike.leader);
                struck.proof.clone_from(proof);
            }
            let after = changes.iter().filter(|(invoked_ns, _)| *invoked_ns >= strike.begun_ns);
            let first = after.map(|(_, done_ns)| done_ns - strike.begun_ns).min();
            recoveries.entry(strike.kind).or_default().extend(first.map(|ns| ns / 1_000_000));
        }
        for (kind, times) in &mut recoveries {
            times.sort_unstable();
            let struck = faults.entry(kind).or_default();
            struck.recovery_p50_ms = part(times, 50);
            struck.recovery_max_ms = part(times, 100);
        }
        let mut all: Vec<u64> = recoveries.into_values().flatten().collect();
        all.sort_unstable();
        let terms = (storm.reigns.first(), storm.reigns.last());
        let elections = match terms {
            (Some(first), Some(last)) => last.term.saturating_sub(first.term),
            _ => 0,
        };
        let there = available.iter().filter(|there| **there).count();
        let mut summary = Summary {
            seed: plan.seed,
            nodes: plan.nodes,
            storm_s: struck_ns.saturating_sub(first_ns) / SECOND_NS,
            violations: judgement.violations,
            noticed_s: None,
            undecided: judgement.undecided,
            compared: judgement.compared,
            in_faults,
            outside,
            faults,
            coverage,
            availability_percent: there as f64 * 100.0 / seconds.max(1) as f64,
            recovery_p50_ms: part(&all, 50),
            recovery_p99_ms: part(&all, 99),
            recovery_max_ms: part(&all, 100),
            elections,
            reigns: storm.reigns.clone(),
            strikes: storm.strikes.clone(),
            invalid: Vec::new(),
        };
        summary.invalid = summary.doubts();
        summary
    }

    /// Why the run proves nothing, if so.
    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for kind in &KINDS {
            let struck = self.faults.get(kind.name).cloned().unwrap_or_default();
            if struck.proven == 0 {
                doubts.push(format!("{} never happened for certain", kind.name));
            } else if struck.leader == 0 {
                doubts.push(format!("{} never struck the leader", kind.name));
            }
        }
        doubts.extend(self.compared.lacking().map(|what| format!("no {what} were compared")));
        let all = self.in_faults.all() + self.outside.all();
        let unknown = self.in_faults.unknown + self.outside.unknown;
        if unknown * 100 > all * UNKNOWN_PERCENT_MAX {
            doubts.push(format!("nobody knows what became of {unknown} operations, of {all}"));
        }
        if (self.in_faults.ok as u64) < self.storm_s * OK_PER_SECOND_MIN {
            doubts.push(format!("only {} operations were done in faults", self.in_faults.ok));
        }
        doubts
    }

    /// Whether nothing is wrong, and that means something.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty() && self.invalid.is_empty()
    }
}

const SECOND_NS: u64 = 1_000_000_000;

/// What so many percent of sorted times do not exceed; 0 of none.
fn part(sorted: &[u64], percent: usize) -> u64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { seed, nodes, storm_s, in_faults, outside, compared, .. } = self;
        writeln!(f, "seed {seed}, {nodes} nodes, {storm_s} s")?;
        writeln!(
            f,
            "{:<18}{:>7}{:>8}{:>8}{:>10}{:>10}  proof",
            "fault", "times", "proven", "leader", "p50 ms", "max ms"
        )?;
        for (kind, Struck { times, proven, leader, proof, recovery_p50_ms, recovery_max_ms }) in
            &self.faults
        {
            writeln!(
                f,
                "{kind:<18}{times:>7}{proven:>8}{leader:>8}{recovery_p50_ms:>10}{recovery_max_ms:>10}  {proof}"
            )?;
        }
        let row = |name: &str, Counts { ok, fail, unknown }: &Counts| {
            format!("{name}: {ok} done, {fail} refused, {unknown} unknown")
        };
        writeln!(f, "{}; {}", row("in faults", in_faults), row("outside", outside))?;
        writeln!(f, "{compared}")?;
        writeln!(
            f,
            "available in {:.1} % of seconds; from a strike to the next change p50 {} ms, p99 {} ms, max {} ms; {} elections",
            self.availability_percent,
            self.recovery_p50_ms,
            self.recovery_p99_ms,
            self.recovery_max_ms,
            self.elections,
        )?;
        for why in &self.invalid {
            writeln!(f, "proves nothing: {why}")?;
        }
        for Violation { model, key, what } in &self.violations {
            writeln!(f, "VIOLATION {model} {key}: {what}")?;
        }
        if let Some(seconds) = self.noticed_s {
            writeln!(f, "noticed after {seconds} s")?;
        }
        write!(f, "violations {}, undecided {}", self.violations.len(), self.undecided.len())
    }
}
