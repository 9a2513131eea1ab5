//! What clients did and saw, in the order in which it happened: what the checkers judge, and what is kept of
//! a run. One JSON object per line:
//!
//! `{"index":7,"time":1203394118,"process":3,"type":"ok","model":"register","f":"read","key":"r4","value":{…}}`
//!
//! | field | what it is |
//! |---|---|
//! | `index` | the line's number, from 0 |
//! | `time` | nanoseconds since the run began, by a clock that nobody sets |
//! | `process` | who acts. It does one thing at a time, and ends with an `info`: it never learns what became of that |
//! | `type` | `invoke`, written before anything is sent; then `ok`: it was done; `fail`: it was not and never will be; `info`: nobody knows |
//! | `model`, `f` | the workload, and what it does |
//! | `key` | what it is done to |
//! | `value` | at `invoke` what is asked, at `ok` what was answered |
//! | `error` | why not |

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub index: u64,
    #[serde(rename = "time")]
    pub time_ns: u64,
    pub process: u64,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub model: String,
    pub f: String,
    pub key: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The history of a run, as it grows.
pub(crate) struct History {
    now_ns: Box<dyn Fn() -> u64 + Send + Sync>,
    processes: AtomicU64,
    lines: Mutex<Lines>,
}

struct Lines {
    out: Box<dyn Write + Send>,
    events: Vec<Event>,
    /// Of a line that could not be written: then the file is not the history.
    failed: Option<io::Error>,
}

impl History {
    /// Begins one in a file.
    pub(crate) fn begin(file: &Path) -> io::Result<Arc<History>> {
        let begun = Instant::now();
        let now_ns = move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(History::timed(BufWriter::new(File::create(file)?), now_ns))
    }

    /// Begins one that tells other time.
    pub(crate) fn timed(
        out: impl Write + Send + 'static,
        now_ns: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Arc<History> {
        let lines = Lines { out: Box::new(out), events: Vec::new(), failed: None };
        Arc::new(History {
            now_ns: Box::new(now_ns),
            processes: AtomicU64::new(0),
            lines: Mutex::new(lines),
        })
    }

    /// Reads one that was kept.
    pub(crate) fn read(file: &Path) -> io::Result<Vec<Event>> {
        let lines = BufReader::new(File::open(file)?).lines();
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now_ns(&self) -> u64 {
        (self.now_ns)()
    }

    /// Somebody new who acts.
    pub(crate) fn process(self: &Arc<History>, model: &'static str) -> Process {
        Process { history: self.clone(), model, number: self.next_process() }
    }

    /// A copy of what there is so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.lines().events.clone()
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// When any line could not be written.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut lines = self.lines();
        match lines.failed.take() {
            Some(error) => Err(error),
            None => lines.out.flush(),
        }
    }

    fn next_process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, mut event: Event) {
        let mut lines = self.lines();
        // Under the lock: lines and times are in one order.
        event.time_ns = self.now_ns();
        event.index = lines.events.len() as u64;
        let written = serde_json::to_writer(&mut lines.out, &event).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| lines.out.write_all(b"\n")) {
            lines.failed.get_or_insert(error);
        }
        lines.events.push(event);
    }
}

/// Who acts.
pub(crate) struct Process {
    history: Arc<History>,
    model: &'static str,
    number: u64,
}

impl Process {
    /// Says what is about to be asked.
    pub(crate) fn invoke(&mut self, f: &'static str, key: &str, value: Value) -> Call<'_> {
        let call = Call { process: self, f, key: key.to_owned(), answered: false };
        call.note(Kind::Invoke, value, None);
        call
    }
}

/// Something that was asked. Without an answer nobody knows what became of it.
#[must_use]
pub(crate) struct Call<'a> {
    process: &'a mut Process,
    f: &'static str,
    key: String,
    answered: bool,
}

impl Call<'_> {
    /// It was done.
    pub(crate) fn ok(mut self, value: Value) {
        self.answered = true;
        self.note(Kind::Ok, value, None);
    }

    /// It was not done, and never will be.
    pub(crate) fn fail(mut self, why: String) {
        self.answered = true;
        self.note(Kind::Fail, Value::Null, Some(why));
    }

    /// Takes what a client heard to a question that changes nothing: without an answer there was none.
    pub(crate) fn hear_of<A>(self, answer: &Result<A, client::Error>, value: impl Fn(&A) -> Value) {
        match answer {
            Ok(answer) => self.ok(value(answer)),
            Err(error) => self.fail(word(error)),
        }
    }

    /// Takes what a client heard. What was refused was not done; whatever else is not known.
    pub(crate) fn hear<A>(self, answer: &Result<A, client::Error>, value: impl Fn(&A) -> Value) {
        match answer {
            Ok(answer) => self.ok(value(answer)),
            Err(error @ client::Error::Refused(_)) if is_final(error) => self.fail(word(error)),
            Err(error) => self.info(word(error)),
        }
    }

    /// Nobody knows.
    pub(crate) fn info(mut self, why: String) {
        self.unknown(Some(why));
    }

    fn unknown(&mut self, why: Option<String>) {
        self.answered = true;
        self.note(Kind::Info, Value::Null, why);
        self.process.number = self.process.history.next_process();
    }

    fn note(&self, kind: Kind, value: Value, error: Option<String>) {
        self.process.history.note(Event {
            index: 0,
            time_ns: 0,
            process: self.process.number,
            kind,
            model: self.process.model.to_owned(),
            f: self.f.to_owned(),
            key: self.key.clone(),
            value,
            error,
        });
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.unknown(None);
        }
    }
}

/// Whether a refusal says for certain that nothing was done, although an earlier attempt may have gone unanswered:
/// the law asks whether it knows the request first, and what these say never turns back.
fn is_final(error: &client::Error) -> bool {
    matches!(error.reason().as_str(), "ETAG_MISMATCH" | "LOCK_HELD" | "FENCED" | "NOT_FOUND")
}

/// A refusal by its stable reason, anything else by its sentence.
fn word(error: &client::Error) -> String {
    let reason = error.reason();
    if reason.is_empty() { error.to_string() } else { reason }
}

/// How something that was asked ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// When it was answered, and what.
    Ok(u64, Value),
    /// When it was refused, and why.
    Fail(u64, String),
    /// Nobody knows.
    Unknown,
}

/// Something that was asked, and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub f: String,
    pub key: String,
    pub asked: Value,
    pub invoked_ns: u64,
    pub end: End,
}

/// What was done under a model, in the order of asking. What is still open at the end is unknown.
pub(crate) fn operations(events: &[Event], model: &str) -> Vec<Operation> {
    let mut all: Vec<Operation> = Vec::new();
    let mut open = std::collections::BTreeMap::new();
    for event in events.iter().filter(|event| event.model == model) {
        let end = match event.kind {
            Kind::Invoke => {
                open.insert(event.process, all.len());
                all.push(Operation {
                    f: event.f.clone(),
                    key: event.key.clone(),
                    asked: event.value.clone(),
                    invoked_ns: event.time_ns,
                    end: End::Unknown,
                });
                continue;
            }
            Kind::Ok => End::Ok(event.time_ns, event.value.clone()),
            Kind::Fail => End::Fail(event.time_ns, event.error.clone().unwrap_or_default()),
            Kind::Info => End::Unknown,
        };
        if let Some(at) = open.remove(&event.process) {
            all[at].end = end;
        }
    }
    all
}
