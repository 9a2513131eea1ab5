//! `novacron-lab-power DIRECTORY`: the fencing agent of a lab's host. Exits with 0 after it has seen that
//! nothing runs on the host any more.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return ExitCode::FAILURE;
    };
    match novacron_lab::power::cut(&directory) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
