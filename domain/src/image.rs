//! An image: what VMs boot from.

use std::collections::BTreeSet;

use newtype_uuid::GenericUuid;
use serde::{Deserialize, Serialize};

use crate::{
    Draft, Revision, State,
    event::Change,
    id::{Digest, ImageId, NodeId},
    limit,
    name::Name,
    principal::Principal,
    rejected::{Reason, Rejected, Violation},
    table::{Resource, Row, Table},
};

/// What a file of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A disk in qcow2 format.
    Qcow2,
    /// A disk in raw format.
    Raw,
    /// A Linux kernel.
    Kernel,
    /// The kernel's initial file system.
    Initrd,
}

impl Part {
    /// The name in the API and the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Part::Qcow2 => "qcow2",
            Part::Raw => "raw",
            Part::Kernel => "kernel",
            Part::Initrd => "initrd",
        }
    }

    /// The part of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Part> {
        let all = [Part::Qcow2, Part::Raw, Part::Kernel, Part::Initrd];
        all.into_iter().find(|part| part.as_str() == name)
    }
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What it is.
    pub part: Part,
    /// SHA-256 of its bytes; its name in every store.
    pub sha256: Digest,
    /// Its length, bytes.
    pub size_bytes: u64,
}

/// An image. Its files never change: another content is another image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its identity.
    pub id: ImageId,
    /// Its name, unique in the cluster.
    pub name: Name,
    /// One disk, or a kernel with an initrd, or neither: a simulated host needs no bytes.
    pub files: Vec<File>,
    /// Where it came from, for people.
    pub origin: String,
    /// The nodes that hold a copy of every file.
    #[serde(default)]
    pub holders: BTreeSet<NodeId>,
    /// The entry that changed it last.
    pub revision: Revision,
}

impl Image {
    /// Whether it is booted as a kernel, and so takes a command line.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.files.iter().any(|file| file.part == Part::Kernel)
    }

    /// The disk it brings, if any.
    #[must_use]
    pub fn disk(&self) -> Option<&File> {
        self.files.iter().find(|file| matches!(file.part, Part::Qcow2 | Part::Raw))
    }
}

/// What may be asked of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ImageCommand {
    /// Make an image known.
    Create {
        /// The new image's id.
        image: ImageId,
        /// Its name.
        name: Name,
        /// Its files.
        files: Vec<File>,
        /// Where it came from.
        origin: String,
        /// The node that holds the files; needed when there are any.
        holder: Option<NodeId>,
    },
    /// A node has a copy.
    Held {
        /// The image.
        image: ImageId,
    },
    /// Forget an image that no VM uses.
    Delete {
        /// The image.
        image: ImageId,
    },
}

impl Resource for Image {
    type Key = ImageId;

    fn key(&self) -> ImageId {
        self.id
    }
    fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }
    fn table(state: &State) -> &Table<Image> {
        &state.images
    }
    fn table_mut(state: &mut State) -> &mut Table<Image> {
        &mut state.images
    }
    fn change(row: Row<Image>) -> Change {
        Change::Image(row)
    }

    fn reindex(state: &mut State, old: Option<&Image>, new: Option<&Image>) {
        if let Some(old) = old {
            state.image_names.remove(&old.name);
        }
        if let Some(new) = new {
            state.image_names.insert(new.name.clone(), new.id);
        }
    }
}

impl State {
    /// The image called `name`.
    #[must_use]
    pub fn image_named(&self, name: &Name) -> Option<&std::sync::Arc<Image>> {
        self.images.get(self.image_names.get(name)?)
    }

    /// All images in the order of their names.
    pub fn images_by_name(&self) -> impl Iterator<Item = &std::sync::Arc<Image>> {
        self.image_names.values().filter_map(|id| self.images.get(id))
    }

    /// How many VMs use the image.
    #[must_use]
    pub fn users_of(&self, image: ImageId) -> usize {
        let from = (image, crate::id::VmId::from_untyped_uuid(uuid::Uuid::nil()));
        let upto = (image, crate::id::VmId::from_untyped_uuid(uuid::Uuid::max()));
        self.vms_by_image.range(from..=upto).count()
    }
}

impl Image {
    /// Whether `node` is one of those that keep a copy, needed there or not, so that a node may be
    /// lost. Which ones they are follows from the members alone: as many as there are copies, and
    /// others for each image.
    #[must_use]
    pub fn is_kept_by(&self, node: NodeId, members: impl Iterator<Item = NodeId>) -> bool {
        let rank = |node: NodeId| {
            Digest::of(&[self.id.into_untyped_uuid().as_bytes(), &node.to_be_bytes()])
        };
        let mine = (rank(node), node);
        let before = members.filter(|other| (rank(*other), *other) < mine).count();
        before < limit::IMAGE_COPIES
    }
}

/// Takes a removed node from the holders of all images.
pub(crate) fn forget_holder(draft: &mut Draft, node: NodeId) {
    let held = draft.state().images.values().filter(|image| image.holders.contains(&node));
    let held: Vec<Image> = held.map(|image| Image::clone(image)).collect();
    for mut image in held {
        image.holders.remove(&node);
        draft.put(image);
    }
}

/// Decides about images.
pub(crate) fn decide(draft: &mut Draft, command: ImageCommand) -> Result<(), Rejected> {
    match command {
        ImageCommand::Create { image, name, files, origin, holder } => {
            create(draft, image, name, files, origin, holder)
        }
        ImageCommand::Held { image } => held(draft, image),
        ImageCommand::Delete { image } => delete(draft, image),
    }
}

fn create(
    draft: &mut Draft,
    id: ImageId,
    name: Name,
    files: Vec<File>,
    origin: String,
    holder: Option<NodeId>,
) -> Result<(), Rejected> {
    let state = draft.state();
    if state.image_named(&name).is_some() {
        let message = format!("image {name} exists already; choose another name");
        return Err(Rejected::new(Reason::NameTaken, message));
    }
    draft.room_for("images", state.images.len(), limit::IMAGES_MAX)?;
    let mut parts: Vec<Part> = files.iter().map(|file| file.part).collect();
    parts.sort_unstable();
    match parts.as_slice() {
        [] | [Part::Qcow2 | Part::Raw] | [Part::Kernel] | [Part::Kernel, Part::Initrd] => {}
        _ => {
            let message = "an image is one disk, or a kernel with an optional initrd";
            return Rejected::unless_empty(vec![Violation::new("files", message)]);
        }
    }
    let is_member = |node: &NodeId| state.nodes.contains_key(node);
    if !files.is_empty() && !holder.as_ref().is_some_and(is_member) {
        let message = "must be a node of the cluster that holds the files; upload them first";
        return Rejected::unless_empty(vec![Violation::new("holder", message)]);
    }
    draft.put(Image {
        id,
        name,
        files,
        origin: limit::clip(&origin),
        holders: holder.into_iter().collect(),
        revision: Revision::ZERO,
    });
    draft.reply_object("image", id);
    Ok(())
}

fn held(draft: &mut Draft, id: ImageId) -> Result<(), Rejected> {
    let Principal::Node(node) = *draft.principal() else {
        return Err(Rejected::new(Reason::PermissionDenied, "only nodes hold copies"));
    };
    let image = draft.state().images.get(&id).ok_or_else(|| Rejected::not_found("image", id))?;
    if !image.holders.contains(&node) {
        let mut image = Image::clone(image);
        image.holders.insert(node);
        draft.put(image);
    }
    Ok(())
}

fn delete(draft: &mut Draft, id: ImageId) -> Result<(), Rejected> {
    let state = draft.state();
    let image = state.images.get(&id).ok_or_else(|| Rejected::not_found("image", id))?;
    let users = state.users_of(id);
    if users > 0 {
        let message = format!("image {} is used by {users} VMs; delete them first", image.name);
        return Err(Rejected::new(Reason::ImageInUse, message));
    }
    draft.delete::<Image>(id);
    draft.reply_object("image", id);
    Ok(())
}
