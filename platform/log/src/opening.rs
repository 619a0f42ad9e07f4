//! Sealed texts opened where they lie, in the wire bytes of a message that need not be known here.
//!
//! What a service passes on may have been written by a newer release of it: an event this one does not know, or a field. So
//! nothing is decoded and encoded again, which would drop what is not known; the bytes are walked, and each text that is
//! sealed is replaced. Everything else stays as it was stored.

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use crate::Error;
use crate::personal::{PREFIX, is_sealed};

/// How deep messages may lie in each other, as prost has it.
const DEPTH: u32 = 100;

/// Whether there may be a sealed text in a message.
pub(crate) fn may_be_sealed(bytes: &[u8]) -> bool {
    bytes.windows(PREFIX.len()).any(|window| window == PREFIX.as_bytes())
}

/// The message with what `open` makes of its sealed texts; nothing if there is no text it has an answer for.
pub(crate) fn opened(
    bytes: &[u8],
    open: &mut impl FnMut(&str) -> Result<Option<String>, Error>,
) -> Result<Option<Vec<u8>>, Error> {
    message(bytes, DEPTH, open)
}

fn message(
    bytes: &[u8],
    depth: u32,
    open: &mut impl FnMut(&str) -> Result<Option<String>, Error>,
) -> Result<Option<Vec<u8>>, Error> {
    let Some(deeper) = depth.checked_sub(1).filter(|_| may_be_sealed(bytes)) else { return Ok(None) };
    // What is no message is a text or bytes, and stays.
    let Some(fields) = fields(bytes) else { return Ok(None) };
    let mut out = Vec::with_capacity(bytes.len());
    let mut changed = false;
    for Field { tag, whole, content } in fields {
        let replaced = match content {
            None => None,
            Some(content) => match std::str::from_utf8(content) {
                Ok(text) if is_sealed(text) => open(text)?.map(String::into_bytes),
                Ok(_) | Err(_) => message(content, deeper, open)?,
            },
        };
        match replaced {
            None => out.extend_from_slice(whole),
            Some(replaced) => {
                changed = true;
                encode_key(tag, WireType::LengthDelimited, &mut out);
                encode_varint(replaced.len() as u64, &mut out);
                out.extend_from_slice(&replaced);
            }
        }
    }
    Ok(changed.then_some(out))
}

/// A field as it lies in the message; its content where that is text, bytes or another message.
struct Field<'a> {
    tag: u32,
    whole: &'a [u8],
    content: Option<&'a [u8]>,
}

/// The fields of a message; nothing if these bytes are none. Groups are not written by anybody any more.
fn fields(bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest;
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        let content = match wire_type {
            WireType::Varint => decode_varint(&mut rest).ok().map(|_| None)?,
            WireType::ThirtyTwoBit => skip(&mut rest, 4)?,
            WireType::SixtyFourBit => skip(&mut rest, 8)?,
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let content = rest.get(..length)?;
                rest.advance(length);
                Some(content)
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let whole = before.get(..before.len() - rest.len())?;
        fields.push(Field { tag, whole, content });
    }
    Some(fields)
}

fn skip<'a>(rest: &mut &[u8], length: usize) -> Option<Option<&'a [u8]>> {
    *rest = rest.get(length..)?;
    Some(None)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Inner {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(uint64, tag = "2")]
        number: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Outer {
        #[prost(string, tag = "1")]
        title: String,
        #[prost(message, repeated, tag = "2")]
        inner: Vec<Inner>,
        #[prost(fixed32, tag = "3")]
        four: u32,
        #[prost(fixed64, tag = "4")]
        eight: u64,
        #[prost(bytes = "vec", tag = "16")]
        bytes: Vec<u8>,
        #[prost(string, repeated, tag = "17")]
        texts: Vec<String>,
    }

    fn outer(name: &str) -> Outer {
        Outer {
            title: "sealed beside the point".to_owned(),
            inner: vec![
                Inner { name: name.to_owned(), number: u64::MAX },
                Inner { name: "plain".to_owned(), number: 1 },
            ],
            four: 4,
            eight: 8,
            bytes: b"\xffsealed:".to_vec(),
            texts: vec![name.to_owned(), String::new(), "sealed:other".to_owned()],
        }
    }

    #[test]
    fn sealed_texts_are_replaced_and_nothing_else_whatever_the_message_is() {
        let mut open = |text: &str| Ok((text == "sealed:x").then(|| "Ada".to_owned()));
        let bytes = opened(&outer("sealed:x").encode_to_vec(), &mut open).unwrap().unwrap();
        assert_eq!(Outer::decode(&*bytes).unwrap(), outer("Ada"));
        assert_eq!(bytes, outer("Ada").encode_to_vec());
        assert_eq!(opened(&outer("sealed:y").encode_to_vec(), &mut open).unwrap(), None);
    }

    #[test]
    fn bytes_that_are_no_message_stay_and_depth_is_bounded() {
        let mut open = |_: &str| Ok(Some("Ada".to_owned()));
        for bytes in [&b"sealed:x"[..], b"\x0a\xffsealed:x", b"\x0a\x20sealed:x", b""] {
            assert_eq!(opened(bytes, &mut open).unwrap(), None, "{bytes:?}");
        }
        let mut bytes = Inner { name: "sealed:x".to_owned(), number: 0 }.encode_to_vec();
        for _ in 0..2 * DEPTH {
            let mut outer = Vec::new();
            encode_key(1, WireType::LengthDelimited, &mut outer);
            encode_varint(bytes.len() as u64, &mut outer);
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        assert_eq!(opened(&bytes, &mut open).unwrap(), None);
    }
}
