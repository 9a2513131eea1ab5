//! `novacron top`: the cluster on the whole terminal, as it changes.

mod screen;

use std::{io::IsTerminal, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use client::v1::{
    self, clusters_client::ClustersClient, hosts_client::HostsClient,
    operations_client::OperationsClient, vms_client::VmsClient,
};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{Session, all_pages, call, cluster, host, operation, vm};
use screen::{Screen, View};

/// See the module.
#[derive(Args, Clone, Debug)]
pub struct Top {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// What is shown first.
    #[arg(long, value_enum, default_value_t = View::Vms)]
    view: View,
    /// Only rows with this text.
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
    /// Print one screen of this many columns and leave: for files and other programs.
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=500))]
    once: Option<u16>,
}

/// The cluster at one moment.
#[derive(Clone, Debug, Default)]
struct Seen {
    cluster: v1::Cluster,
    hosts: Vec<Value>,
    vms: Vec<Value>,
    operations: Vec<Value>,
}

async fn look(session: &Session) -> Result<Seen> {
    fn values<T: Serialize>(rows: &[T]) -> Result<Vec<Value>> {
        Ok(rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
    }
    // As new as the node that answers has it: nobody waits for a majority to look.
    let freshness = Some(v1::Freshness { stale: true, ..Default::default() });
    let page = v1::Page { page_size: 1_000, ..Default::default() };
    // There may be many that have ended: the newest are enough.
    let newest = v1::Page { order_by: "created_at desc".to_owned(), ..page.clone() };
    let status = v1::GetClusterRequest { freshness };
    let cluster = call!(session, ClustersClient<_>, get_cluster, status);
    let hosts = v1::ListHostsRequest { page: Some(page.clone()), freshness };
    let vms = v1::ListVmsRequest { project: "-".to_owned(), page: Some(page), freshness };
    let operations = v1::ListOperationsRequest { page: Some(newest), freshness };
    let operations = call!(session, OperationsClient<_>, list_operations, operations);
    Ok(Seen {
        cluster: cluster.await?,
        hosts: values(&all_pages!(session, HostsClient<_>, list_hosts, hosts, hosts).0)?,
        vms: values(&all_pages!(session, VmsClient<_>, list_vms, vms, vms).0)?,
        operations: values(&operations.await?.operations)?,
    })
}

pub(crate) async fn run(session: &Session, top: Top) -> Result<()> {
    let mut screen = Screen::new(top.view, top.filter);
    if let Some(columns) = top.once {
        screen.show(look(session).await);
        println!("{}", screen.text(columns));
        return Ok(());
    }
    ensure!(
        std::io::stdout().is_terminal(),
        "this needs a terminal; `novacron top --once 120` prints one screen"
    );
    let interval = Duration::from_secs(top.interval);
    let mut terminal = ratatui::try_init()?;
    let shown = show(session, &mut terminal, &mut screen, interval).await;
    ratatui::restore();
    shown
}

async fn show(
    session: &Session,
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    interval: Duration,
) -> Result<()> {
    // A thread of its own: keys are answered also while nobody else answers.
    let (keys, mut pressed) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if keys.blocking_send(event).is_err() {
                return;
            }
        }
    });
    let look_after = async |pause| {
        tokio::time::sleep(pause).await;
        look(session).await
    };
    let mut looking = Box::pin(look_after(Duration::ZERO));
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        tokio::select! {
            seen = &mut looking => {
                screen.show(seen);
                looking = Box::pin(look_after(interval));
            }
            event = pressed.recv() => {
                let event = event.context("the terminal has gone")?;
                if let Event::Key(key) = event
                    && key.kind == KeyEventKind::Press
                    && screen.press(key)
                {
                    return Ok(());
                }
            }
        }
    }
}

impl Screen {
    /// Does what a key asks for; the answer is whether it asks to leave.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is another crate's")]
    fn press(&mut self, key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return true;
        }
        if self.types {
            match key.code {
                KeyCode::Enter => self.types = false,
                KeyCode::Esc => {
                    self.types = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(typed) => self.filter.push(typed),
                _ => {}
            }
            return false;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('1') => self.go(View::Vms),
            KeyCode::Char('2') => self.go(View::Hosts),
            KeyCode::Char('3') => self.go(View::Operations),
            KeyCode::Char('4') => self.go(View::Nodes),
            KeyCode::Tab => self.go(self.view.next()),
            KeyCode::Char('s') | KeyCode::Right => self.sort_by_next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.types = true,
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown => self.scroll(20),
            KeyCode::PageUp => self.scroll(-20),
            KeyCode::Home => self.top = 0,
            _ => {}
        }
        false
    }
}
