//! What something used over time, in a file that never grows: a value every ten seconds for an hour, every minute for a
//! day, every ten minutes for a month.
//!
//! ```text
//!  header │ 360 slots of 10 s │ 1440 slots of 1 min │ 4320 slots of 10 min
//! ```
//!
//! A slot has its number, time divided by its length, and where it lies follows from that: what is older is
//! overwritten by what comes, and a slot whose number is another's is a gap. Nothing is synced: what a loss of power
//! takes is a gap too.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What was used at some time, or on average over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// CPUs that were busy; 1.5 is one and a half.
    pub cpus: f32,
    /// Memory, bytes.
    pub memory_bytes: f32,
    /// Read from disks, bytes/s.
    pub disk_read: f32,
    /// Written to disks, bytes/s.
    pub disk_written: f32,
    /// Received over network cards, bytes/s.
    pub received: f32,
    /// Sent over network cards, bytes/s.
    pub sent: f32,
}

/// How far apart values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ten seconds, for an hour.
    Seconds10,
    /// A minute, for a day.
    Minute,
    /// Ten minutes, for a month of 30 days.
    Minutes10,
}

impl Step {
    /// Every step, the finest first.
    pub const ALL: [Step; 3] = [Step::Seconds10, Step::Minute, Step::Minutes10];

    /// How far apart values are, seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        match self {
            Step::Seconds10 => 10,
            Step::Minute => 60,
            Step::Minutes10 => 600,
        }
    }

    /// How many are kept.
    #[must_use]
    pub const fn slots(self) -> u64 {
        match self {
            Step::Seconds10 => 360,
            Step::Minute => 1_440,
            Step::Minutes10 => 4_320,
        }
    }

    /// The finest that reaches as far back as this.
    #[must_use]
    pub fn reaching(seconds: u64) -> Step {
        let reaches = |step: &Step| step.seconds() * step.slots() >= seconds;
        Step::ALL.into_iter().find(reaches).unwrap_or(Step::Minutes10)
    }

    /// The next finer one, whose means it has.
    #[must_use]
    pub const fn finer(self) -> Option<Step> {
        match self {
            Step::Seconds10 => None,
            Step::Minute => Some(Step::Seconds10),
            Step::Minutes10 => Some(Step::Minute),
        }
    }

    /// Where its slots begin in a file.
    const fn begin(self) -> u64 {
        match self {
            Step::Seconds10 => HEADER_BYTES,
            Step::Minute => Step::Seconds10.begin() + Step::Seconds10.slots() * SLOT_BYTES,
            Step::Minutes10 => Step::Minute.begin() + Step::Minute.slots() * SLOT_BYTES,
        }
    }

    fn offset(self, number: u64) -> u64 {
        self.begin() + number % self.slots() * SLOT_BYTES
    }
}

const MAGIC: &[u8; 16] = b"novacron-series1";
const HEADER_BYTES: u64 = 32;
const SLOT: usize = 32;
const SLOT_BYTES: u64 = SLOT as u64;
/// What every file takes, bytes.
const FILE_BYTES: u64 = Step::Minutes10.begin() + Step::Minutes10.slots() * SLOT_BYTES;

impl Sample {
    fn values(self) -> [f32; 6] {
        let Sample { cpus, memory_bytes, disk_read, disk_written, received, sent } = self;
        [cpus, memory_bytes, disk_read, disk_written, received, sent]
    }

    fn of(values: [f32; 6]) -> Sample {
        let [cpus, memory_bytes, disk_read, disk_written, received, sent] = values;
        Sample { cpus, memory_bytes, disk_read, disk_written, received, sent }
    }

    /// The mean of some; none of none.
    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    fn mean(samples: &[Sample]) -> Option<Sample> {
        let sum = samples.iter().fold([0.0; 6], |mut sum, sample| {
            sum.iter_mut().zip(sample.values()).for_each(|(sum, value)| *sum += value);
            sum
        });
        (!samples.is_empty()).then(|| Sample::of(sum.map(|sum| sum / samples.len() as f32)))
    }

    /// The sum of both, of what has several parts.
    #[must_use]
    pub fn and(self, other: Sample) -> Sample {
        let mut sum = self.values();
        sum.iter_mut().zip(other.values()).for_each(|(sum, value)| *sum += value);
        Sample::of(sum)
    }
}

/// The file of one subject.
pub struct Series {
    path: PathBuf,
}

impl Series {
    /// That of a file, which needs not be there.
    #[must_use]
    pub fn at(path: PathBuf) -> Series {
        Series { path }
    }

    /// Writes values, the oldest first. `last_s` is when the one before them was written, if that is known; the means
    /// of what has ended meanwhile are written too.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, samples: &[(u64, Sample)], last_s: Option<u64>) -> io::Result<()> {
        let file = self.open()?;
        let mut last_s = match last_s {
            Some(last_s) => Some(last_s),
            None => newest(&file)?,
        };
        for (at_s, sample) in samples {
            end(&file, last_s, *at_s)?;
            put(&file, Step::Seconds10, at_s / Step::Seconds10.seconds(), *sample)?;
            last_s = Some(*at_s);
        }
        Ok(())
    }

    /// Writes the means of what has not ended, since nothing comes after `last_s`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn close(&self, last_s: Option<u64>) -> io::Result<()> {
        let file = self.open()?;
        end(&file, last_s, u64::MAX)
    }

    /// The values from `from_s` on, up to `to_s`, each with the time at which its step began; Unix seconds. Where
    /// nothing was written there is none. What is not there is empty.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, step: Step, from_s: u64, to_s: u64) -> io::Result<Vec<(u64, Sample)>> {
        let file = match File::open(&self.path) {
            Ok(file) if is_ours(&file) => file,
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let upto = to_s / step.seconds() + 1;
        let from = from_s.div_ceil(step.seconds()).max(upto.saturating_sub(step.slots()));
        let found = slots(&file, step, from, upto.saturating_sub(from))?;
        Ok(found.into_iter().map(|(number, sample)| (number * step.seconds(), sample)).collect())
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&self.path)?;
        if !is_ours(&file) {
            file.set_len(0)?;
            file.write_all_at(MAGIC, 0)?;
            file.set_len(FILE_BYTES)?;
        }
        Ok(file)
    }
}

/// Writes the means of the minute, and of the ten, that have ended between both times.
fn end(file: &File, last_s: Option<u64>, at_s: u64) -> io::Result<()> {
    for [fine, coarse] in [[Step::Seconds10, Step::Minute], [Step::Minute, Step::Minutes10]] {
        let Some(ended) = last_s.map(|last_s| last_s / coarse.seconds()) else { break };
        if ended >= at_s / coarse.seconds() {
            break;
        }
        let each = coarse.seconds() / fine.seconds();
        let parts = slots(file, fine, ended * each, each)?;
        let parts: Vec<Sample> = parts.into_iter().map(|(_, sample)| sample).collect();
        if let Some(mean) = Sample::mean(&parts) {
            put(file, coarse, ended, mean)?;
        }
    }
    Ok(())
}

/// The means of values of a finer step, each with the time at which its step began.
pub fn means(step: Step, finer: &[(u64, Sample)]) -> Vec<(u64, Sample)> {
    let slot = |at_s: u64| at_s / step.seconds();
    let parts = finer.chunk_by(|(one, _), (next, _)| slot(*one) == slot(*next));
    let means = parts.filter_map(|part| {
        let samples: Vec<Sample> = part.iter().map(|(_, sample)| *sample).collect();
        Some((slot(part.first()?.0) * step.seconds(), Sample::mean(&samples)?))
    });
    means.collect()
}

fn is_ours(file: &File) -> bool {
    let mut magic = [0; MAGIC.len()];
    let length = file.metadata().map(|metadata| metadata.len());
    length.is_ok_and(|length| length == FILE_BYTES)
        && file.read_exact_at(&mut magic, 0).is_ok()
        && magic == *MAGIC
}

fn put(file: &File, step: Step, number: u64, sample: Sample) -> io::Result<()> {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&number.to_le_bytes());
    for (at, value) in slot[8..].chunks_exact_mut(4).zip(sample.values()) {
        at.copy_from_slice(&value.to_le_bytes());
    }
    file.write_all_at(&slot, step.offset(number))
}

/// Those of `count` slots from `first` on that are there. They lie in a row, but for where the ring begins anew.
fn slots(file: &File, step: Step, first: u64, count: u64) -> io::Result<Vec<(u64, Sample)>> {
    let mut found = Vec::new();
    let (mut number, end) = (first, first + count.min(step.slots()));
    while number < end {
        let row = (step.slots() - number % step.slots()).min(end - number);
        let mut bytes = vec![0; usize::try_from(row * SLOT_BYTES).unwrap_or(0)];
        file.read_exact_at(&mut bytes, step.offset(number))?;
        for (number, slot) in (number..).zip(bytes.chunks_exact(SLOT)) {
            let (head, rest) = slot.split_at(8);
            if head == number.to_le_bytes() {
                let mut values = [0.0; 6];
                for (value, bytes) in values.iter_mut().zip(rest.chunks_exact(4)) {
                    *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                found.push((number, Sample::of(values)));
            }
        }
        number += row;
    }
    Ok(found)
}

/// When the newest of the finest values was written.
fn newest(file: &File) -> io::Result<Option<u64>> {
    let step = Step::Seconds10;
    let mut bytes = vec![0; usize::try_from(step.slots() * SLOT_BYTES).unwrap_or(0)];
    file.read_exact_at(&mut bytes, step.begin())?;
    let numbers = bytes.chunks_exact(SLOT).filter_map(|slot| {
        slot.first_chunk().map(|number| u64::from_le_bytes(*number)).filter(|number| *number > 0)
    });
    Ok(numbers.max().map(|number| number * step.seconds()))
}

/// Removes the files of a directory that `is_wanted` does not want, by their names, or that nobody has written to for
/// as long as they reach back.
///
/// # Errors
/// What the file system says.
pub fn sweep(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let reach_s = Step::Minutes10.seconds() * Step::Minutes10.slots();
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        let is_old = age.as_secs() > reach_s;
        if is_old || !entry.file_name().to_str().is_some_and(&is_wanted) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(cpus: f32) -> Sample {
        Sample { cpus, ..Sample::default() }
    }

    /// What is read, as pairs of a time and its CPUs.
    fn read(series: &Series, step: Step, from_s: u64, to_s: u64) -> Vec<(u64, f32)> {
        let read = series.read(step, from_s, to_s).unwrap();
        read.into_iter().map(|(at_s, sample)| (at_s, sample.cpus)).collect()
    }

    /// A time at which all three steps begin.
    const BEGIN: u64 = 600 * 3_000_000;

    #[test]
    fn values_become_means_and_old_ones_give_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm");
        let series = Series::at(path.clone());
        assert_eq!(read(&series, Step::Seconds10, 0, u64::MAX / 2), []);
        // Two hours in which the n-th minute has n CPUs, but for one that nobody saw.
        let mut last = None;
        for at_s in (BEGIN..BEGIN + 7_200).step_by(10) {
            let minute = (at_s - BEGIN) / 60;
            if minute != 90 {
                let busy = u16::try_from(minute).unwrap();
                series.write(&[(at_s, cpus(f32::from(busy)))], last).unwrap();
                last = Some(at_s);
            }
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_BYTES);
        let end = BEGIN + 7_199;
        let fine = read(&series, Step::Seconds10, BEGIN, end);
        assert_eq!(
            (fine.len(), fine[0]),
            (354, (BEGIN + 3_600, 60.0)),
            "an hour, but for a minute"
        );
        let minutes = read(&series, Step::Minute, BEGIN, end);
        assert_eq!(minutes.len(), 118, "the last has not ended, one was not seen");
        assert!(
            minutes.iter().all(|(at_s, busy)| f64::from(*busy) == ((at_s - BEGIN) / 60) as f64)
        );
        let tens = read(&series, Step::Minutes10, BEGIN, end);
        let busy: Vec<f32> = tens.iter().map(|(_, busy)| *busy).collect();
        // Of the tenth the minute is missing that was not seen.
        let expected = [4.5, 14.5, 24.5, 34.5, 44.5, 54.5, 64.5, 74.5, 84.5, 95.0, 104.5];
        assert_eq!(busy, expected);

        // Who begins anew finds where it was.
        let next = [(BEGIN + 7_200, cpus(1.0)), (BEGIN + 7_260, cpus(2.0))];
        series.write(&next, None).unwrap();
        assert_eq!(
            read(&series, Step::Minute, BEGIN + 7_200, BEGIN + 7_300),
            [(BEGIN + 7_200, 1.0)],
            "the minute between both has ended"
        );
        assert_eq!(read(&series, Step::Minute, BEGIN + 7_140, end), [(BEGIN + 7_140, 119.0)]);
        assert_eq!(read(&series, Step::Minutes10, BEGIN + 6_600, end).len(), 1);
        // A part of it, and a file that is none.
        assert_eq!(read(&series, Step::Minute, BEGIN + 60, BEGIN + 180).len(), 3);
        std::fs::write(&path, "something else").unwrap();
        assert_eq!(read(&series, Step::Minute, BEGIN, end), []);
        series.write(&[(BEGIN, cpus(2.0))], None).unwrap();
        assert_eq!(read(&series, Step::Seconds10, BEGIN, BEGIN + 9), [(BEGIN, 2.0)]);
        sweep(directory.path(), |name| name != "vm").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_finest_step_is_taken_that_reaches() {
        for (seconds, step) in [
            (60, Step::Seconds10),
            (3_600, Step::Seconds10),
            (3_601, Step::Minute),
            (86_400, Step::Minute),
            (86_401, Step::Minutes10),
            (u64::MAX, Step::Minutes10),
        ] {
            assert_eq!(Step::reaching(seconds), step, "{seconds}");
        }
    }
}
