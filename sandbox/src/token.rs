//! Payment tokens: each stands for a card, and for one way in which a provider or the network behaves.

use std::time::Duration;

/// What the provider does with an authorisation; the customer's "card".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Approved at once.
    Ok,
    /// Declined at once.
    Declined,
    /// Waits for the customer, who finishes it at the challenge's address.
    RequiresAction,
    /// Approved and committed, then the connection is cut without an answer, once for a key.
    AnswerLost,
    /// Answers 500 and records nothing, once for a key; then approves.
    FailsOnce,
    /// Approved and committed, answered only after a delay.
    Slow,
    /// Never answered, never recorded.
    Never,
    /// Approved; the webhook arrives before the answer does.
    WebhookFirst,
    /// Approved; each webhook arrives twice.
    WebhookTwice,
    /// Approved; each webhook arrives late.
    WebhookLate,
    /// Approved; no webhook is ever sent.
    WebhookNever,
}

/// When and how often one event is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) copies: u32,
    pub(crate) delay: Duration,
}

/// Which status changes are told by webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Webhooks {
    /// Only changes of payments made with a webhook token, and the outcome of a challenge.
    #[default]
    WebhookTokens,
    /// Every change of every payment, save those made with `tok_webhook_never`.
    All,
}

impl Token {
    /// Every token, in the order of the documentation.
    pub const ALL: [Token; 11] = [
        Token::Ok,
        Token::Declined,
        Token::RequiresAction,
        Token::AnswerLost,
        Token::FailsOnce,
        Token::Slow,
        Token::Never,
        Token::WebhookFirst,
        Token::WebhookTwice,
        Token::WebhookLate,
        Token::WebhookNever,
    ];

    /// The token by its text, or nothing when there is no such card.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|token| token.as_str() == text)
    }

    /// The text a client sends.
    pub fn as_str(self) -> &'static str {
        match self {
            Token::Ok => "tok_ok",
            Token::Declined => "tok_declined",
            Token::RequiresAction => "tok_requires_action",
            Token::AnswerLost => "tok_answer_lost",
            Token::FailsOnce => "tok_500_then_ok",
            Token::Slow => "tok_slow",
            Token::Never => "tok_never",
            Token::WebhookFirst => "tok_webhook_first",
            Token::WebhookTwice => "tok_webhook_twice",
            Token::WebhookLate => "tok_webhook_late",
            Token::WebhookNever => "tok_webhook_never",
        }
    }

    /// How an event of a payment made with this token is delivered; `answers_challenge` is true for
    /// the outcome of a challenge, which nobody could learn without being told.
    pub(crate) fn delivery(self, policy: Webhooks, answers_challenge: bool, late: Duration) -> Option<Delivery> {
        let once = Delivery { copies: 1, delay: Duration::ZERO };
        match self {
            Token::WebhookFirst => Some(once),
            Token::WebhookTwice => Some(Delivery { copies: 2, ..once }),
            Token::WebhookLate => Some(Delivery { delay: late, ..once }),
            Token::WebhookNever | Token::Never => None,
            Token::Ok
            | Token::Declined
            | Token::RequiresAction
            | Token::AnswerLost
            | Token::FailsOnce
            | Token::Slow => match policy {
                Webhooks::All => Some(once),
                Webhooks::WebhookTokens => answers_challenge.then_some(once),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_found_by_its_own_text() {
        for token in Token::ALL {
            assert_eq!(Token::parse(token.as_str()), Some(token));
        }
        assert_eq!(Token::parse("tok_free_money"), None);
    }

    #[test]
    fn by_default_only_webhook_tokens_and_challenges_are_told_by_webhook() {
        let told = |token: Token, challenge| {
            token
                .delivery(Webhooks::WebhookTokens, challenge, Duration::from_secs(5))
                .map(|delivery| (delivery.copies, delivery.delay.as_secs()))
        };
        assert_eq!(told(Token::Ok, false), None);
        assert_eq!(told(Token::RequiresAction, true), Some((1, 0)));
        assert_eq!(told(Token::WebhookTwice, false), Some((2, 0)));
        assert_eq!(told(Token::WebhookLate, false), Some((1, 5)));
        assert_eq!(told(Token::WebhookNever, true), None);
    }
}
