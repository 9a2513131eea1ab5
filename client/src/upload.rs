//! Files that go to the cluster.

use std::{path::PathBuf, time::Duration};

use futures_util::{Stream, stream};
use proto::v1::{self, uploads_client::UploadsClient};
use tokio::{io::AsyncReadExt, sync::watch};
use tonic::Status;

use crate::{Client, Error};

/// Bytes of a message.
const PIECE_BYTES: usize = 256 << 10;
/// Longest time in which nothing is taken.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A file of an image, as it is announced.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where it lies on this machine.
    pub path: PathBuf,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// Its length, bytes.
    pub size_bytes: u64,
}

impl Client {
    /// Gives files to one node, whichever answers; `progress` hears how many bytes more are on their
    /// way. The answer is the node's name, which holds them all.
    ///
    /// # Errors
    /// [`Error::Refused`] with what a node said; [`Error::Unreachable`] when none took them.
    pub async fn upload(
        &self,
        files: &[Upload],
        mut progress: impl FnMut(u64),
    ) -> Result<String, Error> {
        let mut last = Status::invalid_argument("there is no file");
        for channel in self.channels.iter() {
            let mut holder = String::new();
            let mut failed = None;
            for file in files {
                match self.upload_to(channel.clone(), file, &mut progress).await {
                    Ok(node) => holder = node,
                    Err(status) => {
                        failed = Some(status);
                        break;
                    }
                }
            }
            match failed {
                None if !files.is_empty() => return Ok(holder),
                None => {}
                Some(status) if crate::error::is_worth_another_try(&status) => last = status,
                Some(status) => return Err(Error::Refused(Box::new(status))),
            }
        }
        Err(Error::Unreachable(Box::new(last)))
    }

    async fn upload_to(
        &self,
        channel: tonic::transport::Channel,
        file: &Upload,
        progress: &mut impl FnMut(u64),
    ) -> Result<String, Status> {
        let open = tokio::fs::File::open(&file.path).await;
        let open = open.map_err(|error| unreadable(file, &error))?;
        let (sent, mut taken) = watch::channel(0);
        let request = self.stream_request(pieces(file, open, sent));
        let mut client = UploadsClient::new(channel);
        let answer = client.upload_image_file(request);
        tokio::pin!(answer);
        let mut told = 0;
        loop {
            tokio::select! {
                answer = &mut answer => return Ok(answer?.into_inner().node),
                more = tokio::time::timeout(SILENCE_MAX, taken.changed()) => match more {
                    Ok(Ok(())) => {
                        let now = *taken.borrow_and_update();
                        progress(now - told);
                        told = now;
                    }
                    // All is sent; the node checks it and leaves it on its disk.
                    Ok(Err(_)) => {
                        let answer = tokio::time::timeout(SILENCE_MAX, &mut answer).await;
                        return Ok(answer.map_err(|_| silent())??.into_inner().node);
                    }
                    Err(_) => return Err(silent()),
                },
            }
        }
    }
}

fn silent() -> Status {
    Status::unavailable(format!("the node took nothing for {SILENCE_MAX:?}"))
}

fn unreadable(file: &Upload, error: &std::io::Error) -> Status {
    Status::failed_precondition(format!("cannot read {}: {error}", file.path.display()))
}

/// The announcement, and then the bytes. A file that cannot be read on ends early, and the node
/// notices.
fn pieces(
    file: &Upload,
    open: tokio::fs::File,
    sent: watch::Sender<u64>,
) -> impl Stream<Item = v1::UploadImageFileRequest> + use<> {
    let first = v1::UploadImageFileRequest {
        sha256: file.sha256.clone(),
        size_bytes: file.size_bytes,
        data: Vec::new(),
    };
    stream::unfold((Some(first), open, sent), async |(first, mut open, sent)| {
        if let Some(first) = first {
            return Some((first, (None, open, sent)));
        }
        let mut data = vec![0; PIECE_BYTES];
        let count = open.read(&mut data).await.ok().filter(|count| *count > 0)?;
        data.truncate(count);
        sent.send_modify(|sent| *sent += count as u64);
        let message = v1::UploadImageFileRequest { data, ..Default::default() };
        Some((message, (None, open, sent)))
    })
}
