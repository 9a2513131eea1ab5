//! Keeps copies of images on enough nodes, and drops files that no image has.

use std::time::Duration;

use raft_store::Consistency;

use crate::{root::StaffOptions, routine::Turn};

#[derive(Default)]
pub(crate) struct Keeper;

impl Turn for Keeper {
    const NAME: &str = "keeper";
    const PAUSE: Duration = Duration::from_secs(5);

    async fn take(&mut self, options: &StaffOptions) {
        let (store, files) = (&options.store, &options.images);
        let Ok(view) = store.read(Consistency::Linearizable).await else { return };
        let (state, me) = (&view.state, store.node());
        if !state.nodes.contains_key(&me) {
            return;
        }
        // First, while the state is new: what is brought may take long.
        if let Err(error) = files.drop_unneeded(state) {
            tracing::warn!(%error, "files that no image has are still there");
        }
        for image in state.images.values().filter(|image| !image.files.is_empty()) {
            let here = image.files.iter().all(|file| files.path(file.sha256).is_some());
            let told = image.holders.contains(&me);
            let wanted = told || image.is_kept_by(me, state.nodes.keys().copied());
            if (here != told || wanted && !here)
                && let Err(error) = files.bring(store, image).await
            {
                tracing::warn!(image = %image.name, %error, "a copy cannot be kept here");
            }
        }
    }
}
