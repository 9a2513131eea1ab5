//! What a test has broken on purpose, to show that it would notice: `NOVACRON_TEST_BREAK` says it. Nothing
//! is ever broken in a release.

/// Whether this is what is broken.
#[must_use]
pub fn is_broken(what: &str) -> bool {
    cfg!(debug_assertions) && std::env::var_os("NOVACRON_TEST_BREAK").is_some_and(|it| it == what)
}
