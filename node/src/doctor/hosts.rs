//! What a host needs so that its guests run, and end in time.

use std::{
    fs::OpenOptions,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};

use cli::Finding;

use crate::config::{Config, HostSection, VirtType};

/// Where libvirt's daemons listen: the one for everything, and QEMU's own.
const LIBVIRT: [&str; 2] = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];

pub(super) fn examine(config: &Config, host: &HostSection) -> Vec<Finding> {
    let name = host.name.get_ref();
    let check = |what: &str| format!("host.{name}.{what}");
    if host.driver.get_ref() != "libvirt" {
        return vec![Finding::good(check("driver"), "simulated: there is nothing to look at")];
    }
    let mut findings = Vec::new();
    match crate::hosts::program(host) {
        Ok(path) => findings.push(program(&check("driver"), &path, "host.program")),
        Err(error) => {
            let found = error.to_string();
            findings.push(Finding::bad(
                &check("driver"),
                found,
                "say with host.program where it is",
            ));
        }
    }
    if host.virt_type == VirtType::Kvm {
        findings.push(kvm(&check("kvm")));
    }
    findings.push(hypervisor(&check("libvirt"), host));
    findings.push(guard(&check("guard"), name, host.guard.as_deref()));
    findings.extend(passage(&check("disks"), &config.node.data_directory));
    for (pool, at) in &host.pools {
        findings.push(match drivers::pool::identity(at) {
            Ok(id) => Finding::good(
                check(&format!("pool.{pool}")),
                format!("{} is pool {id}", at.display()),
            ),
            Err(error) => Finding::bad(
                &check(&format!("pool.{pool}")),
                format!("{}: {error}", at.display()),
                "mount it; or, once for all hosts, `novacron node make-pool`",
            ),
        });
    }
    let agents = config.fencing.iter().filter(|agent| agent.host.get_ref() == name);
    findings
        .extend(agents.map(|agent| program(&check("fencing"), &agent.program, "fencing.program")));
    findings
}

fn program(check: &str, path: &Path, field: &str) -> Finding {
    let runs = path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    if runs {
        return Finding::good(check, format!("{} is there", path.display()));
    }
    let remedy = format!("install it, or say with {field} where it is");
    Finding::bad(check, format!("{} is no program", path.display()), remedy)
}

fn kvm(check: &str) -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Finding::good(check, "the kernel accelerates guests"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Finding::skipped(check, format!("/dev/kvm: {error}"), "run this as root")
        }
        Err(error) => Finding::bad(
            check,
            format!("/dev/kvm: {error}"),
            "enable virtualisation in the firmware and load kvm_intel or kvm_amd; without it, virt_type = \"qemu\" is slow and works",
        ),
    }
}

fn hypervisor(check: &str, host: &HostSection) -> Finding {
    // Another machine's, or one with a socket of its own, is for its driver to reach.
    if host.uri != "qemu:///system" {
        return Finding::skipped(
            check,
            host.uri.clone(),
            "its driver says whether it answers: `novacron host probe`",
        );
    }
    let reached = LIBVIRT.iter().map(|socket| UnixStream::connect(socket).map(|_| *socket));
    let mut errors = Vec::new();
    for reached in reached {
        match reached {
            Ok(socket) => return Finding::good(check, format!("{socket} takes connections")),
            Err(error) => errors.push(error.to_string()),
        }
    }
    let found = format!("libvirt does not answer: {}", errors.join("; "));
    Finding::bad(
        check,
        found,
        "systemctl start libvirtd (or virtqemud); scripts/packages names what it needs",
    )
}

/// QEMU is not root where its daemon is the system's: it must get to the disks.
fn passage(check: &str, data: &Path) -> Option<Finding> {
    let mode = data.metadata().ok()?.permissions().mode();
    let found = format!("{} has the mode {:o}", data.display(), mode & 0o777);
    Some(if mode & 0o007 != 0 {
        let remedy = format!(
            "chgrp libvirt-qemu {0} && chmod 710 {0}: guests' disks are for nobody else",
            data.display()
        );
        Finding::warning(check, found, remedy)
    } else if mode & 0o011 == 0 {
        let remedy = format!(
            "chgrp libvirt-qemu {0} && chmod 710 {0}: QEMU passes through it to the disks",
            data.display()
        );
        Finding::warning(check, found, remedy)
    } else {
        Finding::good(check, found)
    })
}

fn guard(check: &str, host: &str, socket: Option<&Path>) -> Finding {
    let Some(socket) = socket else {
        return Finding::warning(
            check,
            "there is none: when this host is cut off, its guests are not started elsewhere until somebody has seen that it is off",
            "run novacron-guard and name its socket with host.guard; see docs/operations.md",
        );
    };
    match ::guard::ask(socket, &::guard::Request::Ready) {
        Ok(_) => Finding::good(check, format!("{} can end guests", socket.display())),
        Err(error) => Finding::bad(
            check,
            format!("{}: {error}", socket.display()),
            format!(
                "systemctl start novacron-guard@{host}; until it runs, guests that may fail over are not started here"
            ),
        ),
    }
}
