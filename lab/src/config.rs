//! The cluster.toml of a lab's node.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    apart::Apart,
    hypervisor::Hypervisor,
    options::{Pace, Traces},
};

/// What differs from node to node.
pub(crate) struct Config<'a> {
    /// Which node it is, from 0.
    pub(crate) number: usize,
    /// How many there are.
    pub(crate) nodes: usize,
    pub(crate) data: &'a Path,
    pub(crate) peer: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) snapshot_entries: u64,
    /// Whether it drives a host.
    pub(crate) has_host: bool,
    /// Its host, when that is a simulated one apart from it.
    pub(crate) apart: Option<&'a Apart>,
    /// Its hypervisor: its host, or one more where that is simulated.
    pub(crate) real: Option<Real<'a>>,
    /// The pool that all hosts see.
    pub(crate) pool: &'a Path,
    /// Where its host's guard listens, if it has one.
    pub(crate) guard: Option<PathBuf>,
    /// How fast nodes expect each other to be.
    pub(crate) pace: Pace,
    /// Simulated hosts besides the first.
    pub(crate) more_hosts: usize,
    /// From which level on it logs, as JSON.
    pub(crate) json_log: Option<&'static str>,
    /// Where it tells traces.
    pub(crate) traces: Option<Traces>,
    /// What cuts the power of every host, and where the hosts lie.
    pub(crate) agents: Option<(PathBuf, PathBuf)>,
}

/// What is told of a hypervisor.
#[derive(Clone, Copy)]
pub(crate) struct Real<'a> {
    pub(crate) hypervisor: &'a Hypervisor,
    /// Where its driver keeps its state.
    pub(crate) state: &'a Path,
    /// The driver, when it is not the one beside the node's program.
    pub(crate) program: Option<&'a Path>,
}

impl Config<'_> {
    pub(crate) fn text(&self) -> String {
        let Config { number, data, peer, api, snapshot_entries, .. } = self;
        let me = number + 1;
        let (timing, limits, room) = match self.pace {
            Pace::Relaxed => ("relaxed", "", ""),
            Pace::Normal => {
                ("normal", "[api]\nrequests_per_second = 1000000\n\n", "\ncpus = 100000")
            }
        };
        let log =
            self.json_log.map(|level| format!("[log]\nformat = \"json\"\nlevel = \"{level}\"\n\n"));
        let mut log = log.unwrap_or_default();
        if let Some(Traces { collector, percent }) = self.traces {
            let percent = percent.map(|percent| format!("sample_percent = {percent}\n"));
            let percent = percent.unwrap_or_default();
            log.push_str(&format!("[traces]\nendpoint = \"http://{collector}\"\n{percent}\n"));
        }
        let expect: Vec<String> = (2..=self.nodes).map(|number| format!("\"n{number}\"")).collect();
        let mut text = format!(
            "[cluster]\nname = \"lab\"\nexpect = [{}]\ntiming = \"{timing}\"\n\n\
             {limits}{log}[node]\nname = \"n{me}\"\ndata_directory = \"{}\"\n\
             peer_address = \"{peer}\"\napi_address = \"{api}\"\n\
             snapshot_entries = {snapshot_entries}\n\n",
            expect.join(", "),
            data.display(),
        );
        if !self.has_host {
            return text;
        }
        text.push_str(&format!("[[host]]\nname = \"h{me}\"\n"));
        match (self.apart, self.real) {
            (Some(apart), None) => text.push_str(&apart.text()),
            (Some(apart), Some(real)) => {
                let real = self.real_text(real);
                text.push_str(&format!("{}\n[[host]]\nname = \"r{me}\"\n{real}", apart.text()));
            }
            (None, Some(real)) => text.push_str(&self.real_text(real)),
            (None, None) => text.push_str(&format!("driver = \"simulator\"{room}\n")),
        }
        for more in 2..self.more_hosts + 2 {
            let host =
                format!("\n[[host]]\nname = \"h{me}-{more}\"\ndriver = \"simulator\"{room}\n");
            text.push_str(&host);
        }
        if let Some(guard) = &self.guard {
            text.push_str(&format!("guard = \"{}\"\n", guard.display()));
        }
        if let Some((program, root)) = &self.agents {
            for host in 1..=self.nodes {
                text.push_str(&format!(
                    "\n[[fencing]]\nhost = \"h{host}\"\nprogram = \"{}\"\narguments = [\"{}/n{host}\"]\n",
                    program.display(),
                    root.display()
                ));
            }
        }
        text
    }

    fn real_text(&self, Real { hypervisor, state, program }: Real<'_>) -> String {
        let program = program.map(|program| format!("program = \"{}\"\n", program.display()));
        format!(
            "driver = \"libvirt\"\nvirt_type = \"qemu\"\nuri = \"{}\"\n\
             migration_uri = \"{}\"\n\
             state_directory = \"{}\"\ncpus = 8\nmemory_mib = 2048\n\
             pools = {{ shared = \"{}\" }}\n{}",
            hypervisor.uri(),
            hypervisor.migration_uri(),
            state.display(),
            self.pool.display(),
            program.unwrap_or_default(),
        )
    }
}
