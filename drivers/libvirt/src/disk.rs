//! The disks of a body.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use domain::image::Part;
use drivers::{DriverError, ErrorKind, Order, qcow2};

use crate::error::io;

/// Makes the disks that are missing: an overlay on the image's disk, then the empty ones.
pub(crate) fn ensure(
    order: &Order,
    directory: &Path,
    base: Option<(&Path, Part)>,
) -> Result<Vec<PathBuf>, DriverError> {
    let mut disks = Vec::new();
    if let Some((base, part)) = base {
        let path = directory.join("root.qcow2");
        if !path.exists() {
            if part == Part::Qcow2 {
                must_stand_alone(base)?;
            }
            let format = if part == Part::Raw { "raw" } else { "qcow2" };
            let mut create = qemu_img();
            create.args(["-F", format, "-b"]).arg(base).arg(partial(&path));
            if order.spec.root_disk_mib > 0 {
                create.arg(format!("{}M", order.spec.root_disk_mib));
            }
            finish(create, &path)?;
        }
        disks.push(path);
    }
    for (number, disk) in order.spec.disks.iter().enumerate() {
        let path = directory.join(format!("disk-{number}.qcow2"));
        if !path.exists() {
            let mut create = qemu_img();
            create.arg(partial(&path)).arg(format!("{}M", disk.size_mib));
            finish(create, &path)?;
        }
        disks.push(path);
    }
    Ok(disks)
}

/// A base that names another file would give the guest that file.
fn must_stand_alone(base: &Path) -> Result<(), DriverError> {
    let mut head = Vec::new();
    let file = std::fs::File::open(base).map_err(io("the image"))?;
    file.take(qcow2::HEAD_BYTES as u64).read_to_end(&mut head).map_err(io("the image"))?;
    qcow2::check(&head).map_err(|why| {
        DriverError::new(ErrorKind::Permanent, format!("the image's disk {why}; use another image"))
    })
}

/// Makes the NoCloud seed, if there is user data.
pub(crate) fn ensure_seed(order: &Order, directory: &Path) -> Result<Option<PathBuf>, DriverError> {
    if order.spec.user_data.is_empty() {
        return Ok(None);
    }
    let path = directory.join("seed.iso");
    if !path.exists() {
        let files = directory.join("seed");
        std::fs::create_dir_all(&files).map_err(io("the seed"))?;
        let meta = format!("instance-id: {}\nlocal-hostname: {}\n", order.vm, order.name);
        std::fs::write(files.join("meta-data"), meta).map_err(io("the seed"))?;
        std::fs::write(files.join("user-data"), &order.spec.user_data).map_err(io("the seed"))?;
        let mut make = Command::new("genisoimage");
        make.args(["-quiet", "-volid", "cidata", "-joliet", "-rock", "-output"]);
        make.arg(partial(&path)).arg(&files);
        finish(make, &path)?;
    }
    Ok(Some(path))
}

fn qemu_img() -> Command {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    command
}

/// A file is made under this name first: half a disk must not be taken for one.
fn partial(path: &Path) -> PathBuf {
    path.with_extension("partial")
}

fn finish(mut command: Command, path: &Path) -> Result<(), DriverError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(io(&program))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DriverError::new(ErrorKind::Transient, format!("{program}: {said}")));
    }
    std::fs::rename(partial(path), path).map_err(io(&program))
}
