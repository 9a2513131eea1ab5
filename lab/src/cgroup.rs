//! What a process may use, by control groups: those of both versions.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

const ROOT: &str = "/sys/fs/cgroup";
/// What the name of every group of a lab begins with.
const PREFIX: &str = "novacron-lab-";

/// A limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So much of one processor, percent.
    Cpu(u32),
    /// So much memory more than it uses now, bytes; whoever needs more is killed.
    Memory(u64),
    /// No time at all.
    Frozen,
}

impl Limit {
    fn controller(self) -> &'static str {
        match self {
            Limit::Cpu(_) => "cpu",
            Limit::Memory(_) => "memory",
            Limit::Frozen => "freezer",
        }
    }
}

/// Why this machine cannot limit processes, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    for limit in [Limit::Cpu(0), Limit::Memory(0), Limit::Frozen] {
        let controller = limit.controller();
        let first = Path::new(ROOT).join(controller).join("cgroup.procs").exists();
        let second = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"));
        // The freezer is part of every group of the second version.
        let second = second.is_ok_and(|all| {
            limit == Limit::Frozen || all.split_whitespace().any(|one| one == controller)
        });
        if !first && !second {
            return Err(format!("there is no control group for {controller}"));
        }
    }
    Ok(())
}

/// A process that is limited until this is ended or dropped.
pub struct Limited {
    limit: Limit,
    group: PathBuf,
    /// Where it was before.
    home: PathBuf,
    is_first: bool,
    pid: u32,
}

/// How long a freezer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// In how long a piece of the processor is given out, microseconds.
const PERIOD_US: u64 = 100_000;

impl Limited {
    pub(crate) fn begin(pid: u32, limit: Limit) -> Result<Limited> {
        let first = Path::new(ROOT).join(limit.controller());
        let is_first = first.join("cgroup.procs").exists();
        let root = if is_first { first } else { PathBuf::from(ROOT) };
        if !is_first && limit != Limit::Frozen {
            let enable = format!("+{}", limit.controller());
            fs::write(root.join("cgroup.subtree_control"), enable)?;
        }
        let home = root.join(home_of(pid, is_first.then(|| limit.controller()))?);
        let group = root.join(format!("{PREFIX}{pid}-{}", limit.controller()));
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let limited = Limited { limit, group, home, is_first, pid };
        limited.admit(&limited.group)?;
        limited.apply()?;
        Ok(limited)
    }

    fn apply(&self) -> Result<()> {
        match (self.limit, self.is_first) {
            (Limit::Cpu(percent), true) => {
                self.write("cpu.cfs_period_us", PERIOD_US)?;
                self.write("cpu.cfs_quota_us", PERIOD_US * u64::from(percent) / 100)
            }
            (Limit::Cpu(percent), false) => {
                let quota_us = PERIOD_US * u64::from(percent) / 100;
                self.write("cpu.max", format!("{quota_us} {PERIOD_US}"))
            }
            // What it has used so far is not this group's.
            (Limit::Memory(bytes), true) => self.write("memory.limit_in_bytes", bytes),
            (Limit::Memory(bytes), false) => self.write("memory.max", bytes),
            (Limit::Frozen, true) => {
                self.write("freezer.state", "FROZEN")?;
                self.await_line("freezer.state", "FROZEN")
            }
            (Limit::Frozen, false) => {
                self.write("cgroup.freeze", 1)?;
                self.await_line("cgroup.events", "frozen 1")
            }
        }
    }

    /// Lets the process use what it likes again. The answer is how often it came to the limit: how often it had
    /// to wait for the processor, or for memory; 1 for one that is frozen.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn end(self) -> Result<u64> {
        let count = |file: &str, key: &str| -> Result<u64> {
            let text = fs::read_to_string(self.group.join(file))?;
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            Ok(line.with_context(|| format!("no {key} in {file}"))?.trim().parse()?)
        };
        match (self.limit, self.is_first) {
            (Limit::Cpu(_), _) => count("cpu.stat", "nr_throttled "),
            (Limit::Memory(_), true) => count("memory.failcnt", ""),
            (Limit::Memory(_), false) => count("memory.events", "max "),
            (Limit::Frozen, true) => {
                self.await_line("freezer.state", "FROZEN")?;
                Ok(1)
            }
            (Limit::Frozen, false) => {
                self.await_line("cgroup.events", "frozen 1")?;
                Ok(1)
            }
        }
    }

    fn await_line(&self, file: &str, line: &str) -> Result<()> {
        let begun = Instant::now();
        while !fs::read_to_string(self.group.join(file))?.lines().any(|said| said == line) {
            ensure!(begun.elapsed() < PATIENCE, "{file} does not become {line}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn admit(&self, group: &Path) -> Result<()> {
        let file = group.join("cgroup.procs");
        fs::write(&file, self.pid.to_string())
            .with_context(|| format!("cannot write to {}", file.display()))
    }

    fn write(&self, file: &str, value: impl ToString) -> Result<()> {
        let file = self.group.join(file);
        fs::write(&file, value.to_string())
            .with_context(|| format!("cannot write to {}", file.display()))
    }

    /// Undoes it, as far as the process is there at all.
    fn release(&self) {
        lift(&self.group);
        let begun = Instant::now();
        loop {
            // It goes with what it has started meanwhile.
            let members = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            for member in members.lines() {
                let _ = fs::write(self.home.join("cgroup.procs"), member);
            }
            // One that ends takes a moment to leave.
            if fs::remove_dir(&self.group).is_ok() || begun.elapsed() > PATIENCE {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.release();
    }
}

/// Takes every limit of a group away that it has.
fn lift(group: &Path) {
    let free = [
        ("freezer.state", "THAWED"),
        ("cgroup.freeze", "0"),
        ("cpu.cfs_quota_us", "-1"),
        ("memory.limit_in_bytes", "-1"),
        ("cpu.max", "max"),
        ("memory.max", "max"),
    ];
    for (file, value) in free {
        // A group has the files of its kind; opened so, none is made.
        if let Ok(mut file) = fs::OpenOptions::new().write(true).open(group.join(file)) {
            let _ = file.write_all(value.as_bytes());
        }
    }
}

/// Frees a process that a lab which was killed has left limited: a frozen one cannot even be killed.
pub(crate) fn free(pid: i32) {
    let root = Path::new(ROOT);
    for parent in ["cpu", "memory", "freezer"]
        .map(|name| root.join(name))
        .iter()
        .map(PathBuf::as_path)
        .chain([root])
    {
        for controller in ["cpu", "memory", "freezer"] {
            let group = parent.join(format!("{PREFIX}{pid}-{controller}"));
            if group.is_dir() {
                lift(&group);
                let _ = fs::write(parent.join("cgroup.procs"), pid.to_string());
                let _ = fs::remove_dir(group);
            }
        }
    }
}

/// The group a process is in, below the root of its kind: of a controller of the first version, or of the second.
fn home_of(pid: u32, controller: Option<&str>) -> Result<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let is_it = |controllers: &str| match controller {
        Some(controller) => controllers.split(',').any(|one| one == controller),
        None => controllers.is_empty(),
    };
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next().filter(|controllers| is_it(controllers))?;
        fields.next()
    });
    let path = path.with_context(|| format!("process {pid} is in no such group"))?;
    Ok(PathBuf::from(path.trim_start_matches('/')))
}
