//! A watch that resumes: nothing is missed and nothing comes twice, whichever node answers.

use std::time::Duration;

use proto::v1;
use tonic::Streaming;

use crate::{Client, Error};

/// A server that is silent for longer than this is gone: it sends a bookmark every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A watch.
pub struct Watch {
    client: Client,
    request: v1::WatchRequest,
    stream: Option<Streaming<v1::WatchResponse>>,
}

impl Watch {
    pub(crate) fn new(client: Client, request: v1::WatchRequest) -> Watch {
        Watch { client, request, stream: None }
    }

    /// The next event.
    ///
    /// # Errors
    /// [`Error::Refused`] with `OUT_OF_RANGE` when events are gone: list again and watch from the
    /// list's revision.
    pub async fn next(&mut self) -> Result<v1::Event, Error> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let opened = self.client.open_watch(self.request.clone()).await?;
                    self.stream.insert(opened)
                }
            };
            let Ok(message) = tokio::time::timeout(SILENCE_MAX, stream.message()).await else {
                self.stream = None;
                continue;
            };
            match message {
                Ok(Some(v1::WatchResponse { event: Some(event), .. })) => {
                    self.request.since_revision = event.revision;
                    self.client.note(event.revision);
                    return Ok(event);
                }
                Ok(Some(v1::WatchResponse { event: None, bookmark })) => {
                    self.request.since_revision = self.request.since_revision.max(bookmark);
                }
                Ok(None) => self.stream = None,
                Err(status)
                    if status.code() == tonic::Code::OutOfRange
                        || status.code() == tonic::Code::Unauthenticated =>
                {
                    return Err(Error::Refused(Box::new(status)));
                }
                Err(_) => self.stream = None,
            }
        }
    }
}
