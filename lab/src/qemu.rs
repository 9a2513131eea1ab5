//! QEMU as a lab's hosts run it: every guest's process says itself, in a file of its host, when its guest
//! begins to execute and when it has stopped. Nobody whom a test may kill stands between.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::programs;

/// What libvirtd looks for in its path.
const PROGRAM: &str = "qemu-system-x86_64";

/// Where a daemon finds it: in its own `/etc/libvirt`, at the same place on every host, since the path of
/// the program travels with a guest.
pub(crate) const DIRECTORY: &str = "/etc/libvirt/bin";

/// Where guests' processes write, as they see it.
const RECORDS: &str = "/var/log/libvirt/witness";

/// The same process becomes the real QEMU, so its pid is the one that libvirt knows. The numbers are what
/// no other guest of the lab has: the VM, the process, and when it began (pids come again).
///
/// A guest with `g.witness=1` among its kernel's arguments has one disk more, the same file on every host
/// and never locked. Its place is far above those that libvirt gives away, and the same everywhere.
const SCRIPT: &str = r#"#!/bin/sh
before= vm= ledger=
for word; do
    case $before in
        -uuid) vm=$word ;;
        -append) case " $word " in *" g.witness=1 "*) ledger=yes ;; esac ;;
    esac
    before=$word
done
# libvirt asks what QEMU can do.
[ -n "$vm" ] || exec "@REAL@" "$@"
if [ -n "$ledger" ]; then
    [ -e "@LEDGERS@/$vm" ] || truncate -s @SIZE@ "@LEDGERS@/$vm"
    set -- "$@" \
        -blockdev "driver=file,node-name=ledger,filename=@LEDGERS@/$vm,locking=off" \
        -device virtio-blk-pci,drive=ledger,serial=ledger,bus=pcie.0,addr=0x10,share-rw=on
fi
exec "@REAL@" -trace vm_state_notify -D "@RECORDS@/$vm.$$.$(date +%s%N)" "$@"
"#;

/// How large a guest's ledger is, bytes: room for more ticks than a test takes.
const LEDGER_BYTES: u64 = 32 << 20;

/// Lets the libvirtd whose files lie in `directory` find it. Guests' ledgers lie in `ledgers`.
pub(crate) fn install(directory: &Path, ledgers: &Path) -> Result<()> {
    let real = programs::find(PROGRAM).with_context(|| format!("there is no {PROGRAM}"))?;
    std::fs::create_dir_all(records(directory))?;
    std::fs::create_dir_all(ledgers)?;
    let script = SCRIPT
        .replace("@REAL@", &real.display().to_string())
        .replace("@RECORDS@", RECORDS)
        .replace("@LEDGERS@", &ledgers.display().to_string())
        .replace("@SIZE@", &LEDGER_BYTES.to_string());
    let bin = directory.join("etc/bin");
    std::fs::create_dir_all(&bin)?;
    let program = bin.join(PROGRAM);
    std::fs::write(&program, script)?;
    Ok(std::fs::set_permissions(&program, Permissions::from_mode(0o755))?)
}

/// Where the records of a host's guests lie.
pub(crate) fn records(directory: &Path) -> PathBuf {
    directory.join("log/witness")
}

/// The record of which processes of a host have ended, and when at the latest; the reaper keeps it.
pub(crate) fn ends(directory: &Path) -> PathBuf {
    directory.join("log/ends")
}
