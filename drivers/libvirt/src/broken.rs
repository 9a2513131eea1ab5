//! What a test has broken on purpose, to show that it would notice: `NOVACRON_TEST_BREAK` says it. Nothing
//! is ever broken in a release.

/// Whether calls are carried out under whichever fence and lease: `ignore-fence`.
pub(crate) fn ignores_fence() -> bool {
    is("ignore-fence")
}

/// Whether a guest that comes goes on as soon as it has been copied: `no-pause`.
pub(crate) fn goes_on_unasked() -> bool {
    is("no-pause")
}

fn is(what: &str) -> bool {
    cfg!(debug_assertions) && std::env::var_os("NOVACRON_TEST_BREAK").is_some_and(|it| it == what)
}
