//! `novacron`: the node and the operator commands in one binary.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what speaks to people")]

mod command;

use std::process::ExitCode;

use clap::Parser;

use command::Cli;

/// A node makes and drops many small things on several threads; see docs/adr/0016.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Who is woken comes behind those that wait already, and so finds more to do at a time; see docs/adr/0016.
    let runtime = match runtime.enable_all().disable_lifo_slot().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(command::dispatch(cli));
    // A store that hangs on a broken disk must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(refused) = error.downcast_ref::<client::Error>() {
                for (field, problem) in refused.violations().iter().skip(1) {
                    eprintln!("       {field}: {problem}");
                }
            }
            ExitCode::from(code(&error))
        }
    }
}

/// 3 when the data directory cannot be trusted, else what operator commands say.
fn code(error: &anyhow::Error) -> u8 {
    let damaged = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<raft_store::StoreError>(),
            Some(raft_store::StoreError::Damage(_))
        )
    });
    if damaged { 3 } else { cli::exit_code(error) }
}
