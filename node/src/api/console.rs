//! Guests' serial consoles: what they wrote, and typing at them.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{State, id::VmId, instance::Instance, principal::Role};
use futures_util::{Stream, StreamExt};
use proto::{
    v1,
    v1::{consoles_client::ConsolesClient, consoles_server::Consoles, vms_client::VmsClient},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Api, auth,
    change::not_found,
    errors, project,
    relay::{Driven, pass_on, within},
    vm,
};

const BYTES_DEFAULT: u32 = 64 << 10;
const BYTES_MAX: u32 = 1 << 20;
/// Between two looks at whether who is attached may still be.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the first message is waited for.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);

/// The consoles that somebody is attached to.
#[derive(Clone, Default)]
pub(crate) struct Attached(Arc<Mutex<BTreeSet<VmId>>>);

/// One of them; given back when dropped.
struct Place {
    attached: Attached,
    vm: VmId,
}

impl Attached {
    fn take(&self, vm: VmId) -> Result<Place, Status> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(vm) {
            return Err(Status::failed_precondition("somebody else is attached to the console"));
        }
        Ok(Place { attached: self.clone(), vm })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.attached.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.vm);
    }
}

/// The body of the VM that a request names; `None` when it has none at present.
pub(super) fn body<'a>(
    state: &'a State,
    project_text: &str,
    name: &str,
) -> Result<Option<&'a Instance>, Status> {
    let project = project(project_text)?;
    let row = vm(state, &project, name).ok_or_else(|| errors::rejected(not_found("VM", name)))?;
    Ok(state.instance_of(row.id).map(|body| &**body))
}

impl Api {
    pub(super) async fn console_log(
        &self,
        request: Request<v1::GetConsoleLogRequest>,
    ) -> Result<Response<v1::ConsoleLog>, Status> {
        let message = request.get_ref();
        let view = self.view(None).await?;
        let Some(body) = body(&view.state, &message.project, &message.vm)? else {
            return Ok(Response::new(v1::ConsoleLog::default()));
        };
        let host = match self.driven(&view.state, body.host, request.metadata())? {
            Driven::Here(host) => host,
            Driven::There(node) => {
                return pass_on!(node, VmsClient<_>, get_console_log, request);
            }
        };
        let bytes_max = match message.bytes_max {
            0 => BYTES_DEFAULT,
            bytes => bytes.min(BYTES_MAX),
        };
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let read = host.driver.console_log(body.vm, message.offset, bytes_max);
        let (bytes, next_offset) = within(read).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Response::new(v1::ConsoleLog { text, next_offset }))
    }
}

type Typed = Streaming<v1::AttachConsoleRequest>;
type Shown = Pin<Box<dyn Stream<Item = Result<v1::AttachConsoleResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Consoles for Api {
    type AttachConsoleStream = Shown;

    async fn attach_console(&self, request: Request<Typed>) -> Result<Response<Shown>, Status> {
        let caller = auth::caller(Role::Operator)?;
        let (metadata, _, mut typed) = request.into_parts();
        let first = tokio::time::timeout(FIRST_TIMEOUT, typed.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no console was named"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("no console was named"))?;
        let view = self.view(None).await?;
        let body = body(&view.state, &first.project, &first.vm)?;
        let body = body.ok_or_else(|| Status::failed_precondition("the VM does not run"))?;
        let host = match self.driven(&view.state, body.host, &metadata)? {
            Driven::Here(host) => host,
            Driven::There(node) => {
                let first = futures_util::stream::once(std::future::ready(first));
                // A message that cannot be read ends what is typed.
                let typed = typed.scan((), |(), message| std::future::ready(message.ok()));
                let (channel, request) = node.stream(first.chain(typed));
                let shown = ConsolesClient::new(channel).attach_console(request).await?;
                return Ok(Response::new(Box::pin(shown.into_inner())));
            }
        };
        let place = self.attached.take(body.vm)?;
        let socket = within(host.driver.console_socket(body.vm)).await?;
        let guest = UnixStream::connect(&socket).await;
        let guest = guest.map_err(|error| {
            Status::failed_precondition(format!("the console cannot be reached: {error}"))
        })?;
        let (shown, answers) = tokio::sync::mpsc::channel(16);
        let store = self.store.clone();
        tokio::spawn(async move {
            let valid = async {
                while auth::is_still_valid(&store, &caller) {
                    tokio::time::sleep(CHECK_INTERVAL).await;
                }
            };
            // Whoever ends first ends it: the guest, the one who types, or the credential.
            let revoked = tokio::select! {
                () = carry(guest, typed, &shown) => false,
                () = valid => true,
                () = shown.closed() => false,
            };
            drop(place);
            if revoked {
                // Who does not read is not waited for.
                let gone = errors::unauthenticated("the credential is not valid any more");
                let _ = shown.try_send(Err(gone));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

type Answers = tokio::sync::mpsc::Sender<Result<v1::AttachConsoleResponse, Status>>;

/// Carries what is typed to the guest and what it writes back, until one of them ends.
async fn carry(guest: UnixStream, mut typed: Typed, shown: &Answers) {
    let (mut from, mut to) = guest.into_split();
    let show = async {
        let mut data = Vec::new();
        loop {
            let answer = v1::AttachConsoleResponse { data: std::mem::take(&mut data) };
            if shown.send(Ok(answer)).await.is_err() {
                return;
            }
            data.reserve(16 << 10);
            if !from.read_buf(&mut data).await.is_ok_and(|count| count > 0) {
                return;
            }
        }
    };
    let carry = async {
        while let Ok(Some(message)) = typed.message().await {
            if to.write_all(&message.data).await.is_err() {
                return;
            }
        }
        // Nobody types any more; what the guest answers is still wanted.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = show => {}
        () = carry => {}
    }
}
