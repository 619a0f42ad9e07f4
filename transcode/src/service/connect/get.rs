//! A unary call whose message stands in the query.

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;

use super::{Codec, coding};
use crate::{
    percent,
    service::{body, negotiate::Coding, problem::Problem, table::Method},
};

/// Padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The message, unpacked, and how it is written.
pub(super) fn message(method: &Method, query: &str) -> Result<(Codec, Bytes), Problem> {
    let mut found = Found::default();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = percent::decode_query(value).map_err(|error| Problem::field(name, error.to_string()))?;
        let place = match name {
            "message" => &mut found.message,
            "encoding" => &mut found.encoding,
            "base64" => &mut found.base64,
            "compression" => &mut found.compression,
            "connect" => &mut found.connect,
            // The protocol has others be passed over, so that caches can be told apart.
            _ => continue,
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(Problem::field(name, "the parameter is given twice"));
        }
    }
    let codec = found.encoding.as_deref().and_then(Codec::of);
    let codec = codec.ok_or_else(|| Problem::field("encoding", "is neither json nor proto"))?;
    if found.connect.is_some_and(|version| version != "v1") {
        return Err(Problem::field("connect", "only v1 is spoken"));
    }
    let text = found.message.ok_or_else(|| Problem::field("message", "is absent"))?;
    let bytes = match found.base64.as_deref() {
        None | Some("0") => Bytes::from(text),
        Some("1") => {
            let decoded = BASE64.decode(text);
            Bytes::from(decoded.map_err(|_| Problem::field("message", "is not base64 for URLs"))?)
        }
        Some(_) => return Err(Problem::field("base64", "is neither 0 nor 1")),
    };
    match coding(found.compression.as_deref().unwrap_or_default())? {
        Coding::Gzip => Ok((codec, body::inflate(&bytes, codec.limit(method))?)),
        Coding::Identity => Ok((codec, bytes)),
    }
}

#[derive(Default)]
struct Found {
    message: Option<String>,
    encoding: Option<String>,
    base64: Option<String>,
    compression: Option<String>,
    connect: Option<String>,
}
