//! What would come of VMs being made or changed: the law decides it on a copy of the state, and the planner
//! places what came of it. Nothing is proposed.

use std::collections::BTreeMap;

use domain::{
    State,
    envelope::{Command, Envelope},
    id::VmId,
    name::Name,
    principal::{Principal, Role},
    rejected::Rejected,
    vm::{FIELDS, SpecPatch, Takes, VmCommand, VmSpec},
};
use proto::{convert, v1};
use tonic::Status;

use super::{Api, auth, change::mint, errors};

/// Most VMs in one plan.
const VMS_MAX: usize = 1_000;

/// The copy, and what was decided on it.
struct Plan {
    state: State,
    author: Principal,
    rows: Vec<v1::PlannedVm>,
    /// The rows by VM.
    places: BTreeMap<VmId, usize>,
}

impl Api {
    pub(super) async fn plan(
        &self,
        message: v1::PlanVmsRequest,
    ) -> Result<v1::PlanVmsResponse, Status> {
        let caller = auth::caller(Role::Operator)?;
        if message.vms.len() > VMS_MAX {
            let rejected = convert::invalid("vms", format!("must be at most {VMS_MAX}"));
            return Err(errors::rejected(rejected));
        }
        let view = self.view(message.freshness.as_ref()).await?;
        let revision = view.revision().as_u64();
        let (state, author) = (view.state.clone(), caller.principal);
        let planned = tokio::task::spawn_blocking(move || {
            let mut plan = Plan { state, author, rows: Vec::new(), places: BTreeMap::new() };
            for (index, wanted) in message.vms.into_iter().enumerate() {
                plan.decide(index, wanted);
            }
            plan.place();
            plan.rows
        });
        let vms = planned.await.map_err(|_| Status::internal("the plan broke off"))?;
        Ok(v1::PlanVmsResponse { vms, revision })
    }
}

impl Plan {
    fn decide(&mut self, index: usize, wanted: v1::WantedVm) {
        let mut row = v1::PlannedVm {
            project: if wanted.project.is_empty() { "default".to_owned() } else { wanted.project },
            name: wanted.name,
            ..Default::default()
        };
        let read = || -> Result<(Name, Name, VmSpec), Rejected> {
            let project = convert::name("project", &row.project)?;
            let name = convert::name("name", &row.name)?;
            Ok((project, name, convert::vm::read_spec(wanted.spec)?))
        };
        let decided = read().and_then(|(project, name, spec)| {
            let Some(vm) = self.state.vm_named(&project, &name).cloned() else {
                let (vm, operation) = (mint(), mint());
                let create = VmCommand::Create {
                    vm,
                    project,
                    name,
                    spec: Box::new(spec),
                    start: true,
                    operation,
                };
                self.apply(create)?;
                "create".clone_into(&mut row.action);
                return Ok(vm);
            };
            let changed: Vec<_> =
                FIELDS.iter().filter(|(_, _, differs)| differs(&vm.spec, &spec)).collect();
            row.fields = changed.iter().map(|(field, ..)| (*field).to_owned()).collect();
            let waits = changed.iter().any(|(_, takes, _)| *takes == Takes::NextStart);
            row.takes = match (changed.is_empty(), waits) {
                (true, _) => String::new(),
                (false, true) => "next_start".to_owned(),
                (false, false) => "live".to_owned(),
            };
            let action = if changed.is_empty() { "unchanged" } else { "update" };
            action.clone_into(&mut row.action);
            let patch = SpecPatch { whole: Some(Box::new(spec)), ..SpecPatch::default() };
            self.apply(VmCommand::Update { vm: vm.id, patch: Box::new(patch), etag: None })?;
            Ok(vm.id)
        });
        match decided {
            Ok(vm) => drop(self.places.insert(vm, index)),
            Err(rejected) => {
                "refused".clone_into(&mut row.action);
                row.takes = String::new();
                row.message = rejected.message;
            }
        }
        self.rows.push(row);
    }

    /// The law, on the copy.
    fn apply(&mut self, command: VmCommand) -> Result<(), Rejected> {
        let envelope = Envelope {
            at_ms: self.state.now_ms,
            wall_ms: crate::clock::wall_ms(),
            principal: self.author.clone(),
            request: None,
            trace: None,
            command: Command::Vm(command),
        };
        let applied = self.state.apply(self.state.index + 1, envelope);
        self.state = applied.state;
        applied.reply.map(drop)
    }

    /// Where each is, or would be.
    fn place(&mut self) {
        let placement = planner::place::place(&self.state, usize::MAX);
        let planned: BTreeMap<_, _> = placement.placed.into_iter().collect();
        for (vm, index) in &self.places {
            let row = &mut self.rows[*index];
            let here = self.state.instance_of(*vm).map(|body| body.host);
            let host = here.or_else(|| planned.get(vm).copied());
            let host = host.and_then(|host| self.state.hosts.get(&host));
            row.host = host.map(|host| host.name.to_string()).unwrap_or_default();
            if let Some(reason) = placement.unplaceable.get(vm) {
                row.message = reason.to_string();
            }
        }
    }
}
