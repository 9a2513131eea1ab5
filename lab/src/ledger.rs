//! What a guest wrote, tick by tick, to a disk that all hosts share and nobody locks. A guest writes each
//! tick to the first place that is free, as it finds it: so two bodies of one guest leave the same tick
//! twice, wherever they run and whatever became of their consoles.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result, ensure};

/// What one record takes, bytes.
const RECORD_BYTES: usize = 4_096;

/// The ticks of one boot, in the order of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Boot {
    id: String,
    ticks: Vec<u64>,
}

/// What is on the disk, in its order: a boot is there once more when another one came between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(Vec<Boot>);

impl Ledger {
    pub(crate) fn read(path: &Path) -> Result<Ledger> {
        let mut file = File::open(path).with_context(|| {
            format!("{} is not there; only guests with g.witness=1 have one", path.display())
        })?;
        let mut records = Vec::new();
        let mut bytes = [0; RECORD_BYTES];
        while file.read_exact(&mut bytes).is_ok() && bytes[0] != 0 {
            records.push(String::from_utf8(bytes.to_vec())?);
        }
        Ledger::of(&records)
    }

    fn of(records: &[impl AsRef<str>]) -> Result<Ledger> {
        let mut boots: Vec<Boot> = Vec::new();
        for (place, record) in records.iter().enumerate() {
            let mut words = record.as_ref().split_whitespace();
            let (Some(id), Some(tick), None) = (words.next(), words.next(), words.next()) else {
                anyhow::bail!("record {place} is damaged: {:?}", record.as_ref().trim());
            };
            let tick: u64 = tick.parse().with_context(|| format!("record {place}"))?;
            match boots.last_mut().filter(|boot| boot.id == id) {
                Some(boot) => boot.ticks.push(tick),
                None => boots.push(Boot { id: id.to_owned(), ticks: vec![tick] }),
            }
        }
        Ok(Ledger(boots))
    }

    /// How many ticks there are in all.
    #[must_use]
    pub fn ticks(&self) -> usize {
        self.0.iter().map(|boot| boot.ticks.len()).sum()
    }

    /// Makes sure that one body wrote it: each boot counts from one without a gap and nothing twice, and
    /// writes nothing more once the next one writes.
    ///
    /// # Errors
    /// With what shows that it was not so.
    pub fn assert_one_body(&self) -> Result<()> {
        for (at, boot) in self.0.iter().enumerate() {
            let again = self.0[..at].iter().any(|before| before.id == boot.id);
            ensure!(!again, "boot {} goes on after another one began", boot.id);
            let wrong = boot.ticks.iter().zip(1..).find(|(tick, wanted)| *tick != wanted);
            if let Some((tick, wanted)) = wrong {
                anyhow::bail!("boot {} has tick {tick} in the place of {wanted}", boot.id);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bodies_are_noticed() {
        let rows: &[(&str, &[&str], bool)] = &[
            ("nothing", &[], true),
            ("one boot", &["a 1", "a 2", "a 3"], true),
            ("two boots", &["a 1", "a 2", "b 1", "b 2"], true),
            ("a tick twice", &["a 1", "a 2", "a 2", "a 3"], false),
            ("two lines", &["a 1", "a 2", "a 3", "a 3", "a 4", "a 4"], false),
            ("a lost tick", &["a 1", "a 3"], false),
            ("one that goes on", &["a 1", "b 1", "a 2"], false),
            ("older ticks again", &["a 1", "a 2", "a 1"], false),
        ];
        for (name, records, good) in rows {
            let ledger = Ledger::of(records).unwrap();
            assert_eq!(ledger.assert_one_body().is_ok(), *good, "{name}");
            assert_eq!(ledger.ticks(), records.len(), "{name}");
        }
        for damaged in ["a", "a x", "a 1 2", ""] {
            assert!(Ledger::of(&[damaged]).is_err(), "{damaged:?}");
        }
    }
}
