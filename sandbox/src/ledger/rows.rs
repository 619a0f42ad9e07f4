//! Rows of the ledger read back; a value that this program never writes is damage.

use jiff::Timestamp;
use rusqlite::Row;

use super::Error;
use crate::token::Token;
use crate::wire::{Authorization, Challenge, Kind, Status};

#[derive(Clone, Copy)]
pub(super) enum Lookup {
    Id,
    Challenge,
    Reference,
}

impl Lookup {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Lookup::Id => "SELECT * FROM authorizations WHERE id = ?1",
            Lookup::Challenge => "SELECT * FROM authorizations WHERE challenge = ?1",
            Lookup::Reference => "SELECT * FROM authorizations WHERE reference = ?1 ORDER BY create_time, id",
        }
    }
}

pub(super) fn authorization_of(row: &Row<'_>) -> Result<(Authorization, Token), Error> {
    let token: String = row.get("token")?;
    let metadata: String = row.get("metadata")?;
    let status = status_of(row.get("status")?)?;
    let challenge = match (row.get("challenge")?, row.get("challenge_url")?) {
        (Some(id), Some(url)) => Some(Challenge { id, url }),
        (None | Some(_), None) | (None, Some(_)) => None,
    };
    let authorization = Authorization {
        id: row.get("id")?,
        object: "authorization",
        reference: row.get("reference")?,
        status,
        amount: row.get("amount")?,
        currency: row.get("currency")?,
        captured_amount: row.get("captured")?,
        refunded_amount: row.get("refunded")?,
        decline_code: decline_code(status),
        challenge,
        metadata: serde_json::from_str(&metadata).map_err(|_| Error::Damaged(metadata))?,
        create_time: time_of(row.get("create_time")?)?,
        update_time: time_of(row.get("update_time")?)?,
    };
    let token = Token::parse(&token).ok_or(Error::Damaged(token))?;
    Ok((authorization, token))
}

pub(super) fn kind_of(row: &Row<'_>) -> Result<Kind, Error> {
    let text: String = row.get("kind")?;
    Kind::parse(&text).ok_or(Error::Damaged(text))
}

pub(super) fn status_of(text: String) -> Result<Status, Error> {
    Status::parse(&text).ok_or(Error::Damaged(text))
}

pub(super) fn time_of(microseconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(microseconds).map_err(|_| Error::Damaged(microseconds.to_string()))
}

pub(super) fn decline_code(status: Status) -> Option<&'static str> {
    (status == Status::Declined).then_some("card_declined")
}
