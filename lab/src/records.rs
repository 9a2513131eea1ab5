//! What hosts have written down of the guests that they executed.

use std::path::PathBuf;

use anyhow::Result;
use drivers::simulator::{self, Execution};

use crate::{node::Node, witness::Witness};

/// Where hosts write it down, each with its name.
#[derive(Clone, Debug)]
pub struct HostRecords {
    /// Simulated hosts that are apart from their nodes.
    simulated: Vec<(String, PathBuf)>,
    /// Real hypervisors.
    real: Vec<(String, PathBuf)>,
}

/// What one host has written down of one VM's guest.
#[derive(Clone, Debug)]
pub struct Told {
    /// The host.
    pub host: String,
    /// The VM.
    pub vm: String,
    /// When it executed the guest, in order. The clock is the same for all hosts that can execute it.
    pub executions: Vec<Execution>,
    /// The fences under which calls were carried out. Of real guests nobody has written them down.
    pub fences: Option<Vec<u64>>,
}

impl HostRecords {
    pub(crate) fn of(nodes: &[Node]) -> HostRecords {
        let (mut simulated, mut real) = (Vec::new(), Vec::new());
        for (node, number) in nodes.iter().zip(1..) {
            if let Some(apart) = &node.apart {
                simulated.push((format!("h{number}"), apart.state.clone()));
            }
            if let Some(hypervisor) = &node.hypervisor {
                let letter = if node.apart.is_some() { 'r' } else { 'h' };
                real.push((format!("{letter}{number}"), hypervisor.directory().to_owned()));
            }
        }
        HostRecords { simulated, real }
    }

    /// What they have written down so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Vec<Told>> {
        let mut all = Vec::new();
        for (host, state) in &self.simulated {
            all.extend(simulator::records(state)?.into_iter().map(|(vm, record)| Told {
                host: host.clone(),
                vm: vm.to_string(),
                executions: record.executions,
                fences: Some(record.fences),
            }));
        }
        let directories: Vec<_> = self.real.iter().map(|(_, directory)| &**directory).collect();
        for (vm, witness) in Witness::read_all(&directories)? {
            for (number, (host, _)) in self.real.iter().enumerate() {
                let there = witness.intervals.iter().filter(|interval| interval.host == number);
                let executions = there.map(|interval| Execution {
                    begun_ns: interval.begun_us * 1_000,
                    ended_ns: interval.ended_us.map(|ended_us| ended_us * 1_000),
                    fence: None,
                });
                let (host, vm, executions) = (host.clone(), vm.clone(), executions.collect());
                all.push(Told { host, vm, executions, fences: None });
            }
        }
        Ok(all)
    }
}
