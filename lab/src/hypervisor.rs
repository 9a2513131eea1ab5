//! A hypervisor host: a libvirtd of its own, in its host's network, with mounts and a name of its own.
//! When its processes have ended nothing of it is left.

use std::{
    fs::Permissions,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    network::{self, Network, Space},
    programs, qemu,
};

/// Why this machine cannot run real VMs, if it cannot.
///
/// # Errors
/// The reason in a sentence.
pub fn is_possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("real VMs need root, for namespaces and libvirtd".to_owned());
    }
    network::is_possible()?;
    programs::require(&["libvirtd", "qemu-system-x86_64", "qemu-img", "unshare", "mount"])
}

/// Where a daemon finds its certificates.
const PKI: &str = "/etc/libvirt/pki";

/// While this file is in its directory a killed libvirtd is not started again.
const STOPPED: &str = "stopped";

/// libvirtd's hook for networks, as it sees it, and how it is held up: a network that is started waits while
/// the first file is there, and says so with the second one. Nothing else of libvirtd's waits with it.
const HOOK: &str = "etc/hooks/network";
const HOLD: &str = "etc/hold";
const HELD: &str = "etc/held";
const HOOK_SCRIPT: &str = r#"#!/bin/sh
[ "$2" = start ] || exit 0
for tenth in $(seq 1200); do
    [ -e /etc/libvirt/hold ] || exit 0
    touch /etc/libvirt/held
    sleep 0.1
done
"#;

/// The program that drives it.
pub(crate) const LIBVIRT_DRIVER: &str = "novacron-driver-libvirt";

/// Writes a libvirt driver that goes by the machine's clock, whatever the clock of who starts it; the answer is the
/// program.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_driver(directory: &Path, programs: &Path) -> Result<PathBuf> {
    let program = programs.join(LIBVIRT_DRIVER).display().to_string().replace('\'', r"'\''");
    let script = format!("#!/bin/sh\nunset LD_PRELOAD\nexec '{program}' \"$@\"\n");
    // By such a name those are found that run on a host without power.
    let driver = directory.join("novacron-driver");
    std::fs::write(&driver, script)?;
    std::fs::set_permissions(&driver, Permissions::from_mode(0o755))?;
    Ok(driver)
}

/// A running libvirtd.
pub struct Hypervisor {
    directory: PathBuf,
    address: Ipv4Addr,
    daemon: Child,
}

impl Hypervisor {
    /// Starts one in `directory`, which should have a short path, on a host of the network.
    ///
    /// # Errors
    /// When it cannot be started or is not ready in time.
    pub(crate) fn start(
        directory: &Path,
        number: usize,
        network: &Network,
        programs: &Path,
        ledgers: &Path,
    ) -> Result<Hypervisor> {
        let (address, name) = (Network::address(number), format!("h{}", number + 1));
        for part in ["run", "lib", "log", "cache", "etc"] {
            std::fs::create_dir_all(directory.join(part))?;
        }
        for path in [
            "/run/libvirt",
            "/var/lib/libvirt",
            "/var/log/libvirt",
            "/var/cache/libvirt",
            "/etc/libvirt",
        ] {
            std::fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))?;
        }
        write_settings(directory, address)?;
        let hook = directory.join(HOOK);
        std::fs::create_dir_all(directory.join("etc/hooks"))?;
        std::fs::write(&hook, HOOK_SCRIPT)?;
        std::fs::set_permissions(&hook, Permissions::from_mode(0o755))?;
        qemu::install(directory, ledgers)?;
        network.pki().write(&directory.join("etc/pki"), address)?;
        let daemon = spawn(directory, &name, &network.space(number), programs)?;
        let mut hypervisor = Hypervisor { directory: directory.to_owned(), address, daemon };
        hypervisor.await_ready()?;
        Ok(hypervisor)
    }

    /// Where libvirt clients connect.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.directory.join("run/libvirt-sock").display())
    }

    /// Where other hypervisors of the lab reach it.
    #[must_use]
    pub fn migration_uri(&self) -> String {
        format!("qemu+tls://{}/system?pkipath={PKI}", self.address)
    }

    fn await_ready(&mut self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let begun = Instant::now();
        loop {
            let asked = Command::new("timeout")
                .args(["5", "virsh", "-q", "-c", &self.uri(), "version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .context("cannot run virsh")?;
            if asked.success() {
                return Ok(());
            }
            if let Some(status) = self.daemon.try_wait()? {
                bail!("libvirtd ended with {status}; see {}/log", self.directory.display());
            }
            if begun.elapsed() > PATIENCE {
                bail!("libvirtd was not ready after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where it keeps everything.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pids of the QEMUs that run here, as libvirtd wrote them down.
    #[must_use]
    pub fn guests(&self) -> Vec<i32> {
        let mut pids = pids(&self.directory.join("run/qemu"));
        pids.retain(|pid| is_called(*pid, "qemu-system"));
        pids
    }

    /// The process of libvirtd, unless it has ended or is just being started.
    pub(crate) fn daemon(&self) -> Option<i32> {
        pid_in(&self.directory.join("run/libvirtd.pid")).filter(|pid| is_called(*pid, "libvirtd"))
    }

    /// Kills libvirtd; it is started again, as on any machine. Its guests run on.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn kill_daemon(&self) -> Result<()> {
        let daemon = self.daemon().and_then(Pid::from_raw);
        Ok(kill_process(daemon.context("libvirtd does not run")?, Signal::KILL)?)
    }

    /// Has networks wait before they are started, for two minutes at most.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub(crate) fn hold_networks(&self) -> Result<()> {
        Ok(std::fs::write(self.directory.join(HOLD), "")?)
    }

    /// Whether one waits, or has waited.
    pub(crate) fn network_was_held(&self) -> bool {
        self.directory.join(HELD).exists()
    }

    /// Lets networks that wait be started.
    ///
    /// # Errors
    /// When they were not held.
    pub(crate) fn release_networks(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.directory.join(HOLD))?)
    }

    /// Ends libvirtd and everything it started. The reaper ends by itself when nothing is left.
    pub fn stop(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let _ = std::fs::write(self.directory.join(STOPPED), "");
        let daemon = self.daemon();
        let guests = self.guests();
        let helpers = pids(&self.directory.join("run/network"));
        for pid in daemon.into_iter().chain(guests).chain(helpers) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.daemon.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a process runs whose name begins so.
fn is_called(pid: i32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name))
}

fn pid_in(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn pids(directory: &Path) -> Vec<i32> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = files.map(|file| file.path()).filter(|path| {
        // libvirtd's own lies among its guests'.
        path.extension().is_some_and(|extension| extension == "pid")
            && path.file_stem().is_some_and(|stem| stem != "driver")
    });
    files.filter_map(|path| pid_in(&path)).collect()
}

fn write_settings(directory: &Path, address: Ipv4Addr) -> Result<()> {
    let uuid = uuid::Uuid::new_v4();
    let log = directory.join("log/libvirtd.log");
    let daemon = format!(
        "host_uuid = \"{uuid}\"\nlog_outputs = \"2:file:{}\"\nauth_unix_rw = \"none\"\n\
         unix_sock_rw_perms = \"0700\"\nkeepalive_interval = 2\nkeepalive_count = 3\n\
         listen_tls = 1\nlisten_tcp = 0\nlisten_addr = \"{address}\"\nauth_tls = \"none\"\n\
         key_file = \"{PKI}/serverkey.pem\"\ncert_file = \"{PKI}/servercert.pem\"\n\
         ca_file = \"{PKI}/cacert.pem\"\n",
        log.display()
    );
    std::fs::write(directory.join("etc/libvirtd.conf"), daemon)?;
    // No control groups and no namespaces per guest: nothing is left on the machine.
    let qemu = format!(
        "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\n\
                security_driver = \"none\"\ncgroup_controllers = [ ]\nnamespaces = [ ]\n\
                stdio_handler = \"file\"\nkeepalive_interval = 2\nkeepalive_count = 3\n\
         default_tls_x509_cert_dir = \"{PKI}\"\ndefault_tls_x509_verify = 1\n"
    );
    std::fs::write(directory.join("etc/qemu.conf"), qemu)?;
    // libvirtd looks its user up before it reads that it needs none.
    for (file, line) in [
        ("passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n"),
        ("group", "libvirt-qemu:x:64055:\nkvm:x:64056:\n"),
    ] {
        let mut text = std::fs::read_to_string(Path::new("/etc").join(file))?;
        text.push_str(line);
        std::fs::write(directory.join(file), text)?;
    }
    Ok(())
}

fn spawn(directory: &Path, name: &str, space: &Space, built: &Path) -> Result<Child> {
    // The shell gets names and paths as arguments, never as text to be read.
    const SCRIPT: &str = r#"
        set -e
        hostname "$2"
        # A disk of another lab that was mounted here too could not be unmounted there; those of this one come and go.
        grep -o ' /tmp/nc[^ ]*/data ' /proc/mounts | grep -v "^ ${1%/*/*}/" |
            xargs -r umount --lazy || true
        mount --bind "$1/run" /run/libvirt
        mount --bind "$1/lib" /var/lib/libvirt
        mount --bind "$1/log" /var/log/libvirt
        mount --bind "$1/cache" /var/cache/libvirt
        mount --bind "$1/etc" /etc/libvirt
        mount --bind "$1/passwd" /etc/passwd
        mount --bind "$1/group" /etc/group
        exec "$3" "$1/$4" "$5" libvirtd -l -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid
    "#;
    let mut path = std::ffi::OsString::from(qemu::DIRECTORY);
    path.push(":");
    path.push(programs::path());
    space
        .command("unshare")
        .args(["--mount", "--uts", "--propagation", "slave", "sh", "-c", SCRIPT, "sh"])
        .arg(directory)
        .arg(name)
        .arg(built.join("novacron-lab-reaper"))
        .arg(STOPPED)
        .arg(qemu::ends(directory))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log/start.log"))?)
        .spawn()
        .context("cannot start libvirtd")
}
