//! What stands on the screen.

use anyhow::Result;
use clap::ValueEnum;
use client::v1;
use ratatui::{
    Frame, Terminal,
    backend::TestBackend,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};
use serde_json::Value;

use super::{Seen, cluster, host, operation, vm};
use crate::output::Column;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// VMs.
    Vms,
    /// Hosts.
    Hosts,
    /// Operations, those that have not ended first.
    Operations,
    /// Nodes, as Raft sees them.
    Nodes,
}

impl View {
    const ALL: [View; 4] = [View::Vms, View::Hosts, View::Operations, View::Nodes];

    pub(super) fn next(self) -> View {
        let at = View::ALL.iter().position(|view| *view == self).unwrap_or_default();
        View::ALL[(at + 1) % View::ALL.len()]
    }

    const fn title(self) -> &'static str {
        match self {
            View::Vms => "VMs",
            View::Hosts => "Hosts",
            View::Operations => "Operations",
            View::Nodes => "Nodes",
        }
    }

    fn columns(self) -> Vec<&'static Column> {
        let columns = match self {
            View::Vms => vm::COLUMNS,
            View::Hosts => host::COLUMNS,
            View::Operations => operation::COLUMNS,
            View::Nodes => cluster::COLUMNS,
        };
        columns.iter().filter(|column| !column.wide).collect()
    }
}

/// The screen.
pub(super) struct Screen {
    pub(super) view: View,
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) types: bool,
    pub(super) reversed: bool,
    /// The column by which rows are sorted; none as they come.
    sorted: Option<usize>,
    /// The first row that is shown.
    pub(super) top: usize,
    seen: Seen,
    /// Why nothing newer was seen.
    failed: Option<String>,
}

impl Screen {
    pub(super) fn new(view: View, filter: String) -> Screen {
        Screen {
            view,
            filter,
            types: false,
            reversed: false,
            sorted: None,
            top: 0,
            seen: Seen::default(),
            failed: None,
        }
    }

    /// Takes what was seen; what was seen before stays while nobody answers.
    pub(super) fn show(&mut self, seen: Result<Seen>) {
        match seen {
            Ok(seen) => (self.seen, self.failed) = (seen, None),
            Err(error) => self.failed = Some(format!("{error:#}")),
        }
    }

    pub(super) fn go(&mut self, view: View) {
        (self.view, self.sorted, self.top) = (view, None, 0);
    }

    pub(super) fn sort_by_next(&mut self) {
        let count = self.view.columns().len();
        self.sorted = match self.sorted {
            None => Some(0),
            Some(column) if column + 1 < count => Some(column + 1),
            Some(_) => None,
        };
    }

    pub(super) fn scroll(&mut self, rows: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.top = self.top.saturating_add_signed(rows).min(last);
    }

    /// The cells of the rows that are to be seen, in their order.
    fn rows(&self) -> Vec<Vec<String>> {
        let nodes: Vec<Value>;
        let rows = match self.view {
            View::Vms => &self.seen.vms,
            View::Hosts => &self.seen.hosts,
            View::Operations => &self.seen.operations,
            View::Nodes => {
                let row = |node| serde_json::to_value(node).unwrap_or_default();
                nodes = self.seen.cluster.nodes.iter().map(row).collect();
                &nodes
            }
        };
        let columns = self.view.columns();
        let mut rows: Vec<&Value> = rows.iter().collect();
        // Stable: each half stays as it came.
        rows.sort_by_key(|row| {
            let status = row["status"].as_str().unwrap_or_default();
            self.view == View::Operations && matches!(status, "done" | "rolled_back")
        });
        let cells = |row: &Value| -> Vec<String> {
            columns.iter().map(|column| (column.cell)(row)).collect()
        };
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<Vec<String>> = rows.into_iter().map(cells).collect();
        rows.retain(|row| row.iter().any(|cell| cell.to_lowercase().contains(&wanted)));
        if let Some(column) = self.sorted {
            rows.sort_by(|a, b| by_number(&a[column], &b[column]));
        }
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let parts = [
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ];
        let [head, tabs, body, foot] = Layout::vertical(parts).areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        frame.render_widget(Paragraph::new(self.tabs()), tabs);
        self.table(frame, body);
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn head(&self) -> Line<'static> {
        let v1::Cluster {
            name,
            leader,
            term,
            losable,
            answered_by,
            hosts_ready,
            hosts,
            vms,
            open_operations,
            ..
        } = &self.seen.cluster;
        let leader = match leader.as_str() {
            "" => "no leader".red().bold(),
            leader => format!("{leader} leads in term {term}").into(),
        };
        let hosts_part = Span::from(format!("{hosts_ready}/{hosts} hosts"));
        let hosts_part = if hosts_ready < hosts { hosts_part.red() } else { hosts_part };
        let gap = || Span::from("  ");
        // Only the leader hears of all voters.
        let losable = match answered_by == &self.seen.cluster.leader {
            true => format!("{losable} more may be lost").into(),
            false => format!("as {answered_by} sees it").into(),
        };
        let counts = format!("{vms} VMs  {open_operations} operations under way").into();
        Line::from(vec![
            name.clone().bold(),
            gap(),
            leader,
            gap(),
            losable,
            gap(),
            hosts_part,
            gap(),
            counts,
        ])
    }

    fn tabs(&self) -> Line<'static> {
        let tab = |(number, view): (usize, View)| {
            let text = Span::from(format!(" {} {} ", number + 1, view.title()));
            if view == self.view { text.reversed() } else { text }
        };
        Line::from_iter(View::ALL.into_iter().enumerate().map(tab))
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect) {
        let (columns, rows) = (self.view.columns(), self.rows());
        let widths = columns.iter().enumerate().map(|(at, column)| {
            let cells = rows.iter().map(|row| row[at].chars().count());
            let widest = cells.chain([column.head.len() + 1]).max().unwrap_or_default();
            u16::try_from(widest.min(40)).unwrap_or(40)
        });
        let mark = if self.reversed { "▲" } else { "▼" };
        let heads = columns.iter().enumerate().map(|(at, column)| match self.sorted {
            Some(sorted) if sorted == at => format!("{}{mark}", column.head),
            _ => column.head.to_owned(),
        });
        let header = Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD));
        let widths: Vec<Constraint> = widths.map(Constraint::Length).collect();
        let shown = rows
            .iter()
            .skip(self.top.min(rows.len().saturating_sub(1)))
            .map(|row| Row::new(row.iter().map(|cell| cell_of(cell))));
        let table = Table::new(shown, widths).header(header).column_spacing(2);
        frame.render_widget(table, area);
    }

    fn foot(&self) -> Line<'static> {
        if self.types {
            return Line::from(format!("/{}▏ Enter keeps it, Esc removes it", self.filter));
        }
        if let Some(error) = &self.failed {
            return Line::from(format!("as it was last seen: {error}")).red();
        }
        let filter = match self.filter.as_str() {
            "" => String::new(),
            filter => format!("  filter: {filter}"),
        };
        Line::from(format!("Tab next  s sort  r reverse  / filter  ↑↓ scroll  q leave{filter}"))
            .dim()
    }

    /// One screen as text, as high as it needs to be.
    pub(super) fn text(&self, columns: u16) -> String {
        /// Besides rows: head, tabs, columns' heads, foot.
        const AROUND: usize = 4;
        let rows = u16::try_from(self.rows().len() + AROUND).unwrap_or(u16::MAX);
        let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows.min(1_000)));
        let Ok(drawn) = terminal.draw(|frame| self.draw(frame));
        let buffer = drawn.buffer;
        let line = |y: u16| -> String {
            let line: String = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        };
        (0..buffer.area.height).map(line).collect::<Vec<_>>().join("\n")
    }
}

/// What is wrong is seen from afar.
fn cell_of(text: &str) -> Cell<'static> {
    let color = match text {
        "running" | "ready" | "done" | "leader" => Some(Color::Green),
        "failed" | "lost" | "unknown" | "stuck" => Some(Color::Red),
        "pending" | "migrating" | "draining" | "cordoned" | "unwinding" | "rolled_back" => {
            Some(Color::Yellow)
        }
        _ => None,
    };
    let cell = Cell::from(text.to_owned());
    match color {
        Some(color) => cell.style(Style::new().fg(color)),
        None => cell,
    }
}

/// Numbers by what they are, with or without a unit; all else as text.
fn by_number(a: &str, b: &str) -> std::cmp::Ordering {
    let number = |text: &str| -> Option<f64> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    match (number(a), number(b)) {
        (Some(left), Some(right)) => left.total_cmp(&right).then_with(|| a.cmp(b)),
        _ => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use client::v1;
    use crossterm::event::{KeyCode, KeyEvent};
    use serde_json::json;

    use super::*;

    fn screen() -> Screen {
        let vm = |name: &str, phase: &str, memory: u64| json!({"name": name, "phase": phase, "host": "h1", "spec": {"vcpus": 1, "memoryMib": memory.to_string(), "image": "tiny"}});
        let node = |name: &str, role: &str| v1::Node {
            name: name.to_owned(),
            role: role.to_owned(),
            ..Default::default()
        };
        let mut screen = Screen::new(View::Vms, String::new());
        screen.show(Ok(Seen {
            cluster: v1::Cluster {
                name: "lab".to_owned(),
                leader: "n2".to_owned(),
                term: 4,
                losable: 1,
                answered_by: "n2".to_owned(),
                hosts_ready: 1,
                hosts: 2,
                vms: 3,
                open_operations: 1,
                nodes: vec![node("n1", "voter"), node("n2", "leader")],
                ..Default::default()
            },
            vms: vec![
                vm("web", "running", 512),
                vm("db", "stopped", 2_048),
                vm("old", "unknown", 64),
            ],
            ..Default::default()
        }));
        screen
    }

    /// The first cells of the rows after some keys.
    fn check(keys: &[KeyCode], expected: &[&str]) {
        let mut screen = screen();
        for key in keys {
            assert!(!screen.press(KeyEvent::from(*key)), "{keys:?} left");
        }
        let rows = screen.rows();
        let shown: Vec<&str> = rows.iter().skip(screen.top).map(|row| row[0].as_str()).collect();
        assert_eq!(shown, expected, "{keys:?}");
    }

    #[test]
    fn keys_sort_filter_and_switch() {
        let c = KeyCode::Char;
        check(&[], &["web", "db", "old"]);
        check(&[c('s')], &["db", "old", "web"]);
        check(&[c('s'), c('r')], &["web", "old", "db"]);
        // By memory, as numbers.
        check(&[c('s'); 5], &["old", "web", "db"]);
        check(&[c('/'), c('d'), c('b'), KeyCode::Enter], &["db"]);
        check(&[c('/'), c('q'), KeyCode::Backspace, c('u'), c('n'), c('k')], &["old"]);
        check(&[c('/'), c('x'), KeyCode::Esc], &["web", "db", "old"]);
        check(&[KeyCode::Down], &["db", "old"]);
        check(&[KeyCode::PageDown], &["old"]);
        check(&[c('4')], &["n1", "n2"]);
        check(
            &[KeyCode::Tab, KeyCode::Tab, KeyCode::Tab, KeyCode::Tab, KeyCode::Home],
            &["web", "db", "old"],
        );
        for leave in [c('q'), KeyCode::Esc] {
            assert!(screen().press(KeyEvent::from(leave)));
        }
    }

    #[test]
    fn a_screen_is_as_it_was_drawn() {
        let mut screen = screen();
        screen.sort_by_next();
        let expected = "\
lab  n2 leads in term 4  1 more may be lost  1/2 hosts  3 VMs  1 operations under way
 1 VMs  2 Hosts  3 Operations  4 Nodes
NAME▼  PHASE    HOST   VCPUS   MEMORY    IMAGE
db     stopped  h1     1       2048 MiB  tiny
old    unknown  h1     1       64 MiB    tiny
web    running  h1     1       512 MiB   tiny
Tab next  s sort  r reverse  / filter  ↑↓ scroll  q leave";
        assert_eq!(screen.text(100), expected);
        screen.show(Err(anyhow::anyhow!("nobody answers")));
        let text = screen.text(100);
        assert!(
            text.contains("web") && text.ends_with("as it was last seen: nobody answers"),
            "{text}"
        );
    }
}
