//! All nodes of a simulated cluster, and what must hold of them at any time.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    rc::Rc,
    sync::Arc,
};

use domain::id::{Digest, NodeId};
use raft_store::{Founder, Store};
use turmoil::Sim;

use super::{
    clients,
    node::{Ask, Common, Machine, Node, host, run},
    trace::Trace,
};
use crate::{checker::Violation, history::History};

/// All nodes.
pub(super) struct Nodes {
    all: BTreeMap<Machine, Rc<Node>>,
    common: Rc<Common>,
    /// What was seen applied at each entry, by whichever node, at whatever time: its term and the hash of the
    /// history up to it.
    applied: RefCell<BTreeMap<u64, (u64, Digest)>>,
    /// Who led, by term. In a term another one can be elected whose number is higher: then the first can commit
    /// nothing more.
    leaders: RefCell<BTreeSet<(u64, NodeId)>>,
    violations: RefCell<Vec<Violation>>,
}

impl Nodes {
    pub(super) fn new(count: u64, home: &Path, history: Arc<History>) -> Nodes {
        let new = |node| {
            let (disk, store, asked) = Default::default();
            (node, Rc::new(Node { disk, store, asked, seen: Cell::new(None) }))
        };
        let resource = clients::Resource::default();
        let (is_over, home) = (Cell::new(false), home.to_owned());
        let ids = RefCell::new([(1, Founder::NODE)].into());
        Nodes {
            all: (1..=count).map(new).collect(),
            common: Rc::new(Common {
                history,
                is_over,
                resource,
                voters: RefCell::default(),
                is_founding: Cell::new(true),
                ids,
                count,
                home,
            }),
            applied: RefCell::default(),
            leaders: RefCell::default(),
            violations: RefCell::default(),
        }
    }

    /// Puts them into a world.
    pub(super) fn place(&self, sim: &mut Sim<'static>) {
        for (number, node) in &self.all {
            let (number, node, common) = (*number, node.clone(), self.common.clone());
            sim.host(host(number), move || {
                let (node, common) = (node.clone(), common.clone());
                async move { Ok(run(number, &node, common).await?) }
            });
        }
    }

    /// The numbers of those that run.
    pub(super) fn running(&self) -> Vec<Machine> {
        let runs = |node: &Node| node.store.borrow().is_some();
        self.all.iter().filter(|(_, node)| runs(node)).map(|(number, _)| *number).collect()
    }

    pub(super) fn leader(&self) -> Option<Machine> {
        let leads = |node: &Node| {
            let store = node.store.borrow();
            store
                .as_ref()
                .map(Store::status)
                .filter(|status| status.leads)
                .map(|status| status.term)
        };
        let leading = self.all.iter().filter_map(|(number, node)| Some((leads(node)?, *number)));
        leading.max().map(|(_, number)| number)
    }

    pub(super) fn store(&self, machine: Machine) -> Option<Store> {
        self.all[&machine].store.borrow().clone()
    }

    /// What the cluster calls the node on a machine.
    pub(super) fn id(&self, machine: Machine) -> NodeId {
        self.common.ids.borrow()[&machine]
    }

    pub(super) fn ask(&self, machine: Machine, what: Ask) {
        self.all[&machine].asked.replace(Some(what));
    }

    /// Names who is to vote: these machines, or all.
    pub(super) fn let_vote(&self, machines: &[Machine]) {
        self.common.voters.replace(machines.iter().map(|machine| self.id(*machine)).collect());
    }

    /// A node's process ends where it is; with `power` gone too, some of what was not synced is lost.
    pub(super) fn crash(&self, sim: &mut Sim<'static>, number: Machine, power: bool) -> usize {
        let node = &self.all[&number];
        // Before its world goes: what is still under way is dropped in it.
        node.store.take();
        node.seen.set(None);
        sim.crash(host(number));
        if power {
            return node.disk.lose_power(|written| fastrand::usize(0..=written));
        }
        node.disk.sync();
        0
    }

    pub(super) fn start(&self, sim: &mut Sim<'static>, number: Machine) {
        sim.bounce(host(number));
    }

    pub(super) fn all_are_up(&self) -> bool {
        let is_up = |node: &Node| {
            let store = node.store.borrow();
            store.as_ref().is_some_and(|store| store.view().state.cluster.is_some())
        };
        let votes = |leader: Machine| {
            self.store(leader).is_some_and(|store| store.status().voters.len() == self.all.len())
        };
        self.all.values().all(|node| is_up(node)) && self.leader().is_some_and(votes)
    }

    /// Clients end what they do.
    pub(super) fn stop(&self) {
        self.common.is_over.set(true);
    }

    /// Whether all nodes hold the same, and nobody asks for anything any more.
    pub(super) fn agree(&self) -> bool {
        let held = |node: &Node| {
            let store = node.store.borrow();
            let view = store.as_ref()?.view();
            Some((view.at, view.chain()))
        };
        let mut all = self.all.values().map(|node| held(node));
        let first = all.next().flatten();
        first.is_some() && all.all(|held| held == first) && self.common.resource.is_idle()
    }

    /// Looks at all of them, and whether what one holds fits what any ever held.
    pub(super) fn look(&self, trace: &Trace) {
        for (number, node) in &self.all {
            let Some(store) = node.store.borrow().clone() else { continue };
            let status = store.status();
            if status.leads {
                let (term, id) = (status.term, self.id(*number));
                let mut leaders = self.leaders.borrow_mut();
                if leaders.insert((term, id)) {
                    trace.note(&format!("n{number} leads in term {term}"));
                    if let Some((_, later)) =
                        leaders.range((term, id)..).nth(1).filter(|it| it.0 == term)
                    {
                        let what = format!("node {id} leads in term {term} after node {later}");
                        self.complain("leaders", &host(*number), what);
                    }
                }
            }
            let view = store.view();
            let Some(at) = view.at else { continue };
            if node.seen.replace(Some((at.index, at.term))) == Some((at.index, at.term)) {
                continue;
            }
            trace.note(&format!("n{number} applied {}.{} {}", at.term, at.index, view.chain()));
            let held = (at.term, view.chain());
            let known = *self.applied.borrow_mut().entry(at.index).or_insert(held);
            if known != held {
                let what = format!("entry {} is {held:?}, and was {known:?}", at.index);
                self.complain("history", &host(*number), what);
            }
        }
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        self.violations.borrow().clone()
    }

    pub(super) fn elections(&self) -> usize {
        self.leaders.borrow().len()
    }

    fn complain(&self, model: &'static str, key: &str, what: String) {
        let mut violations = self.violations.borrow_mut();
        // What has gone apart is seen at every look.
        if violations.len() < 100 {
            violations.push(Violation { model, key: key.to_owned(), what });
        }
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, node) in &self.all {
            match &*node.store.borrow() {
                Some(store) => {
                    let status = store.status();
                    let (term, applied) = (status.term, status.applied_index.unwrap_or_default());
                    write!(f, "n{number} in term {term} at {applied}; ")?;
                }
                None => write!(f, "n{number} does not run; ")?,
            }
        }
        Ok(())
    }
}
