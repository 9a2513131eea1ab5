//! The disks of a body, on its host or in a pool.

use std::{
    fs::File,
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
        let path = root(directory);
        if !path.exists() {
            if part == Part::Qcow2 {
                must_stand_alone(base)?;
            }
            let partial = partial(order, &path);
            let mut create = qemu_img();
            create.args(["-F", format(part), "-b"]).arg(base).arg(&partial);
            if order.spec.root_disk_mib > 0 {
                create.arg(format!("{}M", order.spec.root_disk_mib));
            }
            run(create)?;
            finish(&partial, &path)?;
        }
        disks.push(path);
    }
    disks.extend(ensure_empty(order, directory)?);
    Ok(disks)
}

/// Makes the disks in a pool, once in the VM's life: a copy of the image's disk, since its host's file of it
/// is of no use to another host, then the empty ones. What was made and is not there is not made again.
pub(crate) fn ensure_in_pool(
    order: &Order,
    directory: &Path,
    base: Option<(&Path, Part)>,
) -> Result<Vec<PathBuf>, DriverError> {
    let root = base.map(|_| root(directory));
    let paths: Vec<_> = root.into_iter().chain(empty(order, directory)).collect();
    if order.disks_made {
        for path in &paths {
            if !path.try_exists().map_err(io("a disk in the pool"))? {
                let message = format!("the VM's disk {} is not there any more", path.display());
                return Err(DriverError::new(ErrorKind::Permanent, message));
            }
        }
        return Ok(paths);
    }
    std::fs::create_dir_all(directory).map_err(io("the VM's directory in its pool"))?;
    if let Some((base, part)) = base {
        let path = self::root(directory);
        if !path.exists() {
            if part == Part::Qcow2 {
                must_stand_alone(base)?;
            }
            let partial = partial(order, &path);
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-q", "-O", "qcow2", "-f", format(part)]);
            convert.arg(base).arg(&partial);
            run(convert)?;
            if order.spec.root_disk_mib > 0 {
                let mut resize = Command::new("qemu-img");
                resize.args(["resize", "-q", "-f", "qcow2"]).arg(&partial);
                resize.arg(format!("{}M", order.spec.root_disk_mib));
                run(resize)?;
            }
            finish(&partial, &path)?;
        }
    }
    ensure_empty(order, directory)?;
    Ok(paths)
}

fn root(directory: &Path) -> PathBuf {
    directory.join("root.qcow2")
}

/// Where the disks beside the image's own lie.
fn empty(order: &Order, directory: &Path) -> Vec<PathBuf> {
    let count = order.spec.disks.len();
    (0..count).map(|number| directory.join(format!("disk-{number}.qcow2"))).collect()
}

fn ensure_empty(order: &Order, directory: &Path) -> Result<Vec<PathBuf>, DriverError> {
    let paths = empty(order, directory);
    for (disk, path) in order.spec.disks.iter().zip(&paths) {
        if !path.exists() {
            let partial = partial(order, path);
            let mut create = qemu_img();
            create.arg(&partial).arg(format!("{}M", disk.size_mib));
            run(create)?;
            finish(&partial, path)?;
        }
    }
    Ok(paths)
}

const fn format(part: Part) -> &'static str {
    match part {
        Part::Raw => "raw",
        Part::Qcow2 | Part::Kernel | Part::Initrd => "qcow2",
    }
}

/// A base that names another file would give the guest that file.
fn must_stand_alone(base: &Path) -> Result<(), DriverError> {
    let mut head = Vec::new();
    let file = File::open(base).map_err(io("the image"))?;
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
        let partial = partial(order, &path);
        make.arg(&partial).arg(&files);
        run(make)?;
        finish(&partial, &path)?;
    }
    Ok(Some(path))
}

fn qemu_img() -> Command {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    command
}

/// A file is made under this name first: half a disk must not be taken for one. In a pool another host may
/// be at it too, under another fence.
fn partial(order: &Order, path: &Path) -> PathBuf {
    path.with_extension(format!("{}.partial", order.fence.as_u64()))
}

fn run(mut command: Command) -> Result<(), DriverError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(io(&program))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DriverError::new(ErrorKind::Transient, format!("{program}: {said}")));
    }
    Ok(())
}

/// Gives a file its name. One that has it already stays: it may be a disk in use.
fn finish(partial: &Path, path: &Path) -> Result<(), DriverError> {
    // After a loss of power a name with half a disk behind it would be taken for one.
    File::open(partial).and_then(|file| file.sync_all()).map_err(io("a new disk"))?;
    match std::fs::hard_link(partial, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(io("a new disk")(error));
        }
        Ok(()) | Err(_) => {}
    }
    std::fs::remove_file(partial).map_err(io("a new disk"))?;
    let directory = path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all());
    directory.map_err(io("a new disk"))
}
