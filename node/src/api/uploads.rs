//! Files of images that are about to be made.

use std::time::Duration;

use domain::{id::Digest, principal::Role};
use drivers::{DriverError, ErrorKind};
use proto::{convert::invalid, v1, v1::uploads_server::Uploads};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, auth, errors};

/// Longest wait for the next piece.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Slowest upload, bytes per second: a slower one would hold a place that others need.
const RATE_MIN: u64 = 32 << 10;
/// Largest file, bytes (1 TiB).
const FILE_BYTES_MAX: u64 = 1 << 40;

#[tonic::async_trait]
impl Uploads for Api {
    async fn upload_image_file(
        &self,
        request: Request<Streaming<v1::UploadImageFileRequest>>,
    ) -> Result<Response<v1::UploadImageFileResponse>, Status> {
        let caller = auth::caller(Role::Operator)?;
        let busy = |_| Status::resource_exhausted("the node takes other files; try again later");
        let _turn = self.uploads.try_acquire().map_err(busy)?;
        let mut pieces = request.into_inner();
        let first = next(&mut pieces).await?;
        let first = first.ok_or_else(|| Status::invalid_argument("nothing was announced"))?;
        let file = Digest::from_hex(&first.sha256)
            .ok_or_else(|| errors::rejected(invalid("sha256", "must be 64 hexadecimal digits")))?;
        if first.size_bytes > FILE_BYTES_MAX {
            let message = format!("at most {FILE_BYTES_MAX} bytes are taken");
            return Err(errors::rejected(invalid("size_bytes", message)));
        }
        let state = self.store.view();
        let name = state.state.nodes.get(&self.store.node()).map(|node| node.name.to_string());
        let answer = v1::UploadImageFileResponse {
            node: name.ok_or_else(|| Status::unavailable("the node is not yet a member"))?,
        };
        if self.images.hold(file).is_some() {
            return Ok(Response::new(answer));
        }
        let incoming = self.images.receive(&state.state, file, first.size_bytes).await;
        let mut incoming = incoming.map_err(refused)?;
        let late = Instant::now() + SILENCE_MAX + Duration::from_secs(first.size_bytes / RATE_MIN);
        while let Some(piece) = next(&mut pieces).await? {
            if !auth::is_still_valid(&self.store, &caller) {
                return Err(errors::unauthenticated("the credential is not valid any more"));
            }
            if Instant::now() > late {
                return Err(Status::deadline_exceeded("the file comes too slowly"));
            }
            incoming.write(&piece.data).await.map_err(refused)?;
        }
        incoming.finish().await.map_err(refused)?;
        Ok(Response::new(answer))
    }
}

async fn next(
    pieces: &mut Streaming<v1::UploadImageFileRequest>,
) -> Result<Option<v1::UploadImageFileRequest>, Status> {
    let piece = tokio::time::timeout(SILENCE_MAX, pieces.message()).await;
    piece.map_err(|_| Status::deadline_exceeded(format!("nothing came for {SILENCE_MAX:?}")))?
}

fn refused(error: DriverError) -> Status {
    match error.kind {
        ErrorKind::Capacity => Status::resource_exhausted(error.message),
        ErrorKind::Permanent => Status::invalid_argument(error.message),
        ErrorKind::Transient
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Quota
        | ErrorKind::Throttled
        | ErrorKind::Auth
        | ErrorKind::Fenced
        | ErrorKind::Protocol
        | ErrorKind::Ambiguous => Status::unavailable(error.message),
    }
}
