//! Files that nodes fetch from each other, by their SHA-256: images are too large for the log.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use domain::id::{Digest, NodeId};
use futures_util::Stream;
use proto::peer::Frame;
use tokio::io::AsyncReadExt;
use tonic::Status;

use super::{Pool, client::Traffic, wire};

/// Bytes of a piece.
const PIECE_BYTES: usize = 512 << 10;
/// Longest wait for the next piece.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// The bytes of a file.
pub(super) async fn read(path: &std::path::Path) -> Result<Pieces, Status> {
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Status::not_found("the node has no such file"));
        }
        Err(error) => return Err(Status::internal(error.to_string())),
    };
    let pieces = futures_util::stream::try_unfold(file, async |mut file| {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut limited = (&mut file).take(PIECE_BYTES as u64);
        let read = limited.read_to_end(&mut piece).await;
        let count = read.map_err(|error| Status::internal(error.to_string()))?;
        Ok((count > 0).then(|| (Frame { body: Bytes::from(piece) }, file)))
    });
    Ok(Box::pin(pieces))
}

/// A file that comes from another node.
pub struct Fetch(tonic::Streaming<Frame>);

impl Fetch {
    pub(crate) async fn begin(
        pool: &Pool,
        from: NodeId,
        file: Digest,
    ) -> Result<Option<Fetch>, String> {
        let address = pool.address(from).ok_or_else(|| format!("nobody knows node {from}"))?;
        let mut client = pool.client_for(Traffic::Files, from, &address);
        let asked = client.fetch(pool.request(from, wire::pack(&file)));
        match tokio::time::timeout(SILENCE_MAX, asked).await {
            Ok(Ok(answer)) => Ok(Some(Fetch(answer.into_inner()))),
            Ok(Err(status)) if status.code() == tonic::Code::NotFound => Ok(None),
            Ok(Err(status)) => Err(said(&status)),
            Err(_) => Err(silent()),
        }
    }

    /// The next piece; nothing after the last. What came is not checked.
    ///
    /// # Errors
    /// What broke, in a sentence.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match tokio::time::timeout(SILENCE_MAX, self.0.message()).await {
            Ok(Ok(piece)) => Ok(piece.map(|frame| frame.body)),
            Ok(Err(status)) => Err(said(&status)),
            Err(_) => Err(silent()),
        }
    }
}

fn said(status: &Status) -> String {
    status.message().to_owned()
}

fn silent() -> String {
    format!("the node was silent for {SILENCE_MAX:?}")
}
