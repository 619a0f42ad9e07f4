//! The catalogue's word on its prices: a signature that holds for a quarter of an hour, whatever prices do meanwhile.

use std::time::Duration;

use contract::Currency;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;

/// How long signed prices may be relied upon.
pub const VALIDITY: Duration = Duration::from_secs(15 * 60);

/// The key that signs prices.
#[derive(Clone)]
pub struct Key {
    /// Its name.
    pub id: String,
    /// Known to the catalogue alone.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Key({})", self.id)
    }
}

/// Why a signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It is not of these prices, or not of this key.
    #[error("the signature does not fit")]
    Forged,
    /// The prices are too old.
    #[error("the prices are no longer valid")]
    Expired,
}

/// What is signed: prices (SKU, minor units) in one currency at one time.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// Of all the prices.
    pub currency: Currency,
    /// When they held.
    pub time: Timestamp,
    /// In the order of the answer.
    pub prices: Vec<(&'a str, i64)>,
}

impl Key {
    /// The signature of a statement.
    pub fn sign(&self, statement: &Statement<'_>) -> Vec<u8> {
        self.mac(statement).finalize().into_bytes().to_vec()
    }

    /// Whether the signature is of this statement and the statement still holds.
    pub fn verify(&self, statement: &Statement<'_>, signature: &[u8], now: Timestamp) -> Result<(), Untrusted> {
        self.mac(statement).verify_slice(signature).map_err(|_| Untrusted::Forged)?;
        let age = now.duration_since(statement.time);
        if Duration::try_from(age).is_ok_and(|age| age > VALIDITY) { Err(Untrusted::Expired) } else { Ok(()) }
    }

    /// Every part has a fixed length or is preceded by its length, so that no two statements feed the same bytes.
    fn mac(&self, statement: &Statement<'_>) -> Hmac<Sha256> {
        // A key shorter than a block of the hash is padded with zeros, as HMAC says.
        let mut block = [0; 64];
        block[..self.secret.len()].copy_from_slice(&self.secret);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(b"stoa catalog prices v1");
        mac.update(statement.currency.code().as_bytes());
        mac.update(&statement.time.as_microsecond().to_be_bytes());
        mac.update(&(statement.prices.len() as u64).to_be_bytes());
        for (sku, minor) in &statement.prices {
            mac.update(&(sku.len() as u64).to_be_bytes());
            mac.update(sku.as_bytes());
            mac.update(&minor.to_be_bytes());
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn key(byte: u8) -> Key {
        Key { id: "k".to_owned(), secret: [byte; 32] }
    }

    fn statement() -> Statement<'static> {
        Statement { currency: Currency::EUR, time: Timestamp::UNIX_EPOCH, prices: vec![("A", 100), ("B", 250)] }
    }

    #[test]
    fn a_signature_holds_for_its_statement_alone() {
        let signature = key(1).sign(&statement());
        let check = |key: &Key, statement: &Statement<'_>| key.verify(statement, &signature, statement.time);
        assert_eq!(check(&key(1), &statement()), Ok(()));
        assert_eq!(check(&key(2), &statement()), Err(Untrusted::Forged));
        let others = [
            Statement { currency: Currency::USD, ..statement() },
            Statement { time: Timestamp::from_microsecond(1).unwrap(), ..statement() },
            Statement { prices: vec![("A", 100)], ..statement() },
            Statement { prices: vec![("A", 100), ("B", 249)], ..statement() },
            Statement { prices: vec![("B", 250), ("A", 100)], ..statement() },
        ];
        for other in others {
            assert_eq!(check(&key(1), &other), Err(Untrusted::Forged), "{other:?}");
        }
        assert_eq!(key(1).verify(&statement(), b"", statement().time), Err(Untrusted::Forged));
    }

    #[test]
    fn a_signature_holds_until_its_time_is_over() {
        let signature = key(1).sign(&statement());
        let at = |seconds| {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            key(1).verify(&statement(), &signature, now)
        };
        assert_eq!((at(0), at(900), at(901)), (Ok(()), Ok(()), Err(Untrusted::Expired)));
    }
}
