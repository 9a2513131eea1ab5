//! What the guard has been told last, kept so that one that is started again goes on where it was.

use std::{
    io::{Error, ErrorKind, Result},
    path::{Path, PathBuf},
    time::Duration,
};

/// Until when guests may execute, and under which lease. Times are since the machine booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) lease: u64,
    pub(crate) until: Duration,
    /// Whether every guest is to end, spared ones too.
    pub(crate) over: bool,
    /// Whether it was said that the machine is reset when the guard stands still.
    pub(crate) watched: bool,
}

/// The file it is kept in. It is not synced: what the machine forgets when it loses power is of no use
/// after it, since no guest outlives that.
pub(crate) struct Record {
    path: PathBuf,
    boot: String,
}

impl Record {
    pub(crate) fn open(path: &Path) -> Result<Record> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Record { path: path.to_owned(), boot: boot.trim().to_owned() })
    }

    /// What was written last in this boot, if anything was.
    pub(crate) fn read(&self) -> Result<Option<Held>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || Error::new(ErrorKind::InvalidData, format!("{text:?} is no record"));
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (boot, lease, until_ns, over, watched) = match words[..] {
            [boot, lease, until_ns, over] => (boot, lease, until_ns, over, false),
            [boot, lease, until_ns, over, "watched"] => (boot, lease, until_ns, over, true),
            _ => return Err(damaged()),
        };
        let number = |word: &str| word.parse::<u64>().map_err(|_| damaged());
        let held = Held {
            lease: number(lease)?,
            until: Duration::from_nanos(number(until_ns)?),
            over: over == "over",
            watched,
        };
        Ok((boot == self.boot).then_some(held))
    }

    pub(crate) fn write(&self, held: Held) -> Result<()> {
        let over = if held.over { "over" } else { "held" };
        let watched = if held.watched { " watched" } else { "" };
        let (boot, lease, until_ns) = (&self.boot, held.lease, held.until.as_nanos());
        let text = format!("{boot} {lease} {until_ns} {over}{watched}\n");
        let temporary = self.path.with_extension("tmp");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_the_boot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guard.state");
        let record = Record::open(&path).unwrap();
        assert_eq!(record.read().unwrap(), None);
        let until = Duration::from_nanos(7);
        for (over, watched) in [(true, true), (false, true), (true, false)] {
            let held = Held { lease: 5, until, over, watched };
            record.write(held).unwrap();
            assert_eq!(Record::open(&path).unwrap().read().unwrap(), Some(held));
        }
        let later = Record { boot: "another".into(), path: path.clone() };
        assert_eq!(later.read().unwrap(), None);
        std::fs::write(&path, "5 7").unwrap();
        assert!(record.read().is_err());
    }
}
