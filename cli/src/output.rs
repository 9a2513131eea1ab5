//! How results are shown: one table of columns per noun serves every format.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

/// How results are shown.
#[derive(Args, Clone, Debug)]
pub struct Output {
    /// How results are shown.
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Only these columns, in this order, for table, wide and csv; those of wide may be named too.
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAME,…")]
    columns: Vec<String>,
    /// No line with the columns' names.
    #[arg(long, global = true)]
    no_headers: bool,
}

/// A format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// The API's own JSON, stable.
    Json,
    /// The same as YAML.
    Yaml,
    /// One object per line, as JSON.
    Ndjson,
    /// All columns, separated by commas.
    Csv,
    /// Only names.
    Name,
}

/// A column: its head, whether only `wide` shows it, and what stands in it.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    pub(crate) wide: bool,
    pub(crate) cell: fn(&Value) -> String,
}

/// A column of every table format.
pub(crate) const fn column(head: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { head, wide: false, cell }
}

/// A column of `wide` alone.
pub(crate) const fn wide(head: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { head, wide: true, cell }
}

/// What stands at a path such as `spec.vcpus`; `-` for nothing.
pub(crate) fn at(row: &Value, path: &str) -> String {
    let mut value = row;
    for step in path.split('.') {
        value = &value[step];
    }
    match value {
        Value::String(text) if !text.is_empty() => plain(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => "-".to_owned(),
    }
}

/// A line of text that others have written, without what a terminal would take for orders.
pub(crate) fn plain(text: &str) -> String {
    text.replace(['\n', '\t'], " ").replace(char::is_control, "\u{fffd}")
}

/// The same of several lines.
pub(crate) fn lines(row: &Value, path: &str) -> String {
    row[path].as_str().unwrap_or_default().lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// A number that JSON leaves out when it is 0.
pub(crate) fn number(row: &Value, path: &str) -> String {
    match at(row, path).as_str() {
        "-" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// A number of bytes, as people read it. JSON carries it as text.
pub(crate) fn bytes(row: &Value, path: &str) -> String {
    indicatif::BinaryBytes(number(row, path).parse().unwrap_or(0)).to_string()
}

/// Labels as people give them; `-` for none.
pub(crate) fn labels(row: &Value) -> String {
    let all = row["labels"].as_object().into_iter().flatten();
    let all = all.map(|(label, value)| format!("{label}={}", value.as_str().unwrap_or_default()));
    match plain(&all.collect::<Vec<_>>().join(",")).as_str() {
        "" => "-".to_owned(),
        labels => labels.to_owned(),
    }
}

/// The texts of a list; `-` for none.
pub(crate) fn list(row: &Value, path: &str) -> String {
    let texts = row[path].as_array().into_iter().flatten().filter_map(Value::as_str);
    match plain(&texts.collect::<Vec<_>>().join(",")).as_str() {
        "" => "-".to_owned(),
        texts => texts.to_owned(),
    }
}

impl Output {
    /// Shows rows.
    pub(crate) fn rows<T: Serialize>(&self, rows: &[T], columns: &[Column]) -> Result<()> {
        let values = rows.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        match self.format {
            Format::Table | Format::Wide if values.is_empty() => eprintln!("there are none"),
            Format::Json => println!("{}", serde_json::to_string_pretty(&values)?),
            Format::Yaml => print!("{}", serde_saphyr::to_string(&values)?),
            Format::Table | Format::Wide | Format::Ndjson | Format::Csv | Format::Name => {
                self.lines(&values, columns)?;
            }
        }
        Ok(())
    }

    /// Shows one row.
    pub(crate) fn row<T: Serialize>(&self, row: &T, columns: &[Column]) -> Result<()> {
        let value = serde_json::to_value(row)?;
        match self.format {
            Format::Json => println!("{}", serde_json::to_string_pretty(&value)?),
            Format::Yaml => print!("{}", serde_saphyr::to_string(&value)?),
            Format::Table | Format::Wide | Format::Ndjson | Format::Csv | Format::Name => {
                self.lines(&[value], columns)?;
            }
        }
        Ok(())
    }

    /// The formats that have lines for rows.
    fn lines(&self, rows: &[Value], columns: &[Column]) -> Result<()> {
        match self.format {
            Format::Name => rows.iter().for_each(|row| println!("{}", name(row))),
            Format::Ndjson => {
                for row in rows {
                    println!("{}", serde_json::to_string(row)?);
                }
            }
            Format::Csv => {
                let shown = self.shown(columns)?;
                let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
                if !self.no_headers {
                    writer.write_record(shown.iter().map(|column| column.head))?;
                }
                for row in rows {
                    writer.write_record(shown.iter().map(|column| (column.cell)(row)))?;
                }
                writer.flush()?;
            }
            Format::Table | Format::Wide | Format::Json | Format::Yaml => {
                println!("{}", self.table(rows, &self.shown(columns)?));
            }
        }
        Ok(())
    }

    /// The columns that are asked for.
    fn shown<'a>(&self, columns: &'a [Column]) -> Result<Vec<&'a Column>> {
        if self.columns.is_empty() {
            let all = matches!(self.format, Format::Wide | Format::Csv);
            return Ok(columns.iter().filter(|column| all || !column.wide).collect());
        }
        let named = |name: &String| {
            let found = columns.iter().find(|column| column.head.eq_ignore_ascii_case(name.trim()));
            found.with_context(|| {
                let heads: Vec<&str> = columns.iter().map(|column| column.head).collect();
                format!("there is no column {name:?}; there are {}", heads.join(", "))
            })
        };
        self.columns.iter().map(named).collect()
    }

    fn table(&self, rows: &[Value], columns: &[&Column]) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if !self.no_headers {
            table.set_header(columns.iter().map(|column| column.head));
        }
        for row in rows {
            table.add_row(columns.iter().map(|column| (column.cell)(row)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.trim_fmt()
    }
}

fn name(row: &Value) -> String {
    match at(row, "name").as_str() {
        "-" => at(row, "id"),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_given_no_orders() {
        let row = serde_json::json!({
            "owner": "a\u{1b}]52;c;eA==\u{7}b",
            "labels": {"team": "x\ny"},
            "hosts": ["h\u{9b}1", "h2"],
        });
        assert_eq!(at(&row, "owner"), "a\u{fffd}]52;c;eA==\u{fffd}b");
        assert_eq!(labels(&row), "team=x y");
        assert_eq!(list(&row, "hosts"), "h\u{fffd}1,h2");
    }
}
