//! A domain as libvirt wants it: types, never text pasted together, so no user's text can become
//! markup.

use std::path::{Path, PathBuf};

use domain::{id::VmId, vm::Failover};
use drivers::{DriverError, ErrorKind, Order};
use newtype_uuid::GenericUuid;
use serde::Serialize;

use crate::{agent, nat};

/// The namespace of our own element.
const NAMESPACE: &str = "https://novacron.dev/libvirt/1";

#[derive(Serialize)]
#[serde(rename = "domain")]
struct Domain<'a> {
    #[serde(rename = "@type")]
    kind: &'a str,
    name: String,
    uuid: String,
    metadata: Metadata,
    memory: Amount,
    vcpu: u32,
    sysinfo: Sysinfo,
    os: Os,
    features: Features,
    clock: Clock,
    on_poweroff: &'a str,
    on_reboot: &'a str,
    on_crash: &'a str,
    devices: Devices,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(rename = "novacron:body")]
    body: OurBody,
}

/// A copy for people and for taking bodies up again; the fence that counts is in the record.
#[derive(Serialize)]
struct OurBody {
    #[serde(rename = "@xmlns:novacron")]
    namespace: &'static str,
    #[serde(rename = "@project")]
    project: String,
    #[serde(rename = "@vm")]
    vm: String,
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@fence")]
    fence: u64,
}

#[derive(Serialize)]
struct Amount {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    amount: u32,
}

/// What the guest is told of its machine. Its family is the word by which the host's guard knows a guest
/// that is to stay: it is among QEMU's arguments.
#[derive(Serialize)]
struct Sysinfo {
    #[serde(rename = "@type")]
    kind: &'static str,
    system: System,
}

#[derive(Serialize)]
struct System {
    entry: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "$text")]
    value: &'static str,
}

#[derive(Serialize)]
struct Smbios {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Os {
    #[serde(rename = "type")]
    kind: OsType,
    smbios: Smbios,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Attribute>,
}

#[derive(Serialize)]
struct OsType {
    #[serde(rename = "@arch")]
    arch: &'static str,
    #[serde(rename = "@machine")]
    machine: &'static str,
    #[serde(rename = "$text")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Attribute {
    #[serde(rename = "@dev")]
    device: &'static str,
}

#[derive(Serialize)]
struct Features {
    acpi: Empty,
    apic: Empty,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Clock {
    #[serde(rename = "@offset")]
    offset: &'static str,
}

#[derive(Serialize)]
struct Devices {
    disk: Vec<Disk>,
    controller: Controller,
    interface: Vec<Interface>,
    serial: Serial,
    channel: Channel,
    panic: Model,
    memballoon: Model,
}

#[derive(Serialize)]
struct Disk {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    driver: DiskDriver,
    source: FileSource,
    target: Target,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly: Option<Empty>,
}

#[derive(Serialize)]
struct DiskDriver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@cache", skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(rename = "@discard", skip_serializing_if = "Option::is_none")]
    discard: Option<&'static str>,
}

#[derive(Serialize)]
struct FileSource {
    #[serde(rename = "@file")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Target {
    #[serde(rename = "@dev")]
    device: String,
    #[serde(rename = "@bus")]
    bus: &'static str,
}

#[derive(Serialize)]
struct Controller {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@model")]
    model: &'static str,
}

#[derive(Serialize)]
struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Mac,
    source: InterfaceSource,
    model: Kind,
}

#[derive(Serialize)]
struct Mac {
    #[serde(rename = "@address")]
    address: String,
}

#[derive(Serialize)]
struct InterfaceSource {
    #[serde(rename = "@network", skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(rename = "@bridge", skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
}

#[derive(Serialize)]
struct Kind {
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Model {
    #[serde(rename = "@model")]
    model: &'static str,
}

#[derive(Serialize)]
struct Serial {
    #[serde(rename = "@type")]
    kind: &'static str,
    source: SocketSource,
    log: LogFile,
    target: Port,
}

#[derive(Serialize)]
struct Channel {
    #[serde(rename = "@type")]
    kind: &'static str,
    target: ChannelTarget,
}

#[derive(Serialize)]
struct ChannelTarget {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@name")]
    name: &'static str,
}

#[derive(Serialize)]
struct SocketSource {
    #[serde(rename = "@mode")]
    mode: &'static str,
    #[serde(rename = "@path")]
    path: PathBuf,
}

#[derive(Serialize)]
struct LogFile {
    #[serde(rename = "@file")]
    file: PathBuf,
    #[serde(rename = "@append")]
    append: &'static str,
}

#[derive(Serialize)]
struct Port {
    #[serde(rename = "@port")]
    port: u8,
}

/// What a body is made of on this host.
pub(crate) struct Parts {
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    /// Writable qcow2 disks, in the order of their names.
    pub(crate) disks: Vec<PathBuf>,
    /// The NoCloud seed.
    pub(crate) seed: Option<PathBuf>,
    /// The body's directory.
    pub(crate) directory: PathBuf,
}

fn sysinfo(failover: Failover) -> Sysinfo {
    let family = (failover == Failover::Stay).then_some(("family", guard::SPARED_FAMILY));
    let entries = [("manufacturer", guard::MANUFACTURER)].into_iter().chain(family);
    let entry = entries.map(|(name, value)| Entry { name, value }).collect();
    Sysinfo { kind: "smbios", system: System { entry } }
}

/// The domain's definition.
pub(crate) fn domain(order: &Order, parts: &Parts, virt_type: &str) -> Result<String, DriverError> {
    let spec = &order.spec;
    let cmdline = parts
        .kernel
        .as_ref()
        .map(|_| format!("console=ttyS0 panic=-1 g.id={} {}", order.vm, spec.cmdline));
    let boots_disk = parts.kernel.is_none();
    let domain = Domain {
        kind: virt_type,
        // Unique whatever names people choose, and still to be recognised.
        name: format!("{}-{}", order.name, short(&order.vm.to_string())),
        uuid: order.vm.to_string(),
        metadata: Metadata {
            body: OurBody {
                namespace: NAMESPACE,
                project: order.project.to_string(),
                vm: order.vm.to_string(),
                name: order.name.to_string(),
                fence: order.fence.as_u64(),
            },
        },
        memory: Amount { unit: "MiB", amount: spec.memory_mib },
        vcpu: spec.vcpus,
        sysinfo: sysinfo(spec.failover),
        os: Os {
            kind: OsType { arch: "x86_64", machine: "q35", kind: "hvm" },
            smbios: Smbios { mode: "sysinfo" },
            kernel: parts.kernel.clone(),
            initrd: parts.initrd.clone(),
            cmdline: cmdline.map(|text| text.trim().to_owned()),
            boot: boots_disk.then_some(Attribute { device: "hd" }),
        },
        features: Features { acpi: Empty {}, apic: Empty {} },
        clock: Clock { offset: "utc" },
        on_poweroff: "destroy",
        on_reboot: "restart",
        on_crash: "destroy",
        devices: devices(order, parts),
    };
    quick_xml::se::to_string(&domain).map_err(|error| {
        DriverError::new(ErrorKind::Permanent, format!("the definition cannot be written: {error}"))
    })
}

fn devices(order: &Order, parts: &Parts) -> Devices {
    let names = ('a'..='z').map(|letter| format!("vd{letter}"));
    // Of what several hosts see none keeps a copy.
    let cache = order.spec.pool.as_ref().map(|_| "none");
    let disks = parts.disks.iter().map(|file| (file, "qcow2", Some("unmap"), None));
    let seed = parts.seed.iter().map(|file| (file, "raw", None, Some(Empty {})));
    let disk = disks.chain(seed).zip(names).map(|((file, kind, discard, readonly), name)| Disk {
        kind: "file",
        device: "disk",
        driver: DiskDriver { name: "qemu", kind, cache, discard },
        source: FileSource { file: file.clone() },
        target: Target { device: name, bus: "virtio" },
        readonly,
    });
    let interface = order.spec.nics.iter().zip(0..).map(|(nic, number)| {
        let (kind, source) = match &nic.network {
            domain::vm::Network::Nat => {
                let network = Some(nat::NETWORK.to_owned());
                ("network", InterfaceSource { network, bridge: None })
            }
            domain::vm::Network::Bridge(name) => {
                ("bridge", InterfaceSource { network: None, bridge: Some(name.to_string()) })
            }
        };
        let mac = Mac { address: mac(order.vm, number) };
        Interface { kind, mac, source, model: Kind { kind: "virtio" } }
    });
    Devices {
        disk: disk.collect(),
        controller: Controller { kind: "usb", model: "none" },
        interface: interface.collect(),
        serial: Serial {
            kind: "unix",
            source: SocketSource { mode: "bind", path: console_socket(&parts.directory) },
            log: LogFile { file: console_log(&parts.directory), append: "on" },
            target: Port { port: 0 },
        },
        // libvirt itself finds a place for its socket, on each host.
        channel: Channel {
            kind: "unix",
            target: ChannelTarget { kind: "virtio", name: agent::PORT },
        },
        // Without it nobody hears of a guest's panic.
        panic: Model { model: "isa" },
        memballoon: Model { model: "virtio" },
    }
}

/// The hardware address of a network card: the same from start to start and from host to host.
fn mac(vm: VmId, number: u8) -> String {
    let [.., a, b, c] = vm.into_untyped_uuid().into_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{:02x}", c.wrapping_add(number))
}

/// Where a guest's serial console is, both ways.
pub(crate) fn console_socket(directory: &Path) -> PathBuf {
    directory.join("console.sock")
}

/// Where what a guest writes to its serial console is kept.
pub(crate) fn console_log(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

/// The last part of a UUID: the random one.
fn short(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}
