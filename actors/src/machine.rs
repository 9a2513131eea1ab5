//! What this machine uses, as its kernel counts it.

use drivers::Usage;

/// What it has used since it booted; none when the kernel does not say.
pub(crate) fn usage() -> Option<Usage> {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let usage = Usage {
        cpu_ns: cpu_ticks(&read("/proc/stat")?)? * (1_000_000_000 / ticks_per_second.max(1)),
        memory_mib: memory_mib(&read("/proc/meminfo")?)?,
        ..disks(&read("/proc/diskstats").unwrap_or_default())
    };
    let (received, sent) = network(&read("/proc/net/dev").unwrap_or_default());
    Some(Usage { network_received_bytes: received, network_sent_bytes: sent, ..usage })
}

/// Time in which processors did something.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let all = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = all.map_while(|ticks| ticks.parse().ok()).collect();
    // User, nice, system, idle, waiting for disks, interrupts, soft ones, taken by others. Guests are a part of user.
    let [user, nice, system, _, _, interrupts, soft, ..] = ticks[..] else { return None };
    Some(user + nice + system + interrupts + soft)
}

/// What is not to be had any more.
fn memory_mib(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().split(' ').next()?.parse::<u64>().ok()
    };
    Some(kib("MemTotal:")?.saturating_sub(kib("MemAvailable:")?) / 1_024)
}

/// Whole disks: what is on another device is counted there.
fn disks(diskstats: &str) -> Usage {
    const SECTOR_BYTES: u64 = 512;
    let mut usage = Usage::default();
    for line in diskstats.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, name, _, _, read, _, _, _, written, ..] = fields[..] else { continue };
        let is_virtual = ["loop", "ram", "dm-", "md", "zram"].iter().any(|it| name.starts_with(it));
        let is_whole = std::path::Path::new("/sys/block").join(name).exists();
        if !is_virtual && is_whole {
            usage.disk_read_bytes += read.parse::<u64>().unwrap_or(0) * SECTOR_BYTES;
            usage.disk_written_bytes += written.parse::<u64>().unwrap_or(0) * SECTOR_BYTES;
        }
    }
    usage
}

/// Received and sent over cards that are hardware's, as far as that can be told.
fn network(dev: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in dev.lines() {
        let Some((name, counts)) = line.split_once(':') else { continue };
        let name = name.trim();
        let is_virtual = ["lo", "veth", "vnet", "tap", "virbr", "docker", "br-"]
            .iter()
            .any(|it| name.starts_with(it));
        let counts: Vec<u64> =
            counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        if let ([received, _, _, _, _, _, _, _, sent, ..], false) = (&counts[..], is_virtual) {
            sum = (sum.0 + received, sum.1 + sent);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        assert_eq!(cpu_ticks("cpu  10 1 20 1000 50 2 3 0 5 0\ncpu0 1"), Some(36));
        assert_eq!(cpu_ticks("intr 1"), None);
        let memory = "MemTotal:       24576 kB\nMemFree: 1 kB\nMemAvailable:   4096 kB\n";
        assert_eq!(memory_mib(memory), Some(20));
        let header = "Inter-|   Receive      |  Transmit\n face |bytes packets|bytes\n";
        let cards =
            "    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 40 1 0 0 0 0 0 0\n";
        assert_eq!(network(&format!("{header}{cards}")), (100, 40));
        let counted = usage().unwrap();
        assert!(counted.cpu_ns > 0 && counted.memory_mib > 0, "{counted:?}");
    }
}
