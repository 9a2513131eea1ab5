//! Many changes over one stream.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::stream;
use prost::Message;
use proto::v1::{
    self, changes_client::ChangesClient, make_changes_request::Change,
    make_changes_response::Answer,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tonic::{Code, Status, Streaming};

use crate::{Client, Error, error::is_worth_another_try, pauses};

/// Changes that are on their way at a time; a node decides as many at a time.
const WINDOW: usize = 256;
/// What a node takes in one message, bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A stream on which changes go, each for whoever asks, as many at a time as there are. It is opened when it is needed,
/// and anew, on another node, when it broke: a change carries its request id and is sent again.
#[derive(Clone)]
pub struct Changes {
    client: Client,
    open: Arc<Mutex<Option<Open>>>,
}

/// A stream that is open, as far as is known.
#[derive(Clone)]
struct Open {
    /// Of the node that is asked.
    number: usize,
    ids: Arc<AtomicU64>,
    sender: mpsc::Sender<v1::MakeChangesRequest>,
    waiting: Waiting,
}

/// Who waits for an answer; none any more when the stream has ended.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Answer, Status>>>>>>;

impl Client {
    /// A stream for changes.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes { client: self.clone(), open: Arc::default() }
    }
}

impl Changes {
    /// Has one made, and waits until it is decided. The change is to carry a mutation of [`Client::mutation`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn make(&self, change: Change) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.client.deadline;
        let mut pauses = pauses();
        loop {
            let open = self.open();
            let attempt = tokio::time::timeout_at(deadline, open.ask(change.clone())).await;
            let late = || Status::deadline_exceeded("no answer in time");
            let status = match attempt.unwrap_or_else(|_| Err(late())) {
                Ok(Answer::Refusal(refusal)) => {
                    let v1::Refusal { code, message, details } = refusal;
                    Status::with_details(Code::from(code), message, details.into())
                }
                Ok(answer) => return Ok(answer),
                Err(broken) => broken,
            };
            if !is_worth_another_try(&status) {
                return Err(Error::Refused(Box::new(status)));
            }
            self.give_up(open.number);
            let next = Instant::now() + pauses.next().unwrap_or_default();
            if next >= deadline {
                return Err(Error::Unreachable(Box::new(status)));
            }
            tokio::time::sleep_until(next).await;
        }
    }

    fn open(&self) -> Open {
        let mut open = lock(&self.open);
        if let Some(open) = open.as_ref().filter(|open| !open.sender.is_closed()) {
            return open.clone();
        }
        let (sender, receiver) = mpsc::channel(WINDOW);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let number = self.client.current();
        let opened = Open { number, ids: Arc::default(), sender, waiting: waiting.clone() };
        let asked = stream::unfold(receiver, async |mut receiver| {
            let next = receiver.recv().await?;
            Some((next, receiver))
        });
        let (channel, request) = (self.client.channel(number), self.client.stream_request(asked));
        tokio::spawn(async move {
            let ended = match ChangesClient::new(channel).make_changes(request).await {
                Ok(answers) => hear(answers.into_inner(), &waiting).await,
                Err(refused) => refused,
            };
            for (_, tell) in lock(&waiting).take().into_iter().flatten() {
                let _ = tell.send(Err(ended.clone()));
            }
        });
        open.insert(opened).clone()
    }

    /// Another node is asked from now on, unless somebody has seen to that.
    fn give_up(&self, number: usize) {
        let mut open = lock(&self.open);
        if open.as_ref().is_some_and(|open| open.number == number) {
            *open = None;
            self.client.move_on(number);
        }
    }
}

impl Open {
    async fn ask(&self, change: Change) -> Result<Answer, Status> {
        let broken = || Status::unavailable("the stream of changes broke");
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let asked = v1::MakeChangesRequest { id, change: Some(change) };
        let bytes = asked.encoded_len();
        if bytes > MESSAGE_BYTES_MAX {
            let message =
                format!("the change takes {bytes} bytes; at most {MESSAGE_BYTES_MAX} are taken");
            return Err(Status::invalid_argument(message));
        }
        let place = self.sender.reserve().await.map_err(|_| broken())?;
        let (tell, answer) = oneshot::channel();
        lock(&self.waiting).as_mut().ok_or_else(broken)?.insert(id, tell);
        place.send(asked);
        answer.await.unwrap_or_else(|_| Err(broken()))
    }
}

/// Hands on what comes, and says how it ended.
async fn hear(mut answers: Streaming<v1::MakeChangesResponse>, waiting: &Waiting) -> Status {
    loop {
        let v1::MakeChangesResponse { id, answer } = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Status::unavailable("the stream of changes ended"),
            // What came of those without an answer is not known, whatever it broke of.
            Err(status) => return Status::unavailable(status.message().to_owned()),
        };
        let tell = lock(waiting).as_mut().and_then(|waiting| waiting.remove(&id));
        if let (Some(tell), Some(answer)) = (tell, answer) {
            // Whoever asked may have gone.
            let _ = tell.send(Ok(answer));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
