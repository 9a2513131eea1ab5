//! Drivers that do what a script says with the calls of one VM, or with the questions to one host: fail,
//! lose an answer, call twice, panic, stand still. What is below them is the simulator.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actors::LocalHost;
use domain::{
    Fence,
    id::{PoolId, VmId},
    instance::{Body, Landing},
    name::Name,
    operation::Progress,
};
use drivers::{
    Departure, Driver, DriverError, ErrorKind, Foreign, Inventory, Migration, Observation, Order,
    Usage, simulator::Call,
};
use tokio::sync::{broadcast, watch};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing in particular.
    None,
    /// It fails before it does anything, in a way that may pass.
    Fails,
    /// It does what it should, and the answer is lost.
    AnswerLost,
    /// It is made twice, and so is every later one.
    Twice,
    /// Who made it panics.
    Panics,
    /// It does not return before it may.
    Holds,
}

/// What is to happen to one VM's calls, or to one host's questions.
struct Plan {
    /// Which call is struck, counted from 0.
    at: usize,
    fault: Fault,
    /// What becomes of those before it.
    before: Fault,
    /// One more that is.
    next: Option<(usize, Fault)>,
    /// Their names.
    calls: Vec<String>,
}

/// The scripts of all hosts.
pub struct Script {
    plans: Mutex<BTreeMap<String, Plan>>,
    names: Mutex<BTreeMap<VmId, String>>,
    /// The drivers that are below, by host; a host that starts again has a new one.
    below: Mutex<BTreeMap<String, Arc<dyn Driver>>>,
    open: watch::Sender<bool>,
}

impl Script {
    pub fn new() -> Arc<Script> {
        Arc::new(Script {
            plans: Mutex::default(),
            names: Mutex::default(),
            below: Mutex::default(),
            open: watch::channel(true).0,
        })
    }

    /// Puts a scripted driver over a host's own.
    pub fn wrap(self: &Arc<Script>, host: &mut LocalHost) {
        let below = host.driver.clone();
        self.below.lock().unwrap().insert(host.name.to_string(), below.clone());
        let name = host.name.to_string();
        host.driver = Arc::new(Scripted { script: self.clone(), host: name, below });
    }

    /// From now on the VM's calls are counted, and the one numbered `at` is struck.
    pub fn arm(&self, vm: &str, at: usize, fault: Fault) {
        self.arm_after(vm, at, fault, Fault::None);
    }

    /// The same for a VM, or for what a host is asked, and the calls before it are struck too.
    pub fn arm_after(&self, whose: &str, at: usize, fault: Fault, before: Fault) {
        let plan = Plan { at, fault, before, next: None, calls: Vec::new() };
        self.plans.lock().unwrap().insert(whose.to_owned(), plan);
    }

    /// The next call of a VM that is being struck is struck too.
    pub fn add(&self, vm: &str, fault: Fault) {
        if let Some(plan) = self.plans.lock().unwrap().get_mut(vm) {
            plan.next = Some((plan.calls.len(), fault));
        }
    }

    /// The calls since then.
    pub fn calls(&self, vm: &str) -> Vec<String> {
        self.plans.lock().unwrap().get(vm).map(|plan| plan.calls.clone()).unwrap_or_default()
    }

    /// The call that was struck, once it was.
    pub fn struck(&self, vm: &str) -> Option<String> {
        self.plans.lock().unwrap().get(vm).and_then(|plan| plan.calls.get(plan.at).cloned())
    }

    /// Calls that are held stand still, until [`Script::release`].
    pub fn hold(&self) {
        self.open.send_replace(false);
    }

    async fn wait(&self) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }

    pub fn release(&self) {
        self.open.send_replace(true);
    }

    /// A host is off: nothing is on it.
    pub fn forget(&self, host: &str) {
        self.below.lock().unwrap().remove(host);
    }

    /// What hosts really have of a VM.
    pub async fn bodies(&self, vm: &str) -> BTreeMap<String, Body> {
        let names = self.names.lock().unwrap().clone();
        let ids = names.into_iter().filter(|(_, name)| name == vm).map(|(id, _)| id);
        let below = self.below.lock().unwrap().clone();
        let mut bodies = BTreeMap::new();
        for id in ids {
            for (host, driver) in &below {
                let seen = driver.observe(id).await.unwrap().body;
                if seen != Body::Absent {
                    bodies.insert(host.clone(), seen);
                }
            }
        }
        bodies
    }

    /// Notes a VM's call; the answer is what becomes of it.
    fn strike(&self, vm: VmId, call: Call) -> Fault {
        let name = self.names.lock().unwrap().get(&vm).cloned();
        let call = format!("{call:?}").to_lowercase();
        name.map_or(Fault::None, |name| self.strike_what(&name, call))
    }

    fn strike_what(&self, whose: &str, call: String) -> Fault {
        let mut plans = self.plans.lock().unwrap();
        let Some(plan) = plans.get_mut(whose) else { return Fault::None };
        let number = plan.calls.len();
        plan.calls.push(call);
        if number < plan.at {
            return plan.before;
        }
        let strikes =
            |at: usize, fault: Fault| number == at || (fault == Fault::Twice && number > at);
        if strikes(plan.at, plan.fault) {
            return plan.fault;
        }
        match plan.next {
            Some((at, fault)) if strikes(at, fault) => fault,
            Some(_) | None => Fault::None,
        }
    }

    fn meet(&self, order: &Order) {
        self.names.lock().unwrap().insert(order.vm, order.name.to_string());
    }
}

struct Scripted {
    script: Arc<Script>,
    /// Its name.
    host: String,
    below: Arc<dyn Driver>,
}

impl Scripted {
    fn moves(&self) -> &dyn Migration {
        self.below.migration().unwrap()
    }
}

/// Makes a VM's call as the script wants it.
macro_rules! call {
    ($self:ident, $vm:expr, $call:expr, $make:expr) => {
        become_of!($self, $self.script.strike($vm, $call), $call, $make)
    };
}

macro_rules! become_of {
    ($self:ident, $fault:expr, $call:expr, $make:expr) => {
        match $fault {
            Fault::None => $make.await,
            Fault::Fails => {
                Err(DriverError::new(ErrorKind::Transient, format!("{:?} fails", $call)))
            }
            Fault::AnswerLost => {
                let _ = $make.await;
                Err(DriverError::new(ErrorKind::Ambiguous, format!("answer of {:?} lost", $call)))
            }
            Fault::Twice => {
                let _ = $make.await;
                $make.await
            }
            // As panic!, but that nobody prints a backtrace: there are a hundred of them.
            Fault::Panics => std::panic::resume_unwind(Box::new("it was to panic")),
            Fault::Holds => {
                $self.script.wait().await;
                $make.await
            }
        }
    };
}

#[tonic::async_trait]
impl Driver for Scripted {
    async fn inventory(&self) -> Result<Inventory, DriverError> {
        let fault = self.script.strike_what(&self.host, "inventory".to_owned());
        become_of!(self, fault, "inventory", self.below.inventory())
    }
    async fn observe(&self, vm: VmId) -> Result<Observation, DriverError> {
        self.below.observe(vm).await
    }
    async fn observe_all(&self) -> Result<Vec<Observation>, DriverError> {
        self.below.observe_all().await
    }
    async fn prepare(&self, order: &Order) -> Result<(), DriverError> {
        self.script.meet(order);
        call!(self, order.vm, Call::Prepare, self.below.prepare(order))
    }
    async fn start(&self, order: &Order) -> Result<(), DriverError> {
        call!(self, order.vm, Call::Start, self.below.start(order))
    }
    async fn shutdown(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self, vm, Call::Shutdown, self.below.shutdown(vm, fence))
    }
    async fn kill(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self, vm, Call::Kill, self.below.kill(vm, fence))
    }
    async fn reboot(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self, vm, Call::Reboot, self.below.reboot(vm, fence))
    }
    async fn pause(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self, vm, Call::Pause, self.below.pause(vm, fence))
    }
    async fn resume(&self, vm: VmId, fence: Fence, lease: Fence) -> Result<(), DriverError> {
        call!(self, vm, Call::Resume, self.below.resume(vm, fence, lease))
    }
    async fn release(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self, vm, Call::Release, self.below.release(vm, fence))
    }
    async fn pools(&self) -> Result<BTreeMap<Name, PoolId>, DriverError> {
        self.below.pools().await
    }
    async fn discard(
        &self,
        vm: VmId,
        fence: Fence,
        pool: &Name,
        identity: PoolId,
    ) -> Result<(), DriverError> {
        call!(self, vm, Call::Discard, self.below.discard(vm, fence, pool, identity))
    }
    fn changes(&self) -> broadcast::Receiver<VmId> {
        self.below.changes()
    }
    async fn console_log(
        &self,
        vm: VmId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), DriverError> {
        self.below.console_log(vm, offset, bytes_max).await
    }
    async fn console_socket(&self, vm: VmId) -> Result<PathBuf, DriverError> {
        self.below.console_socket(vm).await
    }
    async fn usage(&self, vm: VmId) -> Result<Usage, DriverError> {
        self.below.usage(vm).await
    }
    fn migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }
    async fn foreign(&self) -> Result<Vec<Foreign>, DriverError> {
        self.below.foreign().await
    }
}

#[tonic::async_trait]
impl Migration for Scripted {
    async fn receive(&self, order: &Order) -> Result<Landing, DriverError> {
        self.script.meet(order);
        call!(self, order.vm, Call::Receive, self.moves().receive(order))
    }
    async fn send(&self, departure: &Departure) -> Result<(), DriverError> {
        call!(self, departure.vm, Call::Send, self.moves().send(departure))
    }
    async fn abort(&self, vm: VmId, fence: Fence) -> Result<(), DriverError> {
        call!(self, vm, Call::Abort, self.moves().abort(vm, fence))
    }
    async fn progress(&self, vm: VmId) -> Result<Option<Progress>, DriverError> {
        self.moves().progress(vm).await
    }
    async fn answers(&self, vm: VmId) -> Result<Option<bool>, DriverError> {
        self.moves().answers(vm).await
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(90);
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
