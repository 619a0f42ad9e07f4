//! Quotes as tokens: the terms of a quote, signed, so that nothing need be stored to keep a promise.
//!
//! A token is `base64url(payload) "." base64url(HMAC-SHA256(label, payload))`. The payload names its key and holds what the
//! cart itself does not know: prices, taxes, weights, shipping, times. What each line *is* follows from the cart at the
//! version the token names, so that 2,000 lines stay far below what a request may carry. The signature is checked over the
//! bytes as they came, before they are read, in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::Guard;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use prost::Message;
use sha2::Sha256;
use uuid::Uuid;

use crate::quote::{LineTerms, Terms};

/// What the signature is for: a signature over the same bytes for another purpose is no quote.
const LABEL: &[u8] = b"stoa.cart.v1.Quote\0";

/// The keys quotes are signed with. At least one.
#[derive(Clone)]
pub(crate) struct Keys {
    keys: Vec<(u32, [u8; 32])>,
}

/// A token that this service did not sign, or not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quote token is not one of this shop")]
pub(crate) struct Forged;

impl Keys {
    /// Keys by their ids, the newest last.
    pub(crate) fn new(keys: Vec<(u32, [u8; 32])>) -> Self {
        Self { keys }
    }

    /// The token of these terms.
    pub(crate) fn sign(&self, terms: &Terms) -> String {
        let (id, secret) = self.keys.last().copied().unwrap_or_default();
        let payload = Sealed::of(id, terms).encode_to_vec();
        let mac = mac(&secret, &payload).finalize().into_bytes();
        let mut token = String::with_capacity(payload.len() * 4 / 3 + 50);
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(mac, &mut token);
        token
    }

    /// The terms of a token, if it was signed here.
    pub(crate) fn open(&self, token: &str) -> Result<Terms, Forged> {
        let (payload, mac) = token.split_once('.').ok_or(Forged)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Forged)?;
        let tag = URL_SAFE_NO_PAD.decode(mac).map_err(|_| Forged)?;
        let signed = self.keys.iter().rev().find(|(_, secret)| self::mac(secret, &payload).verify_slice(&tag).is_ok());
        let (id, _) = signed.or(self.keys.last().filter(|_| !Guard::Quote.stands())).ok_or(Forged)?;
        let sealed = Sealed::decode(payload.as_slice()).map_err(|_| Forged)?;
        if sealed.key == *id { sealed.terms().ok_or(Forged) } else { Err(Forged) }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("ids", &self.keys.iter().map(|(id, _)| id).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn mac(secret: &[u8; 32], payload: &[u8]) -> Hmac<Sha256> {
    // HMAC fills a key up to the hash's block with zeros; done here, making one cannot fail.
    let mut block = [0; 64];
    block[..secret.len()].copy_from_slice(secret);
    Hmac::<Sha256>::new(&block.into()).chain_update(LABEL).chain_update(payload)
}

/// Terms in bytes. Fields are never reused: a token lives longer than a deployment.
#[derive(Clone, PartialEq, Message)]
struct Sealed {
    #[prost(uint32, tag = "1")]
    key: u32,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(string, tag = "3")]
    cart: String,
    #[prost(uint64, tag = "4")]
    etag: u64,
    #[prost(int64, tag = "5")]
    issue_micros: i64,
    #[prost(int64, tag = "6")]
    expire_micros: i64,
    #[prost(int64, repeated, tag = "7")]
    prices: Vec<i64>,
    /// Empty where no line has any.
    #[prost(int64, repeated, tag = "8")]
    taxes: Vec<i64>,
    /// Empty where no line has any.
    #[prost(int32, repeated, tag = "9")]
    weights: Vec<i32>,
    /// Places of the lines that have no stock.
    #[prost(uint32, repeated, tag = "10")]
    unstocked: Vec<u32>,
    #[prost(int64, tag = "11")]
    shipping: i64,
    #[prost(int64, tag = "12")]
    shipping_tax: i64,
    #[prost(string, tag = "13")]
    country: String,
    #[prost(string, tag = "14")]
    service: String,
    #[prost(string, tag = "15")]
    issued_by: String,
    #[prost(string, tag = "16")]
    reason: String,
}

impl Sealed {
    fn of(key: u32, terms: &Terms) -> Self {
        let lines = &terms.lines;
        let unless_zero = |any: bool| if any { lines.as_slice() } else { &[] };
        Self {
            key,
            id: Uuid::try_parse(&terms.id).unwrap_or_default().as_bytes().to_vec(),
            cart: terms.cart.clone(),
            etag: terms.etag,
            issue_micros: terms.issue_time.as_microsecond(),
            expire_micros: terms.expire_time.as_microsecond(),
            prices: lines.iter().map(|line| line.price).collect(),
            taxes: unless_zero(lines.iter().any(|line| line.tax != 0)).iter().map(|line| line.tax).collect(),
            weights: unless_zero(lines.iter().any(|line| line.weight != 0)).iter().map(|line| line.weight).collect(),
            unstocked: (0..).zip(lines).filter(|(_, line)| !line.stocked).map(|(place, _)| place).collect(),
            shipping: terms.shipping,
            shipping_tax: terms.shipping_tax,
            country: terms.country.clone(),
            service: terms.service.clone(),
            issued_by: terms.issued_by.clone(),
            reason: terms.reason.clone(),
        }
    }

    fn terms(self) -> Option<Terms> {
        let mut lines = Vec::with_capacity(self.prices.len());
        for (place, price) in self.prices.iter().enumerate() {
            let tax = if self.taxes.is_empty() { 0 } else { *self.taxes.get(place)? };
            let weight = if self.weights.is_empty() { 0 } else { *self.weights.get(place)? };
            lines.push(LineTerms { price: *price, tax, weight, stocked: true });
        }
        for place in &self.unstocked {
            lines.get_mut(usize::try_from(*place).ok()?)?.stocked = false;
        }
        Some(Terms {
            id: Uuid::from_slice(&self.id).ok()?.to_string(),
            cart: self.cart,
            etag: self.etag,
            issue_time: Timestamp::from_microsecond(self.issue_micros).ok()?,
            expire_time: Timestamp::from_microsecond(self.expire_micros).ok()?,
            lines,
            shipping: self.shipping,
            shipping_tax: self.shipping_tax,
            country: self.country,
            service: self.service,
            issued_by: self.issued_by,
            reason: self.reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys::new(vec![(1, [1; 32]), (2, [2; 32])])
    }

    fn terms(lines: Vec<LineTerms>) -> Terms {
        Terms {
            id: "0190d3f0-0000-7000-8000-00000000002a".to_owned(),
            cart: "carts/0190d3f0-0000-7000-8000-000000000001".to_owned(),
            etag: 7,
            issue_time: Timestamp::from_microsecond(1_800_000_000_000_000).unwrap(),
            expire_time: Timestamp::from_microsecond(1_800_000_900_000_000).unwrap(),
            lines,
            shipping: 499,
            shipping_tax: 100,
            country: "DE".to_owned(),
            service: "standard".to_owned(),
            issued_by: String::new(),
            reason: String::new(),
        }
    }

    #[test]
    fn a_token_of_two_thousand_lines_fits_into_a_request() {
        let dear = LineTerms { price: 99_999_999, tax: 19_999_999, weight: 25_000, stocked: false };
        let mut largest = terms(vec![dear; crate::cart::MOST_LINES]);
        largest.reason = "x".repeat(200);
        let token = keys().sign(&largest);
        assert!(token.len() < 48 * 1024, "{}", token.len());
        assert_eq!(keys().open(&token), Ok(largest));
    }

    #[test]
    fn a_token_signed_before_a_key_was_added_holds() {
        let old = Keys::new(vec![(1, [1; 32])]);
        let token = old.sign(&terms(vec![]));
        assert!(keys().open(&token).is_ok());
        assert_eq!(Keys::new(vec![(2, [2; 32])]).open(&token), Err(Forged));
        assert_eq!(old.open(&keys().sign(&terms(vec![]))), Err(Forged), "the newest key signs");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = keys().sign(&terms(vec![]));
        let (payload, mac) = good.split_once('.').unwrap();
        for text in [
            String::new(),
            ".".to_owned(),
            payload.to_owned(),
            format!("{payload}."),
            format!(".{mac}"),
            format!("{payload}.{}", &mac[..mac.len() - 4]),
            format!("{good}."),
            format!("{good}="),
            format!(" {good}"),
        ] {
            assert_eq!(keys().open(&text), Err(Forged), "{text:?}");
        }
    }

    #[test]
    fn every_changed_character_breaks_the_token() {
        let good = keys().sign(&terms(vec![LineTerms { price: 1, tax: 1, weight: 1, stocked: true }]));
        for place in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys().open(&String::from_utf8(bytes).unwrap()), Err(Forged), "{place}");
        }
    }

    proptest! {
        #[test]
        fn terms_come_out_as_they_went_in(
            lines in prop::collection::vec((0..i64::MAX, 0_i64..1_000, 0_i32..1_000, any::<bool>()), 0..20),
            etag in any::<u64>(),
            country in "[A-Z]{0,2}",
        ) {
            let lines = lines.into_iter().map(|(price, tax, weight, stocked)| LineTerms { price, tax, weight, stocked });
            let terms = Terms { etag, country, ..terms(lines.collect()) };
            prop_assert_eq!(keys().open(&keys().sign(&terms)), Ok(terms));
        }
    }
}
