//! Images.

use domain::{
    State,
    envelope::Command,
    id::ImageId,
    image::{File, Image, ImageCommand},
    principal::Role,
};
use proto::{convert, v1, v1::images_server::Images};
use tonic::{Code, Request, Response, Status};

use super::{
    Api, auth,
    change::{answer, mint, not_found},
    errors, find,
    list::{Lazy, page},
};

const MESSAGE: &str = "novacron.v1.Image";

fn image<'a>(state: &'a State, text: &str) -> Option<&'a Image> {
    find(
        text,
        |id: ImageId| state.images.get(&id).map(|image| &**image),
        |name| state.image_named(&name).map(|image| &**image),
    )
}

impl Api {
    /// Refuses files that the node does not have which is said to hold them.
    async fn must_hold(&self, holder: &str, files: &[File]) -> Result<(), Status> {
        let view = self.view(None).await?;
        let node = view.state.nodes.values().find(|node| node.name.as_str() == holder);
        // Without a node `decide` says what is missing.
        let Some(node) = node else { return Ok(()) };
        // More `decide` refuses.
        for file in files.iter().take(2) {
            let held = if node.id == self.store.node() {
                self.images.hold(file.sha256).is_some()
            } else {
                let asked = self.store.fetch(node.id, file.sha256).await;
                let unknown = |why| {
                    let message = format!("{holder} cannot be asked for {}: {why}", file.sha256);
                    errors::status(Code::Unavailable, &message, "HOLDER_UNREACHABLE")
                };
                asked.map_err(unknown)?.is_some()
            };
            if !held {
                let message = format!("{holder} does not hold {}; upload it first", file.sha256);
                return Err(errors::rejected(convert::invalid("holder", message)));
            }
        }
        Ok(())
    }
}

/// Where an image came from, for everybody to read: neither the user and the password of its address, nor a query,
/// which may be a signature.
fn without_secrets(origin: &str) -> String {
    let Some((scheme, rest)) = origin.split_once("://") else { return origin.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[tonic::async_trait]
impl Images for Api {
    async fn create_image(
        &self,
        request: Request<v1::CreateImageRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let name = convert::name("name", &message.name).map_err(errors::rejected)?;
        let files = message.files.iter().map(convert::infrastructure::read_file);
        let files: Vec<_> = files.collect::<Result<_, _>>().map_err(errors::rejected)?;
        auth::caller(Role::Operator)?;
        if let Err(refused) = self.must_hold(&message.holder, &files).await {
            // The first attempt may have been made while the holder lived.
            let before = self.answered_before(mutation.as_ref(), &message).await?;
            return before.map(answer).ok_or(refused);
        }
        let id: ImageId = mint();
        let created = self.change(Role::Operator, mutation, &message, |state, _| {
            let holder = state.nodes.values().find(|node| node.name.as_str() == message.holder);
            Ok(Command::Image(ImageCommand::Create {
                image: id,
                name: name.clone(),
                files: files.clone(),
                origin: without_secrets(&message.origin),
                holder: holder.map(|node| node.id),
            }))
        });
        Ok(answer(created.await?))
    }

    async fn get_image(
        &self,
        request: Request<v1::GetImageRequest>,
    ) -> Result<Response<v1::Image>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let row = image(&view.state, &message.image)
            .ok_or_else(|| errors::rejected(not_found("image", &message.image)))?;
        Ok(Response::new(convert::infrastructure::image(&view.state, row)))
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        auth::caller(Role::Viewer)?;
        let message = request.into_inner();
        let view = self.view(message.freshness.as_ref()).await?;
        let state = &view.state;
        let rows = state.images_by_name();
        let rows =
            rows.map(|row| Lazy::new(&row.name, || convert::infrastructure::image(state, row)));
        let (images, next_page_token) = page(message.page, MESSAGE, "", rows)?;
        let revision = view.revision().as_u64();
        Ok(Response::new(v1::ListImagesResponse { images, next_page_token, revision }))
    }

    async fn delete_image(
        &self,
        request: Request<v1::DeleteImageRequest>,
    ) -> Result<Response<v1::Outcome>, Status> {
        let mut message = request.into_inner();
        let mutation = message.mutation.take();
        let deleted = self.change(Role::Operator, mutation, &message, |state, _| {
            let row =
                image(state, &message.image).ok_or_else(|| not_found("image", &message.image))?;
            Ok(Command::Image(ImageCommand::Delete { image: row.id }))
        });
        Ok(answer(deleted.await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_tells_no_secret() {
        let table = [
            ("debian.qcow2", "debian.qcow2"),
            ("./a?b@c", "./a?b@c"),
            ("https://host/a.qcow2", "https://host/a.qcow2"),
            ("https://user:pass@host/a.qcow2", "https://host/a.qcow2"),
            ("https://user:p@s@host/a@1.qcow2", "https://host/a@1.qcow2"),
            ("https://host/a.qcow2?signature=x#y", "https://host/a.qcow2"),
        ];
        for (given, expected) in table {
            assert_eq!(without_secrets(given), expected);
        }
    }
}
