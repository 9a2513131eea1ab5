//! Many changes over one call: each is what the call of its name is, without a call's cost.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use domain::principal::Role;
use futures_util::{Stream, StreamExt};
use proto::{
    v1,
    v1::{
        changes_server::Changes, locks_server::Locks, make_changes_request::Change,
        make_changes_response::Answer, vms_server::Vms,
    },
};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpConnectInfo};

use super::{
    Api, auth, errors,
    measure::{Asked, STREAM, Series},
};

/// Changes of one stream that are decided at a time.
const AT_A_TIME: usize = 256;

#[tonic::async_trait]
impl Changes for Api {
    type MakeChangesStream =
        Pin<Box<dyn Stream<Item = Result<v1::MakeChangesResponse, Status>> + Send>>;

    async fn make_changes(
        &self,
        request: Request<Streaming<v1::MakeChangesRequest>>,
    ) -> Result<Response<Self::MakeChangesStream>, Status> {
        let caller = auth::caller(Role::Operator)?;
        let connection = request.extensions().get::<TcpConnectInfo>();
        let address = connection.and_then(TcpConnectInfo::remote_addr).map(|it| it.ip());
        let busy =
            |_| Status::resource_exhausted("the node has as many streams of changes as it may");
        let turn = Arc::new(self.streams.clone().try_acquire_owned().map_err(busy)?);
        let limits = self.limits.clone();
        // One message waits for its turn, and those after it have not been read.
        let asked = request.into_inner().then(move |asked| {
            let limits = limits.clone();
            async move {
                if let Some(address) = address {
                    limits.wait(address).await;
                }
                asked
            }
        });
        let api = self.clone();
        let answers = asked.map(move |asked| {
            let (api, caller, turn) = (api.clone(), caller.clone(), turn.clone());
            async move {
                let _turn = turn;
                let v1::MakeChangesRequest { id, change } = asked?;
                let answer = api.make_one(caller, change).await;
                let answer = answer.unwrap_or_else(|status| Answer::Refusal(refusal(&status)));
                Ok(v1::MakeChangesResponse { id, answer: Some(answer) })
            }
        });
        Ok(Response::new(Box::pin(answers.buffer_unordered(AT_A_TIME))))
    }
}

impl Api {
    /// One of them, in its caller's name: what holds for a call holds for it.
    async fn make_one(
        &self,
        caller: auth::Caller,
        change: Option<Change>,
    ) -> Result<Answer, Status> {
        let change = change.ok_or_else(|| {
            errors::rejected(proto::convert::invalid("change", "say which change is to be made"))
        })?;
        let caller = auth::renewed(&self.store, caller)?;
        let method = method(&change);
        let series = SERIES.get(method).cloned().unwrap_or_else(|| Series::new(STREAM, method));
        let (place, mut asked) = Asked::begin(series, None, None);
        let made = telemetry::trace::within(place, auth::scope(caller, self.make(change)));
        let made = made.await;
        asked.ends(made.as_ref().err().map(Status::code));
        made
    }

    async fn make(&self, change: Change) -> Result<Answer, Status> {
        let outcome = match change {
            Change::CreateVm(asked) => self.create_vm(Request::new(asked)).await,
            Change::UpdateVm(asked) => self.update_vm(Request::new(asked)).await,
            Change::DeleteVm(asked) => self.delete_vm(Request::new(asked)).await,
            Change::StartVm(asked) => self.start_vm(Request::new(asked)).await,
            Change::StopVm(asked) => self.stop_vm(Request::new(asked)).await,
            Change::RebootVm(asked) => self.reboot_vm(Request::new(asked)).await,
            Change::PauseVm(asked) => self.pause_vm(Request::new(asked)).await,
            Change::ResumeVm(asked) => self.resume_vm(Request::new(asked)).await,
            Change::MigrateVm(asked) => self.migrate_vm(Request::new(asked)).await,
            Change::RenewLock(asked) => self.renew_lock(Request::new(asked)).await,
            Change::ReleaseLock(asked) => self.release_lock(Request::new(asked)).await,
            Change::AcquireLock(asked) => {
                // One that waited would be in the way of the release that it waits for.
                return Ok(Answer::Lock(self.acquire(asked, Duration::ZERO).await?));
            }
        };
        Ok(Answer::Outcome(outcome?.into_inner()))
    }
}

/// What of each method is counted.
static SERIES: LazyLock<HashMap<&'static str, Arc<Series>>> =
    LazyLock::new(|| METHODS.iter().map(|method| (*method, Series::new(STREAM, method))).collect());

const METHODS: [&str; 12] = [
    "Vms/CreateVm",
    "Vms/UpdateVm",
    "Vms/DeleteVm",
    "Vms/StartVm",
    "Vms/StopVm",
    "Vms/RebootVm",
    "Vms/PauseVm",
    "Vms/ResumeVm",
    "Vms/MigrateVm",
    "Locks/AcquireLock",
    "Locks/RenewLock",
    "Locks/ReleaseLock",
];

/// The call that does the same.
fn method(change: &Change) -> &'static str {
    let [
        create,
        update,
        delete,
        start,
        stop,
        reboot,
        pause,
        resume,
        migrate,
        acquire,
        renew,
        release,
    ] = METHODS;
    match change {
        Change::CreateVm(_) => create,
        Change::UpdateVm(_) => update,
        Change::DeleteVm(_) => delete,
        Change::StartVm(_) => start,
        Change::StopVm(_) => stop,
        Change::RebootVm(_) => reboot,
        Change::PauseVm(_) => pause,
        Change::ResumeVm(_) => resume,
        Change::MigrateVm(_) => migrate,
        Change::AcquireLock(_) => acquire,
        Change::RenewLock(_) => renew,
        Change::ReleaseLock(_) => release,
    }
}

fn refusal(status: &Status) -> v1::Refusal {
    v1::Refusal {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: status.details().to_vec(),
    }
}
