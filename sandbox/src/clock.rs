//! The one place of this crate that reads the wall clock.
//!
//! The provider stands for somebody else's company, so it does not share the shop's clock.

/// The present moment, as the provider sees it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
