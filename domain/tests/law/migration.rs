//! A migration in a world that falls apart: hosts whose calls come late, are lost or repeated, whose
//! guests crash and whose copies end at any moment. Whatever happens, one guest executes at most, none
//! of a VM that is stopped, and the state ends up knowing where.

use novacron_domain::{
    Fence,
    envelope::Command,
    host::{self, Fencing, HostCommand},
    id::{HostId, VmId},
    instance::{
        Action, Body, Ended, Failure, InstanceCommand, Landing, Life, Phase, Place, Report, Role,
    },
    migration_policy::MigrationPolicyCommand,
    operation::{Class, CopyWish, Kind, OperationCommand, Status, Step, Terms, WhenSilent},
    vm::{Failover, VmCommand, VmSpec},
};
use proptest::prelude::*;

use crate::world::{World, grant, id, name, spec};

/// What there really is of the VM on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Real {
    Nothing,
    /// Disks and no guest.
    Disks,
    /// A guest; the number grows with each life of it, and when it goes on without its copy.
    Guest {
        life: u32,
        executes: bool,
    },
    /// A guest of which not all has come.
    Coming,
    /// A guest that has come, and stands still.
    Arrived {
        life: u32,
    },
    /// A guest ended here.
    Ended,
    /// A guest has left, and its disks have not.
    Left,
}

/// A call that a host has made up its mind to make, and has not made.
#[derive(Clone, Debug)]
struct Call {
    action: Action,
    fence: Fence,
    /// The lease under which the host made up its mind.
    lease: Fence,
}

#[derive(Clone, Debug)]
struct Host {
    id: HostId,
    real: Real,
    fence: Fence,
    calls: Vec<Call>,
    /// The lease under which its guard lets guests run.
    held: Option<Fence>,
}

/// Two hosts, a VM, and a copy that may be under way.
struct Machines {
    world: World,
    vm: VmId,
    hosts: [Host; 2],
    /// From which host a copy is under way.
    copying: Option<usize>,
    /// At which host the hypervisor has yet to hear that the guest has arrived.
    ending: Option<usize>,
    lives: u32,
    boots: u32,
    crashes: u32,
    /// Whether the hosts have guards; without, the VM is never made anew elsewhere, though it may be.
    guarded: bool,
    /// Whether the VM is stopped: what is copied are its disks, and no guest ever executes.
    stopped: bool,
    /// The life that executed last.
    last: u32,
    /// At which hosts the guest shows no sign of life.
    silent: [bool; 2],
}

impl Machines {
    /// A VM that runs on the first of two hosts.
    fn new() -> Machines {
        Machines::of(false)
    }

    fn of(guarded: bool) -> Machines {
        let mut world = World::new();
        let vm = id(50);
        world.node(Command::Host(HostCommand::Remove { host: id(3) })).unwrap_err();
        let policy = MigrationPolicyCommand::Set {
            name: name("all"),
            project: None,
            labels: Default::default(),
            terms: Terms { when_silent: WhenSilent::Return, ..Terms::default() },
        };
        world.admin(Command::MigrationPolicy(policy)).unwrap();
        let create = VmCommand::Create {
            vm,
            project: name("default"),
            name: name("vm"),
            spec: Box::new(VmSpec { failover: Failover::Rebuild, ..spec() }),
            start: true,
            operation: id(51),
        };
        world.admin(Command::Vm(create)).unwrap();
        let place = Place { vm, instance: id(52), host: id(1) };
        world.node(Command::Instance(InstanceCommand::Place(vec![place]))).unwrap();
        let host = |n| Host {
            id: id(n),
            real: Real::Nothing,
            fence: Fence::ZERO,
            calls: vec![],
            held: Some(Fence::ZERO),
        };
        let mut machines = Machines {
            world,
            vm,
            hosts: [host(1), host(2)],
            copying: None,
            ending: None,
            lives: 0,
            boots: 0,
            crashes: 0,
            guarded,
            stopped: false,
            last: 0,
            silent: [false; 2],
        };
        machines.calm(40);
        assert_eq!(machines.executing(), [0]);
        machines
    }

    /// A VM that has run on the first of two hosts, and is stopped.
    fn stopped(guarded: bool) -> Machines {
        let mut machines = Machines::of(guarded);
        let stop = VmCommand::Stop { vm: machines.vm, force: true, operation: id(53) };
        machines.world.admin(Command::Vm(stop)).unwrap();
        machines.decide(0);
        machines.act(0, 0, true);
        machines.stopped = true;
        assert!(machines.rests());
        machines
    }

    /// The hosts on which the guest executes.
    fn executing(&self) -> Vec<usize> {
        let runs = |host: &Host| matches!(host.real, Real::Guest { executes: true, .. });
        (0..2).filter(|n| runs(&self.hosts[*n])).collect()
    }

    /// A host makes up its mind.
    fn decide(&mut self, n: usize) {
        let state = &self.world.state;
        let Some(body) = state.body_on(self.vm, self.hosts[n].id) else { return };
        let action = state.next_action(body);
        if !matches!(action, Action::Rest | Action::Wait(_)) && self.hosts[n].calls.len() < 3 {
            let lease = state.hosts[&self.hosts[n].id].fence;
            self.hosts[n].calls.push(Call { action, fence: body.fence, lease });
        }
    }

    /// A host makes one of its calls, maybe much too late, and reports what it sees.
    fn act(&mut self, n: usize, pick: usize, heard: bool) {
        if self.hosts[n].calls.is_empty() {
            return;
        }
        let pick = pick % self.hosts[n].calls.len();
        let call = self.hosts[n].calls.remove(pick);
        let done = self.execute(n, &call);
        if heard {
            self.report(n, done.err(), done.is_ok().then_some(call.action));
        }
    }

    /// What the driver does: it refuses what is older than what it has seen.
    fn execute(&mut self, n: usize, call: &Call) -> Result<(), &'static str> {
        if call.fence < self.hosts[n].fence {
            return Err("fenced");
        }
        self.hosts[n].fence = call.fence;
        let runs = matches!(call.action, Action::Start | Action::Resume);
        if self.guarded && runs && self.hosts[n].held != Some(call.lease) {
            return Err("the lease has run out");
        }
        let real = self.hosts[n].real;
        self.hosts[n].real = match (call.action, real) {
            // The disks of a VM that is stopped are as its guest left them.
            (Action::Prepare, Real::Left) if self.stopped => Real::Ended,
            (Action::Prepare, Real::Nothing | Real::Left) | (Action::Receive, Real::Nothing) => {
                Real::Disks
            }
            (Action::Start, Real::Disks | Real::Ended) => {
                self.boots += 1;
                self.go_on()
            }
            (Action::Resume, Real::Guest { .. }) => self.go_on(),
            (Action::Resume, Real::Arrived { life }) => Real::Guest { life, executes: true },
            (Action::Kill, Real::Guest { .. } | Real::Arrived { .. }) => Real::Ended,
            (Action::Release, _) => Real::Nothing,
            (Action::Send, real) if self.can_be_sent(real) => {
                let target = &mut self.hosts[1 - n];
                match (self.copying, target.real) {
                    (Some(from), _) if from == n => {}
                    _ if self.ending == Some(n) => return Err("the copy is ending"),
                    // A guard ends what comes to its host.
                    (None, Real::Disks) if target.held.is_some() => {
                        target.real = Real::Coming;
                        self.copying = Some(n);
                    }
                    _ => return Err("the target takes nothing"),
                }
                real
            }
            // An abort waits until nothing is on its way; until then it has not happened.
            (Action::Abort, _) if self.ending == Some(n) => return Err("the copy is ending"),
            (Action::Abort, _) if self.copying == Some(n) => {
                self.end_copy(false);
                self.hosts[n].real
            }
            (_, unchanged) => unchanged,
        };
        // A copy whose source or target is gone has failed.
        if let Some(from) = self.copying {
            let source = self.can_be_sent(self.hosts[from].real);
            if !source || self.hosts[1 - from].real != Real::Coming {
                self.end_copy(false);
            }
        }
        self.look();
        Ok(())
    }

    const fn can_be_sent(&self, real: Real) -> bool {
        match real {
            Real::Guest { .. } => !self.stopped,
            Real::Ended => self.stopped,
            Real::Nothing | Real::Disks | Real::Coming | Real::Arrived { .. } | Real::Left => false,
        }
    }

    /// A guest that executes leaves every copy of it behind.
    fn go_on(&mut self) -> Real {
        self.lives += 1;
        Real::Guest { life: self.lives, executes: true }
    }

    /// The copy ends by itself: well, or not.
    fn end_copy(&mut self, well: bool) {
        let Some(from) = self.copying.take() else { return };
        let (source, target) = (self.hosts[from].real, self.hosts[1 - from].real);
        match (source, target, well) {
            (Real::Guest { life, .. }, Real::Coming, true) => {
                self.hosts[1 - from].real = Real::Arrived { life };
                self.hosts[from].real = Real::Guest { life, executes: false };
                self.ending = Some(from);
            }
            (Real::Ended, Real::Coming, true) => {
                self.hosts[1 - from].real = Real::Arrived { life: self.last };
                self.ending = Some(from);
            }
            (_, Real::Coming, _) => self.hosts[1 - from].real = Real::Disks,
            _ => {}
        }
    }

    /// The hypervisor of a source whose guest has arrived ends the guest; or it hears nothing and
    /// lets the guest go on; or it was restarted, knows nothing of it, and leaves it as it is.
    fn end_source(&mut self, hears: u8) {
        let Some(n) = self.ending.take() else { return };
        if !self.can_be_sent(self.hosts[n].real) {
            return;
        }
        self.hosts[n].real = match hears {
            0 if !self.stopped => self.go_on(),
            0 | 1 => self.hosts[n].real,
            _ => Real::Left,
        };
        self.look();
    }

    fn crash(&mut self, n: usize) {
        match self.hosts[n].real {
            Real::Guest { .. } | Real::Arrived { .. } => {
                self.hosts[n].real = Real::Ended;
                self.crashes += 1;
                self.end_copy(false);
                self.ending = self.ending.filter(|ending| *ending != n);
            }
            // What was there to send the disks ends.
            Real::Ended if self.copying == Some(n) => self.end_copy(false),
            Real::Ended => self.ending = self.ending.filter(|ending| *ending != n),
            Real::Coming if self.guarded => self.end_copy(false),
            Real::Nothing | Real::Disks | Real::Coming | Real::Left => {}
        }
    }

    fn report(&mut self, n: usize, failure: Option<&str>, done: Option<Action>) {
        let host = &self.hosts[n];
        let Some(row) = self.world.state.body_on(self.vm, host.id).cloned() else { return };
        // What was done under an older fence proves nothing.
        let done = done.filter(|_| host.fence == row.fence);
        let executes = matches!(host.real, Real::Guest { executes: true, .. });
        let report = Report {
            instance: row.id,
            fence: row.fence,
            body: match host.real {
                Real::Nothing => Body::Absent,
                Real::Disks => Body::Ready,
                Real::Guest { executes: true, .. } => Body::Running,
                Real::Guest { executes: false, .. } => Body::Paused,
                Real::Coming => Body::Incoming,
                Real::Arrived { .. } => Body::Arrived,
                Real::Ended => Body::Stopped(Ended::Crashed),
                Real::Left => Body::Stopped(Ended::Migrated),
            },
            generation: None,
            reboots: 0,
            starts: u32::from(host.real != Real::Nothing && host.real != Real::Disks),
            // Only who has made it ready knows where.
            landing: (done == Some(Action::Receive))
                .then(|| Landing { address: "there".into(), definition: String::new() }),
            progress: None,
            still: done == Some(Action::Abort),
            agent: n == 0,
            life: executes.then_some(if self.silent[n] { Life::Missed } else { Life::Seen }),
            cleared: done == Some(Action::Release),
            failure: failure.map(|message| Failure { permanent: false, message: message.into() }),
        };
        self.world.node(Command::Instance(InstanceCommand::Report(vec![report]))).unwrap();
    }

    /// Never two; and without a crash never another life than the one that executed last.
    fn look(&mut self) {
        let runs = self.executing();
        let most = usize::from(!self.stopped);
        assert!(runs.len() <= most, "{} guests run: {:?}", runs.len(), self.hosts);
        if let [n] = runs[..]
            && let Real::Guest { life, .. } = self.hosts[n].real
        {
            assert!(life >= self.last, "an old guest came back: {life} after {}", self.last);
            self.last = life;
        }
    }

    fn migrate(&mut self, count: u32) {
        let (operation, wish) = (id(1_000 + u128::from(count)), CopyWish::default());
        let command = VmCommand::Migrate { vm: self.vm, to: None, wish, priority: 0, operation };
        if self.world.admin(Command::Vm(command)).is_ok() {
            self.reserve();
        }
    }

    /// What the leader does for a migration that waits.
    fn reserve(&mut self) {
        let state = &self.world.state;
        let waits = state.waiting(Class::Migrations).any(|row| row.vm() == Some(self.vm));
        let Some(body) = state.instance_of(self.vm).filter(|_| waits) else { return };
        let host = if body.host == id(1) { id(2) } else { id(1) };
        let instance = id(2_000 + u128::from(self.world.state.index));
        let place = Place { vm: self.vm, instance, host };
        self.world.node(Command::Instance(InstanceCommand::Reserve(vec![place]))).unwrap();
    }

    /// What a host does with a body that the state does not place there.
    fn sweep(&mut self, n: usize) {
        if self.world.state.body_on(self.vm, self.hosts[n].id).is_none() {
            let fence = self.hosts[n].fence;
            let _ = self.execute(n, &Call { action: Action::Release, fence, lease: Fence::ZERO });
        }
    }

    fn cancel(&mut self) {
        let operation = self.world.state.migration_of(self.vm).map(|(operation, _)| operation.id);
        if let Some(operation) = operation {
            let _ = self.world.admin(Command::Operation(OperationCommand::Cancel { operation }));
        }
    }

    /// The lease of a host lapses; later it is taken up again, with everything as it was.
    fn lapse(&mut self, n: usize) {
        if n == 0 {
            self.world.tick(0);
        }
        let ids = [self.hosts[0].id, self.hosts[1].id];
        let fences = ids.map(|id| (id, self.world.state.hosts[&id].fence));
        self.world.now_ms += 15_000;
        self.world.node(Command::Host(HostCommand::Renew(vec![fences[1 - n]]))).unwrap();
        self.guard(n);
        self.world.tick(15_000);
    }

    /// Time goes by in which nobody hears of anybody.
    fn wait(&mut self) {
        self.guard(0);
        self.guard(1);
        self.world.tick(700_000);
    }

    /// A host's guard, if it has one, ends its guest, and whatever would start one.
    fn guard(&mut self, n: usize) {
        if self.guarded {
            self.hosts[n].held = None;
            self.crash(n);
            // Of a guest that was on its way from there nobody can tell whether it had gone on.
            self.crashes += 1;
        }
    }

    /// What the leader does for a VM whose host is lost.
    fn relocate(&mut self) {
        let index = u128::from(self.world.state.index);
        let rows = vec![(self.vm, id(4_000 + index))];
        self.world.node(Command::Instance(InstanceCommand::Relocate(rows))).unwrap();
        for host in [id(1), id(2)] {
            let place = Place { vm: self.vm, instance: id(5_000 + index), host };
            self.world.node(Command::Instance(InstanceCommand::Place(vec![place]))).unwrap();
        }
    }

    fn take_up(&mut self) {
        for n in 1..=2 {
            self.world.node(grant(n)).unwrap();
            if self.guarded {
                let (host, fencing) = (id(n), Fencing::Guard);
                let fence = self.world.state.hosts[&host].fence;
                let command = HostCommand::Fencing { host, fence, fencing };
                self.world.node(Command::Host(command)).unwrap();
            }
        }
        for host in &mut self.hosts {
            host.held = Some(self.world.state.hosts[&host.id].fence);
        }
    }

    /// Everything works again for a while, in the order of things.
    fn calm(&mut self, rounds: usize) {
        for round in 0..rounds {
            // Each host looks at what it has at least once: the state may rest on what was.
            if round > 0 && self.rests() {
                return;
            }
            self.take_up();
            self.relocate();
            self.reserve();
            for n in 0..2 {
                self.sweep(n);
                self.hosts[n].calls.clear();
                self.decide(n);
                self.act(n, 0, true);
                self.report(n, None, None);
            }
            self.end_copy(true);
            self.end_source(2);
            for n in 0..2 {
                self.report(n, None, None);
            }
            self.world.now_ms += 1_000;
        }
    }

    /// Whether there is nothing left to do.
    fn rests(&self) -> bool {
        let state = &self.world.state;
        let rests = |host: &Host| match state.body_on(self.vm, host.id) {
            Some(body) => body.phase == self.phase() && body.role == Role::Active,
            None => host.real == Real::Nothing,
        };
        state.migration_of(self.vm).is_none()
            && state.hosts.values().take(2).all(|host| host.status == host::Status::Ready)
            && self.hosts.iter().all(rests)
            && self.executing().len() == usize::from(!self.stopped)
    }

    /// What the VM's body is to be.
    const fn phase(&self) -> Phase {
        if self.stopped { Phase::Stopped } else { Phase::Running }
    }

    /// After the calm the state and the machines agree, and one guest executes, or the disks are in one
    /// place and as the guest left them.
    fn assert_whole(&self) {
        let state = &self.world.state;
        let body = state.instance_of(self.vm).unwrap();
        assert_eq!(body.phase, self.phase(), "{body:?}\n{:?}", self.hosts);
        assert!(state.spare_of(self.vm).is_none(), "{:?}", state.spare_of(self.vm));
        let has_it = |host: &Host| match host.real {
            Real::Guest { executes, .. } => executes && !self.stopped,
            Real::Ended => self.stopped,
            Real::Nothing | Real::Disks | Real::Coming | Real::Arrived { .. } | Real::Left => false,
        };
        let at = self.hosts.iter().position(has_it);
        let at = at.unwrap_or_else(|| panic!("it is nowhere: {:?}", self.hosts));
        assert_eq!(self.hosts[at].id, body.host);
        assert_eq!(self.hosts[1 - at].real, Real::Nothing, "something was left behind");
        for row in state.operations.values() {
            // After the switch there is no way back: who misses the deadline there is told so.
            let switched = row.migration.as_ref().is_some_and(|row| row.step.is_past_switch());
            // Nor does one give up to have a lost VM start; its operation only says that it is late.
            let forward = switched || row.kind == Kind::Failover;
            // Nor is a guest that could not be taken back where it began.
            let away = row.migration.as_ref().is_some_and(|row| row.way_back.is_some());
            let over = row.status.is_final() && (row.status != Status::Stuck || forward || away);
            assert!(over, "{row:?}");
        }
    }
}

#[test]
fn a_stopped_vm_moves_with_its_disks() {
    let mut machines = Machines::stopped(false);
    for count in 1..=3 {
        machines.migrate(count);
        machines.calm(20);
        machines.assert_whole();
        assert_eq!(machines.hosts[count as usize % 2].real, Real::Ended);
    }
    let done = machines.world.state.operations.values().filter(|row| row.status == Status::Done);
    assert_eq!(done.count(), 5);
}

#[test]
fn a_migration_keeps_the_guest() {
    let mut machines = Machines::new();
    for count in 1..=3 {
        machines.migrate(count);
        machines.calm(20);
        machines.assert_whole();
        assert_eq!(machines.executing(), [count as usize % 2]);
        assert_eq!(machines.boots, 1, "the guest began anew");
    }
    let done = machines.world.state.operations.values().filter(|row| row.status == Status::Done);
    assert_eq!(done.count(), 4);
}

/// The guest comes to a host where it shows no sign of life, and is taken back; or the way back is cancelled
/// after so many rounds.
#[test]
fn a_silent_guest_is_taken_back() {
    let mut ended = Vec::new();
    for cancelled in [None, Some(4), Some(5), Some(6), Some(7), Some(8)] {
        let mut machines = Machines::new();
        machines.silent[1] = true;
        machines.migrate(1);
        if let Some(rounds) = cancelled {
            machines.calm(rounds);
            machines.cancel();
        }
        machines.calm(20);
        machines.assert_whole();
        assert_eq!(machines.boots, 1, "the guest began anew");
        let status = machines.world.state.operations[&id(1_001)].status;
        match machines.executing()[..] {
            [0] => assert_eq!(status, Status::RolledBack, "{cancelled:?}"),
            [1] => {
                assert_eq!((cancelled.is_some(), status), (true, Status::Stuck), "{cancelled:?}")
            }
            _ => unreachable!(),
        }
        ended.push(status);
        // Somebody looks after it, and has it tried again.
        if status == Status::Stuck {
            let resume = OperationCommand::Resume { operation: id(1_001) };
            machines.world.admin(Command::Operation(resume)).unwrap();
            machines.calm(20);
            machines.assert_whole();
            assert_eq!(machines.executing(), [0]);
        }
    }
    assert!(ended.contains(&Status::Stuck), "the way back was never cancelled: {ended:?}");
}

/// It is stuck between the way there and the way back, and a person has it tried again.
#[test]
fn a_way_back_that_was_stuck_is_taken_up() {
    let mut machines = Machines::new();
    machines.silent[1] = true;
    machines.migrate(1);
    let retires = |machines: &Machines| {
        let migration = machines.world.state.operations[&id(1_001)].migration.as_ref();
        migration.is_some_and(|migration| migration.step == Step::Retire)
    };
    for _ in 0..20 {
        if !retires(&machines) {
            machines.calm(1);
        }
    }
    assert!(retires(&machines));
    machines.silent[1] = false;
    for _ in 0..=10 {
        machines.report(1, Some("it fails"), None);
    }
    assert_eq!(machines.world.state.operations[&id(1_001)].status, Status::Stuck);
    let resume = OperationCommand::Resume { operation: id(1_001) };
    machines.world.admin(Command::Operation(resume)).unwrap();
    machines.calm(20);
    machines.assert_whole();
    assert_eq!(machines.executing(), [0]);
    assert_eq!(machines.world.state.operations[&id(1_001)].status, Status::RolledBack);
}

/// What becomes of a silent guest whose old host takes nobody, and of one that a stronger operation takes over.
#[test]
fn a_silent_guest_stays_where_it_must() {
    let silent = || {
        let mut machines = Machines::new();
        machines.silent[1] = true;
        machines.migrate(1);
        machines
    };
    let mut machines = silent();
    let (host, schedule, operation) = (id(1), host::Schedule::Cordoned, None);
    let cordon = HostCommand::Schedule { host, schedule, operation };
    machines.world.admin(Command::Host(cordon)).unwrap();
    machines.calm(8);
    let row = machines.world.state.operations[&id(1_001)].clone();
    let migration = row.migration.as_ref().unwrap();
    assert_eq!(
        (row.status, migration.step, migration.way_back),
        (Status::Running, Step::Validate, None)
    );
    assert!(machines.world.state.spare_of(machines.vm).is_some(), "its old disks are gone");

    let mut machines = silent();
    while machines.world.state.operations[&id(1_001)].status != Status::Queued
        || machines.executing() != [1]
    {
        machines.calm(1);
        assert!(machines.world.now_ms < 1_000_000, "it never turned back");
    }
    let (vm, operation) = (machines.vm, id(54));
    machines.world.admin(Command::Vm(VmCommand::Stop { vm, force: true, operation })).unwrap();
    assert_eq!(machines.world.state.operations[&id(1_001)].status, Status::Done, "it has moved");
}

/// Every step is cancelled, and every call fails there, once and twice.
#[test]
fn every_step_can_be_undone() {
    for rounds in 0..12 {
        for twice in [false, true] {
            for stopped in [false, true] {
                let mut machines = if stopped { Machines::stopped(false) } else { Machines::new() };
                machines.migrate(1);
                for round in 0..rounds {
                    let n = round % 2;
                    machines.decide(n);
                    machines.act(n, 0, true);
                    if twice {
                        machines.decide(n);
                        machines.act(n, 0, true);
                    }
                }
                machines.cancel();
                machines.calm(20);
                machines.assert_whole();
                assert_eq!(machines.boots, 1, "the guest began anew");
            }
        }
    }
}

/// Lets things befall a VM, one after the other; in the end everything works again.
fn befall(steps: &[(u8, u8)], guarded: bool, stopped: bool) -> Machines {
    let mut machines = if stopped { Machines::stopped(guarded) } else { Machines::of(guarded) };
    for (count, (step, more)) in (1..).zip(steps.iter().copied()) {
        let n = usize::from(more % 2);
        match step {
            0..=7 => machines.decide(n),
            8..=17 => machines.act(n, usize::from(more / 4), more % 8 > 1),
            18..=20 => machines.report(n, None, None),
            21 => machines.end_copy(more % 8 > 1),
            22 | 23 => machines.end_source(more % 4),
            24 | 25 => machines.migrate(count),
            26 => machines.cancel(),
            27 => machines.lapse(n),
            28 | 29 => machines.take_up(),
            30 if more > 200 => machines.crash(n),
            31 if more > 200 => machines.wait(),
            32 | 33 => machines.relocate(),
            34 => machines.silent[n] = more % 4 > 1,
            _ => {}
        }
        machines.look();
    }
    machines.silent = [false; 2];
    machines.calm(60);
    machines.assert_whole();
    machines
}

/// The disks of a stopped VM have left, its host is lost before it tells, and the target is given up: the VM is
/// where it was, and its disks are as they were.
#[test]
fn a_stopped_vm_comes_back_whose_disks_had_left() {
    let (migrate, cut) = ((24, 0), (27, 0));
    let received = [(0, 1), (8, 5)];
    let sent = [(0, 0), (8, 2), (21, 2), (22, 2)];
    let given_up = [(0, 1), (28, 0), (8, 5)];
    let steps = [&[migrate][..], &received, &sent, &[cut], &given_up].concat();
    let machines = befall(&steps, true, true);
    assert_eq!(machines.hosts.each_ref().map(|host| host.real), [Real::Ended, Real::Nothing]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_one_guest_executes(
        steps in prop::collection::vec((0_u8..35, any::<u8>()), 1..120),
        guarded: bool,
        stopped: bool,
    ) {
        let machines = befall(&steps, guarded, stopped);
        if machines.crashes == 0 {
            prop_assert_eq!(machines.boots, 1, "the guest began anew without a crash");
        }
    }
}
