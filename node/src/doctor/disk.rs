//! The disk that the data lies on: does it keep what it says it has, how fast, and how full is it?

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use cli::{Finding, Verdict};

use super::grade;

/// What `statfs` calls file systems that nothing survives in, or that promise little.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58F6;
const NFS: i64 = 0x6969;
const OVERLAY: i64 = 0x794C_7630;

pub(super) fn examine(data: &Path) -> Vec<Finding> {
    let there = data.is_dir();
    // Before `init` it is not there: then what it will be made in. A path without a beginning is in this directory.
    let place = data.ancestors().find(|place| place.exists()).unwrap_or(Path::new("."));
    if !place.is_dir() {
        let found = format!("{} is in the way: it is no directory", place.display());
        return vec![Finding::bad(
            "data",
            found,
            "remove it, or set node.data_directory otherwise",
        )];
    }
    let mut findings = vec![if there {
        directory(data)
    } else {
        Finding::good("data", format!("{} will be made", data.display()))
    }];
    findings.extend(kind(place));
    findings.push(room(place));
    findings.push(syncs(place));
    findings
}

fn directory(data: &Path) -> Finding {
    let open = |path: &Path| {
        path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    };
    let keys = data.join("identity");
    if open(&keys) {
        let found =
            format!("others may look into {}, where the cluster's key lies", keys.display());
        return Finding::bad("data", found, format!("chmod 700 {}", keys.display()));
    }
    Finding::good("data", format!("{} is there", data.display()))
}

fn kind(place: &Path) -> Option<Finding> {
    let kind = rustix::fs::statfs(place).ok()?.f_type;
    let local = "put node.data_directory on a disk of this machine";
    Some(match kind {
        TMPFS | RAMFS => Finding::bad(
            "disk.kind",
            format!("{} lies in memory: nothing of it survives a restart", place.display()),
            local,
        ),
        NFS => Finding::warning(
            "disk.kind",
            format!("{} is on NFS: when it stands still, so does this node", place.display()),
            local,
        ),
        OVERLAY => Finding::warning(
            "disk.kind",
            format!("{} lies in a container's layer, and goes with the container", place.display()),
            "mount a volume there",
        ),
        _ => Finding::good("disk.kind", "a file system on a disk"),
    })
}

fn room(place: &Path) -> Finding {
    let disk = match rustix::fs::statvfs(place) {
        Ok(disk) => disk,
        Err(error) => return Finding::bad("disk.room", error.to_string(), "mend the file system"),
    };
    // As the node will report it: the cluster decides by that.
    let percent = actors::used_percent(place);
    let free_gib = (disk.f_bavail * disk.f_frsize) >> 30;
    let found = format!("{percent} % used, {free_gib} GiB free");
    let remedy = "make room, or move the data to a larger disk: from 90 % on, of one node, the whole cluster takes nothing new; see docs/limits.md";
    match percent {
        90.. => Finding::bad("disk.room", found, remedy),
        80.. => Finding::warning("disk.room", found, remedy),
        _ => Finding::good("disk.room", found),
    }
}

/// Writes into a file that has its size and syncs, as the log does.
fn syncs(place: &Path) -> Finding {
    const CHECK: &str = "disk.sync";
    let mut took = match measure(place) {
        Ok(took) => took,
        Err(error) => {
            let found = format!("cannot write and sync in {}: {error}", place.display());
            return Finding::bad(CHECK, found, "run as the node does (root), and mend the disk");
        }
    };
    took.sort();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    let (median, late) = (at(50), at(99));
    let found =
        format!("a sync takes {median:.1?}, one in a hundred {late:.1?} ({} tried)", took.len());
    let remedy = "every change waits for it: give the log a disk of its own with power-loss protection, or find who loads this one";
    match grade(late.as_secs_f64(), 0.05, 0.25) {
        Verdict::Good | Verdict::Skipped => Finding::good(CHECK, found),
        Verdict::Warning => Finding::warning(CHECK, found, remedy),
        Verdict::Bad => Finding::bad(CHECK, found, remedy),
    }
}

fn measure(place: &Path) -> io::Result<Vec<Duration>> {
    const TIMES: usize = 200;
    const BYTES: usize = 4_096;
    const PATIENCE: Duration = Duration::from_secs(5);
    let path = place.join(format!(".novacron-doctor-{}", std::process::id()));
    let mut file = File::create_new(&path)?;
    // Whatever comes of it, nothing is left.
    let measured = (|| {
        file.write_all(&vec![0; TIMES * BYTES])?;
        file.sync_all()?;
        let (begun, mut took) = (Instant::now(), Vec::with_capacity(TIMES));
        while took.len() < TIMES && begun.elapsed() < PATIENCE {
            let started = Instant::now();
            file.write_all_at(&[0x5a; BYTES], (took.len() * BYTES) as u64)?;
            file.sync_data()?;
            took.push(started.elapsed());
        }
        Ok(took)
    })();
    std::fs::remove_file(&path)?;
    measured
}
