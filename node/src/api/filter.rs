//! Filters and orders of lists, on the rows as the API shows them: one language for all nouns.
//!
//! `phase=running AND labels.tier!=gold AND name:web`; `=` equals, `!=` differs, `:` contains.
//! Fields may be written as in the .proto files or as in JSON; `labels` is short for `spec.labels`.

use domain::rejected::Rejected;
use proto::convert::invalid;
use serde::Serialize;
use serde_json::Value;

mod pick;

use pick::text_at;

const TERMS_MAX: usize = 16;
const BYTES_MAX: usize = 1_024;

/// A filter that was read.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<Term>);

#[derive(Debug)]
struct Term {
    path: Vec<String>,
    comparison: Comparison,
    wanted: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equals,
    Differs,
    Contains,
}

impl Filter {
    /// Reads a filter for rows of `message`.
    pub(super) fn parse(text: &str, message: &str) -> Result<Filter, Rejected> {
        let wrong = |what: String| Err(invalid("page.filter", what));
        if text.len() > BYTES_MAX {
            return wrong(format!("is longer than {BYTES_MAX} bytes"));
        }
        let mut terms = Vec::new();
        for term in text.split(" AND ").map(str::trim).filter(|term| !term.is_empty()) {
            let Some(at) = term.find(['=', '!', ':']) else {
                return wrong(format!("{term:?} has no =, != or :"));
            };
            let (field, rest) = term.split_at(at);
            let (comparison, wanted) = match rest.as_bytes() {
                [b'=', ..] => (Comparison::Equals, &rest[1..]),
                [b'!', b'=', ..] => (Comparison::Differs, &rest[2..]),
                [b':', ..] => (Comparison::Contains, &rest[1..]),
                _ => return wrong(format!("{term:?} has no =, != or :")),
            };
            let path = path(field.trim(), message).map_err(|what| invalid("page.filter", what))?;
            let wanted = wanted.trim().trim_matches('"').to_owned();
            terms.push(Term { path, comparison, wanted });
        }
        if terms.len() > TERMS_MAX {
            return wrong(format!("has more than {TERMS_MAX} terms"));
        }
        Ok(Filter(terms))
    }

    /// Whether the row passes every term.
    pub(super) fn passes<T: Serialize>(&self, row: &T) -> bool {
        self.0.iter().all(|term| {
            let found = text_at(row, &term.path);
            match term.comparison {
                Comparison::Equals => found == term.wanted,
                Comparison::Differs => found != term.wanted,
                Comparison::Contains => found.contains(&term.wanted),
            }
        })
    }
}

/// An order that was read: a path, and whether the greatest comes first.
#[derive(Debug)]
pub(super) struct Order {
    path: Vec<String>,
    pub(super) descending: bool,
}

impl Order {
    /// Reads an order for rows of `message`; empty is none.
    pub(super) fn parse(text: &str, message: &str) -> Result<Option<Order>, Rejected> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let (field, descending) = match text.strip_suffix(" desc") {
            Some(field) => (field.trim(), true),
            None => (text, false),
        };
        let path = path(field, message).map_err(|what| invalid("page.order_by", what))?;
        Ok(Some(Order { path, descending }))
    }

    /// What rows are ordered by: numbers by value, all else by its text.
    pub(super) fn key<T: Serialize>(&self, row: &T) -> String {
        let text = text_at(row, &self.path);
        match text.parse::<u64>() {
            Ok(number) => format!("{number:020}"),
            Err(_) => text,
        }
    }
}

/// A field's path in the JSON of `message`, checked against the API's own description.
fn path(field: &str, message: &str) -> Result<Vec<String>, String> {
    static SCHEMAS: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| serde_json::from_str(proto::OPENAPI).unwrap_or_default());
    let field = match field.strip_prefix("labels.") {
        Some(label) => format!("spec.labels.{label}"),
        None => field.to_owned(),
    };
    let mut schema = &SCHEMAS["components"]["schemas"][message];
    let mut path = Vec::new();
    for step in field.split('.') {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            schema = &SCHEMAS["components"]["schemas"][name];
        }
        if schema["additionalProperties"].is_object() {
            // A map: any key, as it is written.
            path.push(step.to_owned());
            schema = &schema["additionalProperties"];
            continue;
        }
        let step = camel(step);
        let Some(next) = schema["properties"].get(&step) else {
            return Err(format!("there is no field {field:?} to filter or order by"));
        };
        path.push(step);
        schema = next;
    }
    Ok(path)
}

fn camel(snake: &str) -> String {
    let mut upper = false;
    let mut camel = String::with_capacity(snake.len());
    for letter in snake.chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                camel.push(letter.to_ascii_uppercase());
                upper = false;
            }
            letter => camel.push(letter),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn passes(filter: &str, row: &Value) -> Result<bool, String> {
        let filter = Filter::parse(filter, "novacron.v1.Vm").map_err(|r| r.message)?;
        Ok(filter.passes(row))
    }

    #[test]
    fn the_table() {
        let row = json!({"name": "web-1", "phase": "running", "restartNeeded": true,
            "spec": {"vcpus": 2, "labels": {"tier": "gold"}}});
        let table = [
            ("", true),
            ("phase=running", true),
            ("phase=stopped", false),
            ("phase!=stopped AND name:web", true),
            ("name:db", false),
            ("labels.tier=gold", true),
            ("spec.labels.tier=gold AND labels.none=", true),
            ("labels.tier!=gold", false),
            ("spec.vcpus=2", true),
            ("restart_needed=true AND restartNeeded=true", true),
            ("host=", true),
        ];
        for (filter, expected) in table {
            assert_eq!(passes(filter, &row), Ok(expected), "{filter}");
        }
        for bad in ["nonsense", "colour=red", "phase>running", "spec.colour=red", "a=1 AND b"] {
            assert!(passes(bad, &row).is_err(), "{bad}");
        }
    }
}
