//! A node: its process, and what belongs to its host.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{
    apart::Apart,
    disk::Disk,
    guard::{self, Boot},
    hypervisor::Hypervisor,
    network::Space,
    power,
    wall_clock::{self, WallClock},
    watchdog::Watchdog,
};

pub(crate) struct Node {
    /// Everything of the node lies in it.
    pub(crate) directory: PathBuf,
    /// Where the programs are.
    pub(crate) programs: PathBuf,
    /// Whether it comes and goes.
    pub(crate) spare: bool,
    /// The program of an earlier version, until it is replaced.
    pub(crate) previous: Option<PathBuf>,
    /// The host's own network, if it has one.
    pub(crate) space: Option<Arc<Space>>,
    pub(crate) hypervisor: Option<Hypervisor>,
    /// Where the driver of its hypervisor keeps its state.
    pub(crate) real_state: PathBuf,
    /// Its host, when that is a simulated one apart from it.
    pub(crate) apart: Option<Apart>,
    pub(crate) disk: Option<Disk>,
    /// Its host's present boot, if that is not the machine's.
    pub(crate) boot: Option<Boot>,
    /// Whether its host's clock is slow by a tenth.
    pub(crate) slow: bool,
    /// Its process's wall clock, if that can be moved.
    pub(crate) wall_clock: Option<WallClock>,
    /// Whether its host has a guard.
    pub(crate) guarded: bool,
    /// Its guard's watchdog, if it has one.
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) guard: Option<Child>,
    pub(crate) process: Option<Child>,
}

impl Node {
    /// The node's data directory: a directory of its disk's, beside what the file system keeps
    /// there.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data/novacron")
    }

    /// A program as it runs on the node's host.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match (&self.space, &self.boot) {
            (Some(space), Some(boot)) => boot.command(space, program.as_ref()),
            (Some(space), None) => space.command(program),
            (None, _) => Command::new(program),
        };
        if self.slow {
            command.env("NOVACRON_TEST_CLOCK_PERCENT", "90");
        }
        command
    }

    /// `novacron` as it runs on the node's host.
    pub(crate) fn novacron(&self) -> Command {
        let mut command = self.command(self.program());
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    /// Starts its process.
    pub(crate) fn run<'a>(
        &mut self,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = self.novacron();
        command.envs(self.wall_clock.iter().flat_map(WallClock::environment));
        command.env("NOVACRON_TEST_PANICS", self.panics());
        command.arg("run").envs(environment).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().context("cannot start a node")?);
        Ok(())
    }

    /// Starts its host's driver, when that is apart from it and does not run.
    pub(crate) fn run_apart<'a>(
        &mut self,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        if self.apart.is_none() || self.driver().is_some() {
            return Ok(());
        }
        let mut apart = self.apart.take().context("it is there")?;
        let started = apart.start(|program| {
            let mut command = self.command(program);
            command.current_dir(&self.directory).envs(environment);
            command
        });
        self.apart = Some(apart);
        started
    }

    /// Starts its host's guard, if it has one.
    pub(crate) fn run_guard(&mut self) -> Result<()> {
        if self.guarded {
            let mut command = self.command(self.programs.join("novacron-guard"));
            if let Some(watchdog) = &self.watchdog {
                command.arg("--watchdog").arg(watchdog.path());
            }
            self.guard = Some(guard::start(command, &self.directory, &self.bodies())?);
        }
        Ok(())
    }

    /// Where its host's bodies lie.
    pub(crate) fn bodies(&self) -> PathBuf {
        self.directory.join("d/bodies")
    }

    /// Kills its host's guard.
    pub(crate) fn kill_guard(&mut self) -> Result<()> {
        if let Some(mut guard) = self.guard.take() {
            guard.kill()?;
            guard.wait()?;
        }
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the node does not run")?.id())
    }

    /// How its process has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.try_wait().ok().flatten()
    }

    /// Kills its process at once. The answer is how it ended, if there was one: it may have before.
    pub(crate) fn kill(&mut self) -> Result<Option<ExitStatus>> {
        let Some(mut process) = self.process.take() else { return Ok(None) };
        if self.spare {
            // A group of its own. It may have ended.
            let _ = kill_process_group(Pid::from_child(&process), Signal::KILL);
        }
        process.kill()?;
        if self.wall_clock.is_some() {
            // Before its number can be another one's.
            wall_clock::sweep(process.id());
        }
        Ok(Some(process.wait()?))
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("the node does not run")?;
        Ok(kill_process(Pid::from_child(process), signal)?)
    }

    /// See [`Disk::cut_power`].
    pub(crate) fn cut_power(&self) -> Result<u64> {
        ensure!(self.process.is_none(), "the node still runs");
        if let Some(apart) = &self.apart {
            if let Some(hypervisor) = &self.hypervisor {
                // It is back in a moment; until then it starts nothing. It may be just on its way.
                let _ = hypervisor.kill_daemon();
            }
            power::cut(&self.directory)?;
            apart.lose_power()?;
        }
        self.disk()?.cut_power()
    }

    pub(crate) fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context("the node has no disk of its own")
    }

    /// The pid of its host's driver.
    pub(crate) fn driver(&self) -> Option<Pid> {
        self.driver_in(&self.directory.join("d"))
    }

    /// The pid of its hypervisor's driver.
    pub(crate) fn real_driver(&self) -> Option<Pid> {
        self.driver_in(&self.real_state)
    }

    /// The one process of ours that holds the lock of a driver's state.
    fn driver_in(&self, state: &Path) -> Option<Pid> {
        let lock = state.join("lock");
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.into_iter().filter(|pid| is_driver(*pid, &lock)).find_map(Pid::from_raw)
    }

    /// The file at which its actors panic.
    pub(crate) fn panics(&self) -> PathBuf {
        self.directory.join("panics")
    }

    /// Its log.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.directory.join("node.log")
    }
}

fn is_driver(pid: i32, lock: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    let holds = targets.into_iter().any(|target| target == lock);
    let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    holds && program.starts_with("novacron-driver")
}

impl Drop for Node {
    fn drop(&mut self) {
        // A process that waits for a frozen disk does not end.
        if let Some(disk) = &self.disk {
            let _ = disk.thaw();
        }
        let _ = self.kill();
        let _ = self.kill_guard();
        for driver in self.driver().into_iter().chain(self.real_driver()) {
            let _ = kill_process(driver, Signal::KILL);
        }
        if self.apart.is_some() {
            // Its disk is in use as long as anything runs there.
            let _ = power::cut(&self.directory);
        }
    }
}
