//! Nodes whose programs are replaced, and a node that comes and goes.

use std::{fs::OpenOptions, os::unix::process::CommandExt, path::PathBuf, process::Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::{cluster::Cluster, node::Node, wall_clock::WallClock};

impl Cluster {
    /// Asks a node's process to end, as systemd does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self, node: usize) -> Result<()> {
        self.nodes[node].signal(Signal::TERM)
    }

    /// Whether a node runs the previous program.
    #[must_use]
    pub fn is_previous(&self, node: usize) -> bool {
        self.nodes[node].previous.is_some()
    }

    /// Replaces the program of a node that does not run, if it is the previous one.
    pub fn replace_program(&mut self, node: usize) {
        self.nodes[node].previous = None;
    }

    /// The number of the node that comes and goes, and its name.
    #[must_use]
    pub fn spare(&self) -> (usize, String) {
        let number = self.options.nodes;
        (number, format!("n{}", number + 1))
    }

    /// Has it join with a token, and run then. It drives no host. How that goes on is to be asked of the cluster.
    ///
    /// # Errors
    /// When its process cannot be started, or there is no place for it.
    pub fn spare_joins(&mut self, token: &str) -> Result<()> {
        let (number, _) = self.spare();
        let environment = self.options.broken.environment();
        let node = self.nodes.get_mut(number).context("there is no place for it")?;
        node.join_and_run(token, environment)
    }

    /// Ends it, and empties its data directory.
    ///
    /// # Errors
    /// When it cannot be ended, or its directory not be emptied.
    pub fn spare_leaves(&mut self) -> Result<()> {
        let (number, _) = self.spare();
        self.kill(number)?;
        if self.nodes[number].data().exists() { self.wipe(number) } else { Ok(()) }
    }
}

impl Node {
    /// The program that it runs.
    pub(crate) fn program(&self) -> PathBuf {
        self.previous.clone().unwrap_or_else(|| self.programs.join("novacron"))
    }

    /// One process that joins and then becomes the node's: nothing has to wait for it meanwhile.
    fn join_and_run(&mut self, token: &str, environment: Option<(&str, &str)>) -> Result<()> {
        const BOTH: &str = r#""$0" join "$1" && exec "$0" run"#;
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = self.command("/bin/sh");
        command
            .current_dir(&self.directory)
            .envs(self.wall_clock.iter().flat_map(WallClock::environment));
        command.arg("-c").arg(BOTH).arg(self.program()).arg(token);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Who still joins is ended with it.
        command.process_group(0).envs(environment);
        self.process = Some(command.spawn().context("cannot start a node")?);
        Ok(())
    }
}
