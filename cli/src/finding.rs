//! What somebody who looked found, and how it is shown.

use anyhow::Result;
use serde::Serialize;

use crate::{
    Common,
    output::{Column, at, column, lines},
};

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It could not be looked at.
    Skipped,
    /// It works, and may not for long.
    Warning,
    /// It does not work, or what is promised does not hold.
    Bad,
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of what, as `disk.sync`.
    pub check: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen.
    pub found: String,
    /// What to do about it; empty when nothing is to be done.
    pub remedy: String,
}

impl Finding {
    /// It is as it should be.
    pub fn good(check: impl Into<String>, found: impl Into<String>) -> Finding {
        let (check, found) = (check.into(), found.into());
        Finding { check, verdict: Verdict::Good, found, remedy: String::new() }
    }

    /// It could not be looked at, and how it could be.
    pub fn skipped(check: &str, found: impl Into<String>, remedy: &str) -> Finding {
        Finding::make(check, Verdict::Skipped, found, remedy)
    }

    /// It works, and may not for long.
    pub fn warning(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::make(check, Verdict::Warning, found, remedy)
    }

    /// It does not work.
    pub fn bad(check: &str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding::make(check, Verdict::Bad, found, remedy)
    }

    fn make(
        check: &str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let (check, found, remedy) = (check.to_owned(), found.into(), remedy.into());
        Finding { check, verdict, found, remedy }
    }
}

const COLUMNS: &[Column] = &[
    column("CHECK", |row| at(row, "check")),
    column("VERDICT", |row| at(row, "verdict")),
    column("FOUND", |row| lines(row, "found")),
    column("REMEDY", |row| lines(row, "remedy")),
];

/// Shows findings.
///
/// # Errors
/// When something is bad.
pub fn report(findings: &[Finding], common: &Common) -> Result<()> {
    common.output.rows(findings, COLUMNS)?;
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    match bad {
        0 => Ok(()),
        1 => anyhow::bail!("one thing is bad"),
        bad => anyhow::bail!("{bad} things are bad"),
    }
}
