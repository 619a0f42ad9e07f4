//! The guards that keep abuse out, each with a name, so that a test can open one and show that its abuse comes in then: a test
//! of abuse that passes with its guard open has proven nothing.
//!
//! A release has no way to open one: [`Guard::stands`] is the constant `true` there, and what it stands before is compiled as
//! if nobody asked. With the feature `planted-bugs` a process opens those that it is told to.

/// A guard of ours. What libraries keep out has no name here: it cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A token bears the signature of a key that is published.
    TokenSignature,
    /// A token has not expired.
    TokenTime,
    /// A token is for this shop.
    TokenAudience,
    /// A request shows one token at most.
    OneToken,
    /// A session that was ended opens nothing.
    EndedSession,
    /// A refresh token that was spent ends its session.
    SpentToken,
    /// Guesses of passwords are counted.
    Guesses,
    /// Where a call comes from is what the listener knows.
    ClientAddress,
    /// A method is called by whom its contract names.
    Policy,
    /// What belongs to somebody is seen by nobody else.
    Ownership,
    /// A page's token is good for whom it was made.
    PageToken,
    /// A request id has one effect.
    RequestId,
    /// A request id is good for one request.
    RequestBody,
    /// A message is no larger than its method says.
    MessageSize,
    /// A message keeps the rules of its fields.
    FieldRules,
    /// A quote bears the shop's signature.
    Quote,
    /// A webhook bears the provider's signature.
    WebhookSignature,
    /// A webhook is fresh.
    WebhookAge,
    /// A request over HTTP/1.1 can be read in one way.
    Framing,
    /// Frames that ask for nothing are counted.
    Frames,
    /// Requests that are taken back are counted.
    Resets,
    /// Headers that are begun have to end.
    HeaderTime,
}

impl Guard {
    /// All of them.
    pub const ALL: [Guard; 22] = [
        Guard::TokenSignature,
        Guard::TokenTime,
        Guard::TokenAudience,
        Guard::OneToken,
        Guard::EndedSession,
        Guard::SpentToken,
        Guard::Guesses,
        Guard::ClientAddress,
        Guard::Policy,
        Guard::Ownership,
        Guard::PageToken,
        Guard::RequestId,
        Guard::RequestBody,
        Guard::MessageSize,
        Guard::FieldRules,
        Guard::Quote,
        Guard::WebhookSignature,
        Guard::WebhookAge,
        Guard::Framing,
        Guard::Frames,
        Guard::Resets,
        Guard::HeaderTime,
    ];

    /// As it is called on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Guard::TokenSignature => "token-signature",
            Guard::TokenTime => "token-time",
            Guard::TokenAudience => "token-audience",
            Guard::OneToken => "one-token",
            Guard::EndedSession => "ended-session",
            Guard::SpentToken => "spent-token",
            Guard::Guesses => "guesses",
            Guard::ClientAddress => "client-address",
            Guard::Policy => "policy",
            Guard::Ownership => "ownership",
            Guard::PageToken => "page-token",
            Guard::RequestId => "request-id",
            Guard::RequestBody => "request-body",
            Guard::MessageSize => "message-size",
            Guard::FieldRules => "field-rules",
            Guard::Quote => "quote",
            Guard::WebhookSignature => "webhook-signature",
            Guard::WebhookAge => "webhook-age",
            Guard::Framing => "framing",
            Guard::Frames => "frames",
            Guard::Resets => "resets",
            Guard::HeaderTime => "header-time",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Guard::ALL.into_iter().find(|guard| guard.name() == name)
    }

    /// Whether it stands; always, in a release.
    #[cfg(not(feature = "planted-bugs"))]
    #[inline(always)]
    pub const fn stands(self) -> bool {
        true
    }

    /// Whether it stands.
    #[cfg(feature = "planted-bugs")]
    pub fn stands(self) -> bool {
        planted::OPEN.load(std::sync::atomic::Ordering::Relaxed) & (1 << self as u32) == 0
    }

    /// From now on it lets everything in.
    #[cfg(feature = "planted-bugs")]
    pub fn open(self) {
        planted::OPEN.fetch_or(1 << self as u32, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(feature = "planted-bugs")]
mod planted {
    pub(super) static OPEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
}

#[cfg(test)]
mod tests {
    use super::Guard;

    #[test]
    fn every_guard_stands_and_is_found_by_its_name() {
        for (index, guard) in Guard::ALL.into_iter().enumerate() {
            assert!(guard.stands(), "{guard:?}");
            assert_eq!(Guard::named(guard.name()), Some(guard));
            assert_eq!(guard as usize, index, "each has a place of its own");
        }
        assert_eq!(Guard::named("none"), None);
    }
}
