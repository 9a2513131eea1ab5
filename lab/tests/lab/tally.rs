//! What a number of trials came to: which fault hit which step, and how the migrations ended.

use std::{collections::BTreeMap, fmt};

use crate::strike::Fault;

/// Where a fault can have hit, in the order of a migration.
const PLACES: [&str; 8] =
    ["reserve", "prepare", "copy", "switch", "validate", "retire", "after", "missed"];

/// What may never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The guest is not there any more.
    Lost,
    /// There were two of it at one time.
    Doubled,
    /// The migration does not end.
    Stuck,
    /// The guest's kernel found its memory damaged, or lives while its processes wait for ever. QEMU without KVM now
    /// and then misses what a guest writes while it is copied, under plain `virsh migrate` too: it is told, and no
    /// verdict. See [`crate::traveller::Traveller::damage`].
    Damaged,
}

/// The counts.
#[derive(Default)]
pub struct Tally {
    hits: BTreeMap<(String, &'static str), usize>,
    /// By status.
    ended: BTreeMap<String, usize>,
    losses: Vec<(Loss, String)>,
}

impl Tally {
    /// A fault was struck while the migration was at a step; none when it had ended. A strike that found
    /// nothing to strike has missed.
    pub fn note_hit(&mut self, fault: Fault, step: Option<&str>, hit: bool) {
        let step = step.and_then(|step| PLACES.into_iter().find(|place| *place == step));
        let place = if hit { step.unwrap_or("after") } else { "missed" };
        *self.hits.entry((fault.to_string(), place)).or_default() += 1;
    }

    pub fn note_end(&mut self, status: &str) {
        *self.ended.entry(status.to_owned()).or_default() += 1;
    }

    pub fn note_loss(&mut self, loss: Loss, what: String) {
        self.losses.push((loss, what));
    }

    /// What is ours, and all there is where QEMU is blamed for more than it does: a switch to what was not yet whole
    /// looks the same.
    pub fn failures(&self) -> Vec<&(Loss, String)> {
        let trials: usize = self.hits.values().sum();
        let blamed = self.losses.iter().filter(|(loss, _)| *loss == Loss::Damaged).count();
        let too_often = blamed > 1 + trials / 5;
        self.losses.iter().filter(|(loss, _)| too_often || *loss != Loss::Damaged).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26}", "fault")?;
        for place in PLACES {
            write!(f, "{place:>10}")?;
        }
        writeln!(f)?;
        let mut faults: Vec<&String> = self.hits.keys().map(|(fault, _)| fault).collect();
        faults.dedup();
        for fault in faults {
            write!(f, "{fault:<26}")?;
            for place in PLACES {
                match self.hits.get(&(fault.clone(), place)) {
                    Some(count) => write!(f, "{count:>10}")?,
                    None => write!(f, "{:>10}", "-")?,
                }
            }
            writeln!(f)?;
        }
        let count = |loss| self.losses.iter().filter(|(of, _)| *of == loss).count();
        let trials: usize = self.hits.values().sum();
        write!(f, "migrations {trials}, ended {:?}", self.ended)?;
        let (lost, doubled) = (count(Loss::Lost), count(Loss::Doubled));
        write!(f, ", lost {lost}, doubled {doubled}, stuck {}", count(Loss::Stuck))?;
        write!(f, "; damaged by QEMU {}", count(Loss::Damaged))
    }
}
