//! A guest's serial console: what it wrote, and typing at it.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use client::v1::{self, consoles_client::ConsolesClient, vms_client::VmsClient};
use crossterm::terminal;
use tokio::{io::AsyncReadExt, sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use crate::{Session, call};

/// Ctrl-]: as at virsh and telnet.
const ESCAPE: u8 = 0x1d;
/// How long the answers to the last of what came from a pipe are waited for.
const LINGER: Duration = Duration::from_secs(2);

/// The terminal passes every key on; it is given back as it was.
struct Raw;

impl Raw {
    fn enter() -> Result<Raw> {
        terminal::enable_raw_mode().context("the terminal cannot be used")?;
        Ok(Raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = terminal::disable_raw_mode();
    }
}

/// What ended the typing.
enum End {
    /// The escape key.
    Left,
    /// The end of what is piped in.
    Piped,
}

/// Shows what the guest wrote, and with `follow` goes on as it writes.
pub(crate) async fn logs(session: &Session, project: &str, name: &str, follow: bool) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(500);
    let mut offset = 0;
    loop {
        let request = v1::GetConsoleLogRequest {
            project: project.to_owned(),
            vm: name.to_owned(),
            offset,
            bytes_max: 0,
        };
        let log = call!(session, VmsClient<_>, get_console_log, request).await?;
        print!("{}", log.text);
        std::io::stdout().flush()?;
        let more = log.next_offset > offset;
        offset = log.next_offset;
        if !more {
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Types at it.
pub(crate) async fn attach(session: &Session, project: &str, vm: &str) -> Result<()> {
    let (typed, messages) = mpsc::channel(16);
    let first = v1::AttachConsoleRequest {
        project: project.to_owned(),
        vm: vm.to_owned(),
        data: Vec::new(),
    };
    typed.send(first).await.context("the console is closed")?;
    let (channel, request) = session.client.stream(ReceiverStream::new(messages));
    let shown = ConsolesClient::new(channel).attach_console(request).await;
    let mut shown = shown.map_err(|status| client::Error::Refused(Box::new(status)))?.into_inner();

    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprintln!("Attached to {vm}. Ctrl-] leaves it.\r");
    }
    let raw = if terminal { Some(Raw::enter()?) } else { None };
    let typing = pass_on(&typed);
    tokio::pin!(typing);
    let mut end = None;
    loop {
        let linger = async {
            match end {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = shown.message() => match answer {
                Ok(Some(answer)) => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(&answer.data)?;
                    out.flush()?;
                }
                Ok(None) => break,
                Err(status) => {
                    drop(raw);
                    bail!("the console was closed: {}", status.message());
                }
            },
            ended = &mut typing, if end.is_none() => match ended? {
                End::Left => break,
                End::Piped => end = Some(Instant::now() + LINGER),
            },
            () = linger => break,
        }
    }
    drop(raw);
    if terminal {
        eprintln!("\nLeft {vm}.");
        // A read of the terminal is under way and cannot be called back.
        std::process::exit(0);
    }
    Ok(())
}

/// Passes on what is typed.
async fn pass_on(typed: &mpsc::Sender<v1::AttachConsoleRequest>) -> Result<End> {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 4_096];
    loop {
        let count = input.read(&mut buffer).await?;
        if count == 0 {
            return Ok(End::Piped);
        }
        let keys = &buffer[..count];
        let left = keys.iter().position(|key| *key == ESCAPE);
        let data = keys[..left.unwrap_or(count)].to_vec();
        let message = v1::AttachConsoleRequest { data, ..Default::default() };
        if typed.send(message).await.is_err() || left.is_some() {
            return Ok(End::Left);
        }
    }
}
