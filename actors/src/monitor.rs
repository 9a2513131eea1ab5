//! What VMs and hosts use: measured on the host's own node every ten seconds, and kept there.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use domain::{
    State,
    id::{HostId, VmId},
    instance::Phase,
};
use drivers::Usage;
use futures_util::{StreamExt, stream};

use crate::{
    health::wall_ms,
    host::LocalHost,
    machine,
    root::StaffOptions,
    routine::Turn,
    series::{self, Sample, Series, Step},
};

/// What a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measured {
    /// A VM.
    Vm(VmId),
    /// A host.
    Host(HostId),
}

impl Measured {
    fn file(self) -> String {
        match self {
            Measured::Vm(id) => format!("vm-{id}"),
            Measured::Host(id) => format!("host-{id}"),
        }
    }
}

/// Files that are written in a turn: however many VMs there are, the disk has so much to do and no more. Values wait
/// for their turn in memory.
const WRITTEN_MAX: usize = 128;
/// Values of one file that wait: an hour.
const WAITING_MAX: usize = 360;

/// What a node has measured of its hosts and their VMs.
pub struct Monitor {
    directory: PathBuf,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    newest: BTreeMap<Measured, (u64, Sample)>,
    /// What is not in a file yet, the oldest first; nothing of what is measured no more, and whose file is to be closed.
    waiting: BTreeMap<Measured, Vec<(u64, Sample)>>,
    /// When the last value was measured that is in the file.
    written: BTreeMap<Measured, u64>,
    /// Whose turn was last.
    turn: Option<Measured>,
}

impl Memory {
    /// What waited is in its file; with nothing that file is closed.
    fn note_written(&mut self, of: Measured, samples: &[(u64, Sample)]) {
        if let Some(waiting) = self.waiting.get_mut(&of) {
            waiting.retain(|(at_s, _)| samples.iter().all(|(written_s, _)| written_s != at_s));
            if waiting.is_empty() {
                self.waiting.remove(&of);
            }
        }
        match samples.last() {
            Some((at_s, _)) => self.written.insert(of, *at_s),
            None => self.written.remove(&of),
        };
    }
}

impl Monitor {
    /// What lies in the data directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(data: &Path) -> io::Result<Monitor> {
        let directory = data.join("series");
        std::fs::create_dir_all(&directory)?;
        Ok(Monitor { directory, memory: Mutex::default() })
    }

    /// The newest values that are not old: when, Unix seconds, and what.
    #[must_use]
    pub fn newest(&self) -> BTreeMap<Measured, (u64, Sample)> {
        const OLD_S: u64 = 30;
        let now_s = wall_ms() / 1_000;
        let memory = self.memory();
        let fresh = memory.newest.iter().filter(|(_, (at_s, _))| at_s + OLD_S >= now_s);
        fresh.map(|(of, newest)| (*of, *newest)).collect()
    }

    /// What something used, as [`Series::read`]. It reads a file: not for a thread that others wait for.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(
        &self,
        of: Measured,
        step: Step,
        from_s: u64,
        to_s: u64,
    ) -> io::Result<Vec<(u64, Sample)>> {
        let each_s = step.seconds();
        let mut read = Series::at(self.directory.join(of.file())).read(step, from_s, to_s)?;
        let from_s = read.last().map_or(from_s, |(at_s, _)| at_s + each_s);
        // What is newer is in no slot yet.
        if let Some(finer) = step.finer() {
            read.extend(series::means(step, &self.read(of, finer, from_s, to_s)?));
        } else {
            let memory = self.memory();
            let waiting = memory.waiting.get(&of).into_iter().flatten();
            let waiting = waiting.map(|(at_s, sample)| (at_s / each_s * each_s, *sample));
            read.extend(waiting.filter(|(at_s, _)| (from_s..=to_s).contains(at_s)));
        }
        Ok(read)
    }

    /// Writes all that waits. It writes files: not for a thread that others wait for.
    pub fn flush(&self) {
        while self.write_some() > 0 {}
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the next files, and says how many were written.
    fn write_some(&self) -> usize {
        let next: Vec<_> = {
            let mut memory = self.memory();
            let after = match memory.turn {
                Some(last) => (Bound::Excluded(last), Bound::Unbounded),
                None => (Bound::Unbounded, Bound::Unbounded),
            };
            let mut next: Vec<Measured> =
                memory.waiting.range(after).map(|(of, _)| *of).take(WRITTEN_MAX).collect();
            if next.len() < WRITTEN_MAX {
                let others = memory.waiting.keys().filter(|of| !next.contains(of));
                let others: Vec<_> = others.copied().take(WRITTEN_MAX - next.len()).collect();
                next.extend(others);
            }
            memory.turn = next.last().copied();
            // They wait until they are written: who reads meanwhile finds them here or there.
            let look = |of: Measured| {
                let samples = memory.waiting.get(&of).cloned().unwrap_or_default();
                (of, memory.written.get(&of).copied(), samples)
            };
            next.into_iter().map(look).collect()
        };
        let (mut written, mut failed) = (0, None);
        for (of, last_s, samples) in &next {
            let series = Series::at(self.directory.join(of.file()));
            let done = match samples.last() {
                Some(_) => series.write(samples, *last_s),
                None => series.close(*last_s),
            };
            match done {
                Ok(()) => self.memory().note_written(*of, samples),
                Err(error) => failed = Some(error),
            }
            written += usize::from(failed.is_none());
        }
        if let Some(error) = failed {
            tracing::warn!(%error, "what VMs use is not kept");
        }
        written
    }

    fn note(&self, at_s: u64, samples: BTreeMap<Measured, Sample>) {
        let mut memory = self.memory();
        for (of, sample) in &samples {
            let waiting = memory.waiting.entry(*of).or_default();
            waiting.push((at_s, *sample));
            // Where nothing can be written, no more than a file has.
            if waiting.len() > WAITING_MAX {
                waiting.remove(0);
            }
        }
        let gone = memory.written.keys().filter(|of| !samples.contains_key(of));
        let gone: Vec<Measured> = gone.copied().collect();
        for of in gone {
            memory.waiting.entry(of).or_default();
        }
        memory.newest = samples.into_iter().map(|(of, sample)| (of, (at_s, sample))).collect();
    }
}

/// Measures.
#[derive(Default)]
pub(crate) struct Measuring {
    /// What was counted last, and when.
    counted: BTreeMap<Measured, (Instant, Usage)>,
    /// The last ten seconds that were measured.
    last: u64,
    turns: u64,
}

impl Turn for Measuring {
    const NAME: &str = "monitor";
    const PAUSE: Duration = Duration::from_millis(500);

    async fn take(&mut self, options: &StaffOptions) {
        let at_s = wall_ms() / 1_000;
        let now = at_s / Step::Seconds10.seconds();
        if now == self.last || options.hosts.is_empty() {
            return;
        }
        self.last = now;
        let view = options.store.view();
        let counted = count(&options.hosts, &view.state).await;
        let mut samples = BTreeMap::new();
        let mut next = BTreeMap::new();
        for (of, host, at, usage) in counted {
            if let Some((before, old)) = self.counted.get(&of) {
                let sample = rates(*old, usage, at.duration_since(*before));
                samples.insert(of, sample);
                // What a simulated host uses is what its VMs use.
                if let Some(host) = host {
                    let whole: &mut Sample = samples.entry(Measured::Host(host)).or_default();
                    *whole = whole.and(sample);
                }
            }
            next.insert(of, (at, usage));
        }
        self.counted = next;
        let (monitor, state) = (options.monitor.clone(), view.state.clone());
        self.turns += 1;
        // Once an hour, and not at once: a node that has just begun may not know yet what there is.
        let sweeps = self.turns.is_multiple_of(360);
        let written = tokio::task::spawn_blocking(move || {
            monitor.note(at_s, samples);
            monitor.write_some();
            if sweeps
                && let Err(error) =
                    series::sweep(&monitor.directory, |file| is_wanted(&state, file))
            {
                tracing::warn!(%error, "what was measured of VMs that are gone is left");
            }
        });
        let _ = written.await;
    }
}

/// Whether a file is of something that is there.
fn is_wanted(state: &State, file: &str) -> bool {
    match file.split_once('-') {
        Some(("vm", id)) => id.parse().is_ok_and(|id: VmId| state.vms.contains_key(&id)),
        Some(("host", id)) => id.parse().is_ok_and(|id: HostId| state.hosts.contains_key(&id)),
        _ => false,
    }
}

/// What was counted: of what, the host that it is a part of, when, and how much.
type Counted = (Measured, Option<HostId>, Instant, Usage);

/// Asks the drivers for all guests that run, and the machine.
async fn count(hosts: &[std::sync::Arc<LocalHost>], state: &State) -> Vec<Counted> {
    /// Questions at one time.
    const PARALLEL: usize = 16;
    /// How long a driver may take.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How long all of them may: the next turn is not to be late.
    const TURN: Duration = Duration::from_secs(8);
    let end = tokio::time::Instant::now() + TURN;
    let machine = tokio::task::spawn_blocking(machine::usage).await.ok().flatten();
    let mut counted = Vec::new();
    let mut guests = Vec::new();
    for local in hosts {
        let simulated =
            state.hosts.get(&local.id).is_none_or(|host| host.driver.as_str() == "simulator");
        if !simulated && let Some(usage) = machine {
            counted.push((Measured::Host(local.id), None, Instant::now(), usage));
        }
        let running = state.instances_on(local.id).filter(|body| body.phase == Phase::Running);
        guests.extend(running.map(|body| (local.clone(), body.vm, simulated.then_some(local.id))));
    }
    let asked = stream::iter(guests).map(|(local, vm, host)| async move {
        let usage = tokio::time::timeout(PATIENCE, local.driver.usage(vm)).await.ok()?.ok()?;
        Some((Measured::Vm(vm), host, Instant::now(), usage))
    });
    let mut answers = asked.buffer_unordered(PARALLEL);
    while let Ok(Some(answer)) = tokio::time::timeout_at(end, answers.next()).await {
        counted.extend(answer);
    }
    counted
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "what is shown to people"
)]
fn rates(old: Usage, new: Usage, within: Duration) -> Sample {
    // A guest that began anew is counted anew. When a disk or a card has gone, what it had counted has.
    let old = if new.cpu_ns < old.cpu_ns { Usage::default() } else { old };
    let rate = |old: u64, new: u64| {
        let grown = new.saturating_sub(old);
        (grown as f64 / within.as_secs_f64().max(0.001)) as f32
    };
    Sample {
        cpus: rate(old.cpu_ns, new.cpu_ns) / 1e9,
        memory_bytes: (new.memory_mib << 20) as f32,
        disk_read: rate(old.disk_read_bytes, new.disk_read_bytes),
        disk_written: rate(old.disk_written_bytes, new.disk_written_bytes),
        received: rate(old.network_received_bytes, new.network_received_bytes),
        sent: rate(old.network_sent_bytes, new.network_sent_bytes),
    }
}

#[cfg(test)]
mod tests {
    use newtype_uuid::GenericUuid;

    use super::*;

    fn vm(number: u128) -> Measured {
        Measured::Vm(VmId::from_untyped_uuid(uuid::Uuid::from_u128(number)))
    }

    /// However many there are, few files are written at a time, and what waits is told all the same.
    #[test]
    fn files_are_written_in_turns_and_nothing_is_missed() {
        const VMS: u128 = 300;
        const BEGIN: u64 = 600 * 3_000_000;
        let data = tempfile::tempdir().unwrap();
        let monitor = Monitor::open(data.path()).unwrap();
        let files = || std::fs::read_dir(data.path().join("series")).unwrap().count();
        let check = |monitor: &Monitor, turns: u64| {
            for of in (0..VMS).map(vm) {
                let read = monitor.read(of, Step::Seconds10, BEGIN, BEGIN + 3_599).unwrap();
                let times: Vec<u64> = read.iter().map(|(at_s, _)| *at_s).collect();
                let expected: Vec<u64> = (0..turns).map(|turn| BEGIN + 10 * turn).collect();
                assert_eq!(times, expected, "{of:?}");
            }
        };
        for (turn, expected) in [(0, 128), (1, 256), (2, 300), (3, 300)] {
            let samples = (0..VMS).map(|number| (vm(number), Sample::default()));
            // Seconds into the ten.
            monitor.note(BEGIN + 10 * turn + 3, samples.collect());
            assert_eq!(monitor.write_some(), WRITTEN_MAX);
            assert_eq!(files(), expected, "after turn {turn}");
            check(&monitor, turn + 1);
        }
        // What is written at the end is there for who begins anew; without that, what was not written is not.
        let again = Monitor::open(data.path()).unwrap();
        let read = again.read(vm(0), Step::Seconds10, BEGIN, BEGIN + 3_599).unwrap();
        assert!(read.len() < 4, "{read:?}");
        monitor.flush();
        check(&Monitor::open(data.path()).unwrap(), 4);
    }

    /// What has run for less than a step is told, at once and when its files hold means alone.
    #[test]
    fn a_short_life_is_told_for_long() {
        const BEGIN: u64 = 600 * 3_000_000;
        let data = tempfile::tempdir().unwrap();
        let monitor = Monitor::open(data.path()).unwrap();
        let cpus = |cpus: f32| Sample { cpus, ..Sample::default() };
        for (at_s, busy) in [(0, 1.0), (10, 2.0), (60, 6.0)] {
            monitor.note(BEGIN + at_s, [(vm(0), cpus(busy))].into());
        }
        let read = |step| {
            let read = monitor.read(vm(0), step, BEGIN, BEGIN + 3_000).unwrap();
            read.into_iter().map(|(at_s, it)| (at_s - BEGIN, it.cpus)).collect::<Vec<_>>()
        };
        let told = |when: &str| {
            assert_eq!(read(Step::Seconds10), [(0, 1.0), (10, 2.0), (60, 6.0)], "{when}");
            assert_eq!(read(Step::Minute), [(0, 1.5), (60, 6.0)], "{when}");
            assert_eq!(read(Step::Minutes10), [(0, 3.75)], "{when}");
        };
        told("while it waits");
        monitor.write_some();
        told("when it is written");
        monitor.note(BEGIN + 70, BTreeMap::new());
        monitor.write_some();
        told("when it has ended");
        let series = Series::at(data.path().join("series").join(vm(0).file()));
        assert_eq!(
            series.read(Step::Minutes10, BEGIN, BEGIN + 600).unwrap(),
            [(BEGIN, cpus(3.75))]
        );
        assert_eq!(monitor.write_some(), 0, "nothing waits any more");
    }

    #[test]
    fn what_has_gone_was_not_used() {
        let old = Usage { cpu_ns: 5_000_000_000, network_sent_bytes: 1_000, ..Usage::default() };
        let within = Duration::from_secs(10);
        for (new, cpus, sent, what) in [
            (
                Usage { cpu_ns: 15_000_000_000, network_sent_bytes: 3_000, ..old },
                1.0,
                200.0,
                "used",
            ),
            (Usage { cpu_ns: 15_000_000_000, network_sent_bytes: 10, ..old }, 1.0, 0.0, "a card"),
            (Usage { cpu_ns: 1_000_000_000, network_sent_bytes: 10, ..old }, 0.1, 1.0, "a guest"),
        ] {
            let rates = rates(old, new, within);
            assert_eq!((rates.cpus, rates.sent), (cpus, sent), "{what}");
        }
    }
}
