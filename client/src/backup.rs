//! Backups of the cluster's state.

use std::{path::Path, time::Duration};

use proto::v1::{self, backups_client::BackupsClient};
use tokio::{fs::File, io::AsyncWriteExt};
use tonic::{Request, Status};

use crate::{Client, Error};

/// Longest time in which nothing comes.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A backup that was written to a file.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The revision it is of.
    pub revision: u64,
    /// Its length, bytes.
    pub size_bytes: u64,
}

impl Client {
    /// Writes a backup of the cluster's state to a new file, which only its owner reads, and has it on the
    /// disk. It has checksums of its own. `progress` hears how many bytes are there, and of how many.
    ///
    /// # Errors
    /// [`Error::Refused`] with what a node said, or when the file cannot be written or is cut.
    pub async fn back_up(
        &self,
        path: &Path,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Backup, Error> {
        let opened = self.call(v1::BackUpRequest {}, async |channel, mut request: Request<_>| {
            // The deadline is for the answer to begin, not for the stream.
            request.metadata_mut().remove("grpc-timeout");
            BackupsClient::new(channel).back_up(request).await
        });
        let mut pieces = opened.await?;
        let refused = |status: Status| Error::Refused(Box::new(status));
        let unwritten = |error: std::io::Error| {
            let why = format!("cannot write {}: {error}", path.display());
            refused(Status::failed_precondition(why))
        };
        let mut options = File::options();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(path).await.map_err(unwritten)?;
        let (mut backup, mut bytes) = (None, 0);
        loop {
            let piece = tokio::time::timeout(SILENCE_MAX, pieces.message()).await;
            let late = |_| Status::unavailable(format!("nothing came for {SILENCE_MAX:?}"));
            let piece = piece.map_err(late).and_then(|piece| piece).map_err(refused)?;
            let Some(piece) = piece else { break };
            let Some(expected) = &backup else {
                let v1::BackUpResponse { revision, size_bytes, .. } = piece;
                backup = Some(Backup { revision, size_bytes });
                continue;
            };
            file.write_all(&piece.data).await.map_err(unwritten)?;
            bytes += piece.data.len() as u64;
            progress(bytes, expected.size_bytes);
        }
        file.sync_all().await.map_err(unwritten)?;
        backup
            .filter(|backup| backup.size_bytes == bytes)
            .ok_or_else(|| refused(Status::data_loss("the backup is cut; ask again")))
    }
}
