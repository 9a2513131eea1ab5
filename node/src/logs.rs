//! Logs: lines for people, or JSON objects for machines.

use std::{
    fmt::{self, Write},
    io::IsTerminal,
    sync::OnceLock,
};

use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    prelude::*,
    registry::LookupSpan,
};

use crate::config::{LogFormat, LogSection};

/// Libraries that say too much.
const QUIET: &str = "ractor=off,sled=warn,openraft=error,h2=warn,hyper=warn,tower=warn,rustls=warn,runtime=off,tokio=off";

/// The node whose process this is, once it is known. Nodes of `novacron dev` share one, and have none.
static NODE: OnceLock<String> = OnceLock::new();

/// Says whose lines are written from now on.
pub fn of_node(name: &str) {
    let _ = NODE.set(name.to_owned());
}

/// Starts logging to standard error. A second start changes nothing.
pub fn start(section: &LogSection) {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", section.level))
        .unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},info")));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // Only the first call in a process can succeed; tests start several nodes in one.
    let _ = match section.format {
        LogFormat::Human => registry
            .with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false))
            .try_init(),
        LogFormat::Json => registry.with(lines.event_format(Objects)).try_init(),
    };
}

/// One JSON object per line: `timestamp`, `level`, `node`, `message`, `target`, and the fields of what is told.
/// docs/logging.md has their names.
struct Objects;

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        // Last: no field of an event takes their place.
        fields.0.insert("timestamp".to_owned(), jiff::Timestamp::now().to_string().into());
        fields.0.insert("level".to_owned(), metadata.level().as_str().into());
        if let Some(node) = NODE.get() {
            fields.0.insert("node".to_owned(), node.as_str().into());
        }
        fields.0.insert("target".to_owned(), metadata.target().into());
        writeln!(out, "{}", Value::Object(fields.0))
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.put(field, text.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_an_object_with_the_fields_that_apply() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines.event_format(Objects));
        tracing::subscriber::with_default(subscriber, || {
            let (phase, vm_id): (Option<&str>, Option<&str>) = (None, Some("a \"name\"\n"));
            let error = anyhow::anyhow!("below").context("above");
            let error: &(dyn std::error::Error + 'static) = error.as_ref();
            tracing::warn!(vm_id, phase, duration_ms = 7_u64, shown = %"text", level = 7, error, "operation");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let timestamp = line["timestamp"].take();
        assert!(timestamp.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{timestamp}");
        let expected = json!({
            "timestamp": null, "level": "WARN", "target": "novacron::logs::tests", "message": "operation",
            "vm_id": "a \"name\"\n", "duration_ms": 7, "shown": "text", "error": "above: below",
        });
        assert_eq!(line, expected);
    }
}
