//! What guests write to their consoles: a tick, and the next one.

use std::{
    fmt,
    fs::File,
    io::{Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use novacron_lab::Cluster;

/// What guests write to their consoles, from the hosts' own files. A file that was opened once stays
/// readable when its host has removed it.
#[derive(Default)]
pub struct Consoles(Vec<(PathBuf, File)>);

impl Consoles {
    /// Opens the files of a VM that are there and not open yet.
    pub fn look(&mut self, cluster: &Cluster, vm: &str) {
        for host in ["h1", "h2", "h3"] {
            let path = cluster.console_file(host, vm);
            let Ok(file) = File::open(&path) else { continue };
            let inode = |file: &File| file.metadata().map(|seen| seen.ino()).ok();
            if !self.0.iter().any(|(_, known)| inode(known) == inode(&file)) {
                self.0.push((path, file));
            }
        }
    }

    /// What each file holds by now.
    fn texts(&mut self) -> impl DoubleEndedIterator<Item = (&Path, String)> {
        self.0.iter_mut().map(|(path, file)| {
            let mut text = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut text).unwrap();
            (&**path, String::from_utf8_lossy(&text).into_owned())
        })
    }

    /// The ticks of each file, in runs that begin with a boot. Only a guest that came from elsewhere
    /// begins without one.
    fn runs(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (path, text) in self.texts() {
            for (n, part) in without_kernel(&text).split("GUEST-UP").enumerate() {
                let run = Run::of(path.to_owned(), n == 0, part);
                runs.extend(Some(run).filter(|run| !run.ticks.is_empty()));
            }
        }
        runs
    }

    /// How often the guest moved. Nobody ever ticked twice: each run counts on without a gap, and one that
    /// came from elsewhere goes on exactly where another one ended.
    pub fn moves(&mut self) -> Result<usize, String> {
        let runs = self.runs();
        for run in &runs {
            if let Some(pair) = run.ticks.windows(2).find(|pair| pair[1] != pair[0] + 1) {
                return Err(format!("ticks are missing or there twice: {pair:?} in {run:?}"));
            }
            if run.came && !runs.iter().any(|other| run.follows(other)) {
                return Err(format!("{run:?} follows none of {runs:#?}"));
            }
        }
        Ok(runs.iter().filter(|run| run.came).count())
    }

    pub fn boots(&mut self) -> usize {
        self.runs().iter().filter(|run| !run.came).count()
    }

    /// What its kernel said when it found its memory damaged, on whichever host, if it did.
    pub fn crash(&mut self) -> Option<String> {
        const WORDS: [&str; 5] =
            ["general protection fault", "BUG: ", "Oops: ", "Kernel panic", "segfault at"];
        self.texts().rev().find_map(|(_, text)| {
            let said = text.lines().find(|line| WORDS.iter().any(|word| line.contains(word)));
            said.map(str::to_owned)
        })
    }

    /// How often it is there, on all hosts together.
    pub fn count(&mut self, words: &str) -> usize {
        self.texts().map(|(_, text)| text.matches(words).count()).sum()
    }

    /// The last lines of each console.
    pub fn last_words(&mut self) -> String {
        let mut words = String::new();
        for (path, text) in self.texts() {
            let last: Vec<_> = text.lines().rev().take(8).collect();
            words += &path.display().to_string();
            words.extend(last.iter().rev().flat_map(|line| ["\n  ", line]));
            words.push('\n');
        }
        words
    }

    pub fn ticks(&mut self) -> usize {
        self.runs().iter().map(|run| run.ticks.len()).sum()
    }
}

struct Run {
    path: PathBuf,
    came: bool,
    /// The rest of a line that was begun elsewhere, if it came.
    head: String,
    ticks: Vec<u32>,
    /// The beginning of a line.
    tail: String,
}

/// What a console shows without what the guest's kernel says between, also in the middle of a line.
fn without_kernel(text: &str) -> String {
    let mut lines = String::new();
    let mut rest = text;
    while let Some((before, said)) = rest.split_once('[') {
        lines += before;
        let time = said.split_once(']').map(|(time, _)| time.trim_start()).unwrap_or_default();
        let is_time = time.split_once('.').is_some_and(|(seconds, micros)| {
            micros.len() == 6 && seconds.parse::<u64>().is_ok() && micros.parse::<u64>().is_ok()
        });
        if is_time {
            rest = said.split_once('\n').map_or("", |(_, after)| after);
        } else {
            lines.push('[');
            rest = said;
        }
    }
    lines + rest
}

fn tick(line: &str) -> Option<u32> {
    line.trim().strip_prefix("tick ")?.parse().ok()
}

impl Run {
    fn of(path: PathBuf, came: bool, text: &str) -> Run {
        let (whole, tail) = text.rsplit_once('\n').unwrap_or(("", text));
        let (head, lines) =
            if came { whole.split_once('\n').unwrap_or((whole, "")) } else { ("", whole) };
        let ticks = lines.lines().filter_map(tick).collect();
        Run { path, came, head: head.to_owned(), ticks, tail: tail.to_owned() }
    }

    /// Whether it goes on where another one ended. A guest moves in the middle of a line, too.
    fn follows(&self, other: &Run) -> bool {
        let (Some(first), Some(last)) = (self.ticks.first(), other.ticks.last()) else {
            return false;
        };
        match tick(&format!("{}{}", other.tail, self.head)) {
            Some(between) => between == last + 1 && *first == between + 1,
            None => *first == last + 1,
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { path, came, head, ticks, tail } = self;
        let (first, last) = (ticks.first(), ticks.last());
        write!(f, "{} came={came} {head:?} {first:?}..{last:?} {tail:?}", path.display())
    }
}

#[test]
fn what_the_kernel_says_in_the_middle_of_a_line_hides_no_tick() {
    for (text, ticks) in [
        ("up\ntick 1\r\ntick 2\r\n", &[1, 2][..]),
        ("up\ntick 1\r\n[  160.132600] clocksource: tsc\r\ntick 2\r\n", &[1, 2]),
        ("up\ntick 1\r\nti[  160.132600] clocksource: tsc\r\nck 2\r\ntick 3\n", &[1, 2, 3]),
        ("up\ntick 1[2.000001] a\r\n[2.000002] [b] c\r\n0\r\ntick 11\n", &[10, 11]),
        ("up [1.5]\ntick 1\n", &[1]),
    ] {
        let run = Run::of("a".into(), false, &without_kernel(text));
        assert_eq!(run.ticks, ticks, "{text:?}");
    }
}

#[test]
fn a_guest_that_moves_in_the_middle_of_a_line_misses_no_tick() {
    let rows = [
        ("up\ntick 1\ntick 2\n", "tick 3\ntick 4\n", true),
        ("up\ntick 1\ntick 2\nti", "ck 3\ntick 4\n", true),
        ("up\ntick 1\ntick 2\ntick 3", "\ntick 4\n", true),
        ("up\ntick 1\ntick 2\n", "\ntick 3\n", true),
        ("up\ntick 1\ntick 2\n", "tick 2\ntick 3\n", false),
        ("up\ntick 1\ntick 2\n", "tick 4\ntick 5\n", false),
        ("up\ntick 1\ntick 2\ntick 3", "\ntick 3\n", false),
        ("up\ntick 1\ntick 2\ntick 1", "0\ntick 11\n", false),
    ];
    for (source, target, good) in rows {
        let (source, target) =
            (Run::of("a".into(), false, source), Run::of("b".into(), true, target));
        assert_eq!(target.follows(&source), good, "{source:?} {target:?}");
    }
}
