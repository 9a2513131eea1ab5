//! When each host executed a guest, by the word of the QEMUs themselves. A begin is written before the
//! guest's first instruction there, and an end after its last: so intervals are never too short, and what
//! they show as one after the other was so. Of a QEMU that was killed the end is when it was collected.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail, ensure};

use crate::qemu;

/// A time in which one process executed a guest. Times are microseconds since 1970 of this machine's clock,
/// which all hosts of a lab share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// When it began, at the earliest.
    pub begun_us: u64,
    /// When it was over, at the latest; none while nobody knows that it is.
    pub ended_us: Option<u64>,
    /// The number of its host, from 0.
    pub host: usize,
    /// Its process.
    pub pid: i32,
}

impl Interval {
    /// For how long both executed, microseconds, if they did at one time. One without an end goes on.
    #[must_use]
    pub fn overlap_us(&self, other: &Interval) -> Option<u64> {
        let end = |interval: &Interval| interval.ended_us.unwrap_or(u64::MAX);
        let (begun, ended) = (self.begun_us.max(other.begun_us), end(self).min(end(other)));
        ended.checked_sub(begun).filter(|time| *time > 0)
    }
}

/// All the times in which a VM's guest was executed, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// In the order in which they began.
    pub intervals: Vec<Interval>,
    /// The processes that were made for it, also those that never executed it: the host of each, and when it
    /// was started, microseconds as in [`Interval`].
    pub processes: Vec<(usize, u64)>,
}

/// What a process wrote of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    at_us: u64,
    runs: bool,
}

/// The record of one process.
struct Record {
    host: usize,
    pid: i32,
    started_us: u64,
    changes: Vec<Change>,
}

impl Witness {
    /// Reads what the hosts that lie in these directories have of a VM's guest.
    pub(crate) fn read(hosts: &[&Path], vm: &str) -> Result<Witness> {
        Ok(Witness::read_those(hosts, |of| of == vm)?.remove(vm).unwrap_or_default())
    }

    /// Reads what the hosts that lie in these directories have of all guests, by their VMs.
    pub(crate) fn read_all(hosts: &[&Path]) -> Result<BTreeMap<String, Witness>> {
        Witness::read_those(hosts, |_| true)
    }

    fn read_those(
        hosts: &[&Path],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Witness>> {
        let mut all: BTreeMap<String, Witness> = BTreeMap::new();
        for (host, directory) in hosts.iter().enumerate() {
            let ends = std::fs::read_to_string(qemu::ends(directory))?;
            for file in std::fs::read_dir(qemu::records(directory))? {
                let path = file?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Some((vm, pid, started_us)) = named(name) else { continue };
                if !wanted(vm) {
                    continue;
                }
                // One that could not be read away between is one that is just being made.
                let text = std::fs::read_to_string(&path)?;
                let changes =
                    changes(&text).with_context(|| format!("{} is damaged", path.display()))?;
                let witness = all.entry(vm.to_owned()).or_default();
                witness.processes.push((host, started_us));
                let record = Record { host, pid, started_us, changes };
                witness.intervals.extend(record.intervals(end(&ends, pid, started_us)?)?);
            }
        }
        all.values_mut().for_each(|witness| witness.intervals.sort_unstable());
        Ok(all)
    }

    /// The pairs of processes that executed the guest at one time. There may never be one.
    #[must_use]
    pub fn overlaps(&self) -> Vec<(Interval, Interval)> {
        let pairs =
            self.intervals.iter().enumerate().flat_map(|(at, one)| {
                self.intervals[at + 1..].iter().map(move |other| (*one, *other))
            });
        pairs.filter(|(one, other)| one.overlap_us(other).is_some()).collect()
    }

    /// The last interval, which is the guest's present one if it runs.
    #[must_use]
    pub fn last(&self) -> Option<Interval> {
        self.intervals.last().copied()
    }

    /// The first time since then that a host executed the guest.
    #[must_use]
    pub fn begun_since(&self, host: usize, since_us: u64) -> Option<Interval> {
        let there = |interval: &&Interval| interval.host == host && interval.begun_us >= since_us;
        self.intervals.iter().find(there).copied()
    }

    /// How long nobody executed the guest before an interval, microseconds; none for the first one and
    /// for one that overlaps.
    #[must_use]
    pub fn gap_before_us(&self, interval: &Interval) -> Option<u64> {
        let before = self.intervals.iter().filter(|other| other.begun_us < interval.begun_us);
        let ended = before.map(|other| other.ended_us.unwrap_or(u64::MAX)).max()?;
        interval.begun_us.checked_sub(ended)
    }
}

/// The VM, the process and when it was started, from the name of a record.
fn named(name: &str) -> Option<(&str, i32, u64)> {
    let mut parts = name.split('.');
    let (vm, pid, started_ns) = (parts.next()?, parts.next()?, parts.next()?);
    Some((vm, pid.parse().ok()?, started_ns.parse::<u64>().ok()? / 1_000))
}

/// What a process wrote. It is killed in the middle of a line at worst, and then before what the line says:
/// that its guest begins, or after: that it has stopped, which its end says too.
fn changes(text: &str) -> Result<Vec<Change>> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(|line| change(line).with_context(|| format!("{line:?}")));
    lines.collect()
}

/// `THREAD@SECONDS.MICROSECONDS:vm_state_notify running 1 reason 9 (running)`
fn change(line: &str) -> Result<Change> {
    let (head, said) = line.split_once(':').context("no time")?;
    let (_, time) = head.split_once('@').context("no time")?;
    let (seconds, micros) = time.split_once('.').context("no time")?;
    ensure!(micros.len() == 6, "the time has no microseconds");
    let at_us = seconds.parse::<u64>()? * 1_000_000 + micros.parse::<u64>()?;
    let rest = said.strip_prefix("vm_state_notify running ").context("not what was asked for")?;
    let runs = match rest.split(' ').next() {
        Some("1") => true,
        Some("0") => false,
        Some(_) | None => bail!("neither begun nor stopped"),
    };
    Ok(Change { at_us, runs })
}

/// When a process was collected at the latest, if it was. Pids come again: the first one since it started.
fn end(ends: &str, pid: i32, started_us: u64) -> Result<Option<u64>> {
    for line in ends.lines() {
        let (of, at) =
            line.split_once(' ').with_context(|| format!("an end without a time: {line:?}"))?;
        let (of, at): (i32, u64) = (of.parse()?, at.parse()?);
        if of == pid && at >= started_us {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

impl Record {
    fn intervals(&self, ended_us: Option<u64>) -> Result<Vec<Interval>> {
        let Record { host, pid, started_us, changes } = self;
        let mut intervals: Vec<Interval> = Vec::new();
        let mut before = *started_us;
        for change in changes {
            ensure!(change.at_us >= before, "{pid} on host {host}: the clock was set back");
            before = change.at_us;
            let open = intervals.last_mut().filter(|last| last.ended_us.is_none());
            match (open, change.runs) {
                (None, true) => {
                    let begun_us = change.at_us;
                    intervals.push(Interval { begun_us, ended_us: None, host: *host, pid: *pid });
                }
                (Some(open), false) => open.ended_us = Some(change.at_us),
                (None, false) | (Some(_), true) => {
                    bail!("{pid} on host {host}: the same twice at {}", change.at_us)
                }
            }
        }
        if let Some(open) = intervals.last_mut().filter(|last| last.ended_us.is_none()) {
            open.ended_us = ended_us;
        }
        Ok(intervals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What these records of processes say: `HOST PID ENDED` and a line for each change, `+AT` or `-AT`.
    fn witness(records: &[(usize, i32, Option<u64>, &[i64])]) -> Result<Witness> {
        let mut intervals = Vec::new();
        for (host, pid, ended_us, changes) in records {
            let changes = changes.iter();
            let changes = changes.map(|at| Change { at_us: at.unsigned_abs(), runs: *at > 0 });
            let record =
                Record { host: *host, pid: *pid, started_us: 0, changes: changes.collect() };
            intervals.extend(record.intervals(*ended_us)?);
        }
        intervals.sort_unstable();
        Ok(Witness { intervals, processes: Vec::new() })
    }

    #[test]
    fn two_that_run_at_one_time_are_noticed() {
        type Row = (&'static str, &'static [(usize, i32, Option<u64>, &'static [i64])], usize);
        let rows: &[Row] = &[
            ("nothing", &[], 0),
            ("a move", &[(0, 1, Some(60), &[10, -50]), (1, 2, None, &[51])], 0),
            ("ends as the other begins", &[(0, 1, None, &[10, -50]), (1, 2, None, &[50])], 0),
            ("both at the end", &[(0, 1, None, &[10, -50]), (1, 2, None, &[49])], 1),
            ("goes on after a move", &[(0, 1, None, &[10, -50, 90]), (1, 2, None, &[60])], 1),
            (
                "goes on and is stopped",
                &[(0, 1, None, &[10, -50, 90, -95]), (1, 2, None, &[60])],
                1,
            ),
            ("back again", &[(0, 1, None, &[10, -50, 90]), (1, 2, None, &[60, -80])], 0),
            ("killed before", &[(0, 1, Some(40), &[10]), (1, 2, None, &[41])], 0),
            ("killed after", &[(0, 1, Some(42), &[10]), (1, 2, None, &[41])], 1),
            ("no end is known", &[(0, 1, None, &[10]), (1, 2, None, &[9_000])], 1),
            ("two on one host", &[(0, 1, None, &[10]), (0, 2, Some(30), &[20])], 1),
            ("three", &[(0, 1, None, &[10]), (1, 2, None, &[20]), (2, 3, None, &[30])], 3),
            ("it never ran there", &[(0, 1, None, &[10]), (1, 2, Some(30), &[])], 0),
        ];
        for (name, records, count) in rows {
            assert_eq!(witness(records).unwrap().overlaps().len(), *count, "{name}");
        }
    }

    #[test]
    fn impossible_records_are_refused() {
        for changes in [&[10, 20][..], &[-10], &[10, -20, -30], &[10, -9]] {
            assert!(witness(&[(0, 1, None, changes)]).is_err(), "{changes:?}");
        }
    }

    #[test]
    fn the_time_between_two_is_known() {
        let seen = witness(&[(0, 1, None, &[10, -50]), (1, 2, None, &[57, -60, 61])]).unwrap();
        let gaps: Vec<_> = seen.intervals.iter().map(|one| seen.gap_before_us(one)).collect();
        assert_eq!(gaps, [None, Some(7), Some(1)]);
        assert_eq!(seen.begun_since(1, 58).unwrap().begun_us, 61);
        assert_eq!(seen.begun_since(0, 58), None);
    }

    #[test]
    fn lines_are_what_qemu_writes() {
        let text = "21537@1795543896.553563:vm_state_notify running 1 reason 9 (running)\n\
                    21537@1795543898.479972:vm_state_notify running 0 reason 11 (shutdown)\n\
                    21537@17955";
        let at = |at_us, runs| Change { at_us, runs };
        let wanted = [at(1_795_543_896_553_563, true), at(1_795_543_898_479_972, false)];
        assert_eq!(changes(text).unwrap(), wanted);
        assert_eq!(changes("").unwrap(), []);
        for line in [
            "vm_state_notify running 1 reason 9 (running)",
            "1@2.3:vm_state_notify running 1 reason 9 (running)",
            "1@2.000003:vm_state_notify running 2 reason 9 (running)",
            "1@2.000003:runstate_set current_run_state 6 (prelaunch) new_state 9 (running)",
        ] {
            assert!(changes(&format!("{line}\n")).is_err(), "{line:?}");
        }
    }

    #[test]
    fn an_end_is_of_this_process_and_no_earlier_one() {
        let ends = "7 100\n8 150\n7 200\n7 300\n";
        for (pid, started, wanted) in
            [(7, 0, Some(100)), (7, 101, Some(200)), (9, 0, None), (8, 151, None)]
        {
            assert_eq!(end(ends, pid, started).unwrap(), wanted, "{pid} {started}");
        }
        assert!(end("7\n", 7, 0).is_err());
        assert_eq!(named("vm-1.7.5000000"), Some(("vm-1", 7, 5_000)));
        assert_eq!(named("vm-1.7"), None);
    }
}
