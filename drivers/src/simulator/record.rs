//! What of a simulated host outlives its driver's process, as guests and disks of a real one do: bodies, and
//! the fences seen, which outlive a loss of power too. When each guest executed, and under which fences calls
//! were carried out, is written down for those who judge.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use ::guard::{is_broken, since_boot};
use domain::{
    Fence,
    id::VmId,
    instance::{Body, Ended},
};
use serde::{Deserialize, Serialize};

use super::{guard::Held, world::Domain};

/// Where it lies.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory of what is gone when the host loses power.
    pub volatile: PathBuf,
    /// The directory of what is not.
    pub durable: PathBuf,
}

/// A time in which a host executed a guest, nanoseconds since the machine booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// When it began.
    pub begun_ns: u64,
    /// When it was over; none while it is not.
    pub ended_ns: Option<u64>,
    /// The fence of the call that let it begin; none when nobody did.
    pub fence: Option<u64>,
}

/// All that has become of a VM's body on one host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub(super) domain: Option<Domain>,
    /// In the order in which they began.
    pub executions: Vec<Execution>,
    /// The fences under which calls were carried out, and that were known after a start of the driver, in
    /// this order; the same one again is left out.
    pub fences: Vec<u64>,
}

impl Record {
    fn note_fence(&mut self, fence: Fence) {
        if self.fences.last() != Some(&fence.as_u64()) {
            self.fences.push(fence.as_u64());
        }
    }

    fn note_execution(&mut self, executes: bool, at: Duration, fence: Option<Fence>) {
        let at_ns = nanoseconds(at);
        let open = self.executions.last_mut().filter(|last| last.ended_ns.is_none());
        match (open, executes) {
            (Some(open), false) => open.ended_ns = Some(at_ns.max(open.begun_ns)),
            (None, true) => {
                let fence = fence.map(Fence::as_u64);
                self.executions.push(Execution { begun_ns: at_ns, ended_ns: None, fence });
            }
            (Some(_), true) | (None, false) => {}
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The records of a host, as they lie in its volatile place. A guest whose host's guard has let its deadline
/// pass executes no more, whether or not its driver has looked since.
///
/// # Errors
/// When they cannot be read.
pub fn records(volatile: &Path) -> io::Result<BTreeMap<VmId, Record>> {
    let mut all = read_bodies(volatile)?;
    // After the bodies: a later deadline only lets them execute for longer.
    if let Some(held) = read_held(volatile)?.filter(|held| since_boot() >= held.until) {
        for record in all.values_mut() {
            let ends = record.domain.as_ref().is_some_and(|it| it.failover.goes_elsewhere());
            if ends {
                record.note_execution(false, held.until, None);
            }
        }
    }
    Ok(all)
}

const BODIES: &str = "bodies";
const HELD: &str = "held.json";

fn read_bodies(volatile: &Path) -> io::Result<BTreeMap<VmId, Record>> {
    let mut all = BTreeMap::new();
    for file in std::fs::read_dir(volatile.join(BODIES))? {
        let file = file?;
        if let Some(id) = file.file_name().to_str().and_then(|name| name.parse().ok()) {
            all.insert(id, serde_json::from_slice(&std::fs::read(file.path())?)?);
        }
    }
    Ok(all)
}

fn read_held(volatile: &Path) -> io::Result<Option<Held>> {
    match std::fs::read(volatile.join(HELD)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The records of the host of this process.
#[derive(Debug)]
pub(super) struct Records {
    places: Places,
    all: BTreeMap<VmId, Record>,
}

/// What a host finds when its driver starts.
pub(super) struct Found {
    pub(super) records: Records,
    pub(super) domains: BTreeMap<VmId, Domain>,
    pub(super) fences: BTreeMap<VmId, Fence>,
    pub(super) held: Option<Held>,
}

impl Records {
    pub(super) fn open(places: Places) -> io::Result<Found> {
        std::fs::create_dir_all(places.volatile.join(BODIES))?;
        std::fs::create_dir_all(&places.durable)?;
        let mut fences = BTreeMap::new();
        for file in std::fs::read_dir(&places.durable)? {
            let file = file?;
            if let Some(id) = file.file_name().to_str().and_then(|name| name.parse::<VmId>().ok()) {
                let text = std::fs::read_to_string(file.path())?;
                let fence = match text.trim().parse() {
                    Ok(fence) => fence,
                    Err(_) if is_broken("unsynced-fence") => 0,
                    Err(error) => return Err(io::Error::other(error)),
                };
                fences.insert(id, Fence::from_u64(fence));
            }
        }
        let all = read_bodies(&places.volatile)?;
        let held = read_held(&places.volatile)?;
        let mut records = Records { places, all };
        let mut domains = BTreeMap::new();
        let known: Vec<VmId> = records.all.keys().copied().collect();
        for vm in known {
            let record = records.all.entry(vm).or_default();
            if !record.fences.is_empty() {
                record.note_fence(fences.get(&vm).copied().unwrap_or_default());
            }
            let mut domain = record.domain.clone();
            if let Some(domain) = &mut domain {
                domain.stay();
                domains.insert(vm, domain.clone());
            }
            // A guest that was being handed over goes on.
            records.write(vm, domain.as_ref(), fences.get(&vm).copied())?;
        }
        Ok(Found { records, domains, fences, held })
    }

    /// Raises a fence before anything is done under it.
    pub(super) fn raise(&mut self, vm: VmId, fence: Fence) -> io::Result<()> {
        let path = self.places.durable.join(vm.to_string());
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{}", fence.as_u64())?;
        if is_broken("unsynced-fence") {
            return std::fs::rename(&temporary, &path);
        }
        file.sync_data()?;
        std::fs::rename(&temporary, &path)?;
        File::open(&self.places.durable)?.sync_all()
    }

    /// A call is about to be carried out under this fence.
    pub(super) fn note_fence(&mut self, vm: VmId, fence: Fence) {
        self.all.entry(vm).or_default().note_fence(fence);
    }

    /// Writes down what has become of a body now, under this fence if somebody let it.
    pub(super) fn write(
        &mut self,
        vm: VmId,
        domain: Option<&Domain>,
        fence: Option<Fence>,
    ) -> io::Result<()> {
        self.write_at(vm, domain, fence, since_boot())
    }

    /// The same, of what was so since then.
    pub(super) fn write_at(
        &mut self,
        vm: VmId,
        domain: Option<&Domain>,
        fence: Option<Fence>,
        at: Duration,
    ) -> io::Result<()> {
        let record = self.all.entry(vm).or_default();
        record.note_execution(domain.is_some_and(Domain::executes), at, fence);
        record.domain = domain.cloned();
        let bytes = serde_json::to_vec(record)?;
        replace(&self.places.volatile.join(BODIES).join(vm.to_string()), &bytes)
    }

    pub(super) fn write_held(&self, held: Option<Held>) -> io::Result<()> {
        replace(&self.places.volatile.join(HELD), &serde_json::to_vec(&held)?)
    }
}

/// In one step: whoever reads sees all of it or what was there before.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(temporary, path)
}

/// What a loss of power leaves of a host whose driver does not run: its guests have ended, and its guard
/// knows of no lease.
///
/// # Errors
/// When that cannot be written.
pub fn lose_power(volatile: &Path) -> io::Result<()> {
    let places = Places { volatile: volatile.to_owned(), durable: PathBuf::new() };
    let all = read_bodies(volatile)?;
    let now = since_boot();
    // Its guard may have ended guests before, and nobody has looked since.
    let until = read_held(volatile)?.map_or(now, |held| held.until.min(now));
    let mut records = Records { places, all };
    let there = records.all.iter().filter_map(|(vm, record)| Some((*vm, record.domain.clone()?)));
    for (vm, mut domain) in there.collect::<Vec<_>>() {
        domain.body = match domain.body {
            Body::Running | Body::Paused | Body::Arrived => Body::Stopped(Ended::Crashed),
            Body::Incoming => Body::Ready,
            body @ (Body::Absent | Body::Ready | Body::Stopped(_)) => body,
        };
        let at = if domain.failover.goes_elsewhere() { until } else { now };
        records.write_at(vm, Some(&domain), None, at)?;
    }
    records.write_held(None)
}
