//! A VM's spec from flags.

use anyhow::{Context, Result};
use clap::Args;
use client::v1;

/// What a VM is to be like; what is not given stays as it is.
#[derive(Clone, Debug, Default, Args)]
pub struct SpecFlags {
    /// Virtual CPUs.
    #[arg(long, value_name = "N")]
    vcpus: Option<u32>,
    /// Memory: MiB, or with G as in 2G.
    #[arg(long, value_name = "MIB", value_parser = parse_mib)]
    memory: Option<u32>,
    /// The image it boots from.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Size of the disk the image brings: MiB, or with G.
    #[arg(long, value_name = "MIB", value_parser = parse_mib)]
    root_disk: Option<u32>,
    /// A further, empty disk of this size; repeat for more.
    #[arg(long = "disk", value_name = "MIB", value_parser = parse_mib)]
    disks: Vec<u32>,
    /// The pool in which its disks lie, so that other hosts find them too; `host list -o wide` shows pools.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// A network card: `nat` or `bridge:NAME`; repeat for more.
    #[arg(long = "nic", value_name = "NETWORK")]
    nics: Vec<String>,
    /// Appended to the kernel command line, for kernel images.
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// A file with cloud-init user data.
    #[arg(long, value_name = "FILE")]
    user_data: Option<std::path::PathBuf>,
    /// When a guest that ended by itself is started again: always, `on_failure` or manual.
    #[arg(long, value_name = "POLICY")]
    run_policy: Option<String>,
    /// What becomes of it when its host is lost: `stay` waits for the host; `rebuild` makes it anew on another
    /// host, with disks made from the image; `restart` starts it on another host with its disks, which lie in a
    /// pool. Takes effect at the next start.
    #[arg(long, value_name = "POLICY", value_parser = ["stay", "rebuild", "restart"])]
    failover: Option<String>,
    /// Of VMs that are to be made anew the one with the higher priority goes first.
    #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u32).range(0..=100))]
    failover_priority: Option<u32>,
    /// A VM that is made anew before it; repeat for more.
    #[arg(long, value_name = "VM")]
    failover_after: Vec<String>,
    /// Refuse deletion until it is switched off again.
    #[arg(long, value_name = "BOOL")]
    deletion_protection: Option<bool>,
    /// The one host it may be placed on.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// A label, `key=value`; repeat for more.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// A label that its host must have; repeat for more.
    #[arg(long = "host-label", value_name = "KEY=VALUE")]
    host_labels: Vec<String>,
    /// A label of the VMs that it is to be near to; repeat for VMs that have them all.
    #[arg(long, value_name = "KEY=VALUE")]
    near: Vec<String>,
    /// A label of the VMs that it is to be apart from; repeat for VMs that have them all.
    #[arg(long, value_name = "KEY=VALUE")]
    apart_from: Vec<String>,
    /// What near and apart mean: the label of hosts that tells which of them fail together, such as `rack`.
    /// Without one, the host.
    #[arg(long, value_name = "LABEL")]
    domain: Option<String>,
    /// Which of the possible hosts is best: `spread` takes the emptiest, `pack` the fullest.
    #[arg(long, value_name = "WAY", value_parser = ["spread", "pack"])]
    scoring: Option<String>,
}

/// `key=value`, once and again.
pub(crate) fn read_labels<M: Extend<(String, String)>>(
    texts: &[String],
    into: &mut M,
) -> Result<()> {
    for text in texts {
        let (key, value) = text.split_once('=').context("a label is KEY=VALUE")?;
        into.extend([(key.to_owned(), value.to_owned())]);
    }
    Ok(())
}

/// `512`, `512M` or `2G`.
fn parse_mib(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.trim_end_matches("iB").trim_end_matches('B') {
        text if text.ends_with(['G', 'g']) => (&text[..text.len() - 1], 1024),
        text if text.ends_with(['M', 'm']) => (&text[..text.len() - 1], 1),
        text => (text, 1),
    };
    let number: u32 = number.parse().map_err(|_| "use a number of MiB, or 2G".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "is too large".to_owned())
}

impl SpecFlags {
    /// Puts the flags into a spec.
    pub(crate) fn put_into(self, spec: &mut v1::VmSpec) -> Result<()> {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut spec.vcpus, self.vcpus);
        set(&mut spec.memory_mib, self.memory);
        set(&mut spec.image, self.image);
        set(&mut spec.root_disk_mib, self.root_disk);
        set(&mut spec.pool, self.pool);
        set(&mut spec.cmdline, self.cmdline);
        set(&mut spec.run_policy, self.run_policy);
        set(&mut spec.failover, self.failover);
        spec.failover_priority = self.failover_priority.or(spec.failover_priority);
        if !self.failover_after.is_empty() {
            spec.failover_after = self.failover_after;
        }
        set(&mut spec.deletion_protection, self.deletion_protection);
        set(&mut spec.host, self.host);
        if !self.disks.is_empty() {
            spec.disks = self.disks.into_iter().map(|size_mib| v1::Disk { size_mib }).collect();
        }
        if !self.nics.is_empty() {
            spec.nics = self.nics.into_iter().map(|network| v1::Nic { network }).collect();
        }
        if let Some(path) = self.user_data {
            spec.user_data = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
        }
        read_labels(&self.labels, &mut spec.labels)?;
        let mut rules = spec.placement.clone().unwrap_or_default();
        read_labels(&self.host_labels, &mut rules.host_labels)?;
        read_labels(&self.near, &mut rules.near)?;
        read_labels(&self.apart_from, &mut rules.apart_from)?;
        set(&mut rules.domain, self.domain);
        set(&mut rules.scoring, self.scoring);
        if spec.placement.is_some() || rules != v1::PlacementRules::default() {
            spec.placement = Some(rules);
        }
        Ok(())
    }
}
