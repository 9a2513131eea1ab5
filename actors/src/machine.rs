//! What this machine uses, as its kernel counts it.

use std::path::Path;

use drivers::Usage;

/// What it has used since it booted; none when the kernel does not say. It reads files: not for a thread that others
/// wait for.
pub(crate) fn usage() -> Option<Usage> {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let usage = Usage {
        cpu_ns: cpu_ticks(&read("/proc/stat")?)? * (1_000_000_000 / ticks_per_second.max(1)),
        memory_mib: memory_mib(&read("/proc/meminfo")?)?,
        ..disks(&read("/proc/diskstats").unwrap_or_default(), is_hardware("/sys/block"))
    };
    let dev = read("/proc/net/dev").unwrap_or_default();
    let (received, sent) = network(&dev, is_hardware("/sys/class/net"));
    Some(Usage { network_received_bytes: received, network_sent_bytes: sent, ..usage })
}

/// Whether there is a device below: what goes through a bridge, a bond, a tap or a volume on disks is counted where it
/// comes to one.
fn is_hardware(class: &str) -> impl Fn(&str) -> bool {
    move |name| Path::new(class).join(name).join("device").exists()
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

/// What whole disks have read and written.
fn disks(diskstats: &str, is_hardware: impl Fn(&str) -> bool) -> Usage {
    const SECTOR_BYTES: u64 = 512;
    let mut usage = Usage::default();
    for line in diskstats.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, name, _, _, read, _, _, _, written, ..] = fields[..] else { continue };
        if is_hardware(name) {
            usage.disk_read_bytes += read.parse::<u64>().unwrap_or(0) * SECTOR_BYTES;
            usage.disk_written_bytes += written.parse::<u64>().unwrap_or(0) * SECTOR_BYTES;
        }
    }
    usage
}

/// Received and sent over network cards.
fn network(dev: &str, is_hardware: impl Fn(&str) -> bool) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in dev.lines() {
        let Some((name, counts)) = line.split_once(':') else { continue };
        let counts: Vec<u64> =
            counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        if let ([received, _, _, _, _, _, _, _, sent, ..], true) =
            (&counts[..], is_hardware(name.trim()))
        {
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
        assert_eq!(network(&format!("{header}{cards}"), |name| name == "eth0"), (100, 40));
        let stats = "8 0 vda 1 0 10 0 1 0 4 0 0 0 0\n8 1 vda1 1 0 9 0 1 0 3 0 0 0 0\n230 0 zd0 1 0 7 0 1 0 7 0";
        let read = disks(stats, |name| name == "vda");
        assert_eq!((read.disk_read_bytes, read.disk_written_bytes), (5_120, 2_048));
        let counted = usage().unwrap();
        assert!(counted.cpu_ns > 0 && counted.memory_mib > 0, "{counted:?}");
    }
}
