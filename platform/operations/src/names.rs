//! The names in a stored reply, whatever its type is: every resource has its name in field 1, and so has what wraps one.
//!
//! Nothing but names comes out: a text that has not the form of one stays where it is.

/// The names of the resources a reply is, holds, or lists; nothing if it is no message.
pub(crate) fn names(reply: &[u8]) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = reply;
    while !rest.is_empty() {
        let (tag, after) = varint(rest)?;
        let (number, kind) = (tag >> 3, tag & 7);
        if number == 0 {
            return None;
        }
        let (length, after) = match kind {
            0 => (0, varint(after)?.1),
            1 => (8, after),
            2 => varint(after)?,
            5 => (4, after),
            _ => return None,
        };
        let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        if (number, kind) == (1, 2) {
            match std::str::from_utf8(value) {
                Ok(name) if is_name(name) => names.push(name),
                // What is neither a name nor a message is some other text.
                _ => names.extend(self::names(value).unwrap_or_default()),
            }
        }
        rest = after;
    }
    Some(names)
}

/// `collection/id`, and what is below it.
fn is_name(text: &str) -> bool {
    let mut parts = text.split('/');
    let mut pairs = 0;
    while let Some(collection) = parts.next() {
        let Some(id) = parts.next() else { return false };
        if !is_collection(collection) || !is_id(id) {
            return false;
        }
        pairs += 1;
    }
    pairs > 0
}

fn is_collection(part: &str) -> bool {
    part.starts_with(|first: char| first.is_ascii_lowercase()) && part.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn is_id(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    (1..=64).contains(&part.len()) && part.bytes().all(allowed)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(place * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_known_by_its_name_alone_wrapped_or_listed() {
        // name = 1, version = 2 (varint), text = 3
        let resource = b"\x0a\x08orders/a\x10\x96\x01\x1a\x02hi";
        assert_eq!(names(resource), Some(vec!["orders/a"]));
        let mut wrapped = vec![0x0a, u8::try_from(resource.len()).unwrap()];
        wrapped.extend(resource);
        assert_eq!(names(&wrapped), Some(vec!["orders/a"]));
        let list = [&wrapped[..], b"\x0a\x0a\x0a\x08orders/b"].concat();
        assert_eq!(names(&list), Some(vec!["orders/a", "orders/b"]));
    }

    #[test]
    fn other_texts_are_no_names_and_what_is_cut_is_no_message() {
        assert_eq!(names(b""), Some(vec![]));
        assert_eq!(names(b"\x0a\x05hello"), Some(vec![]));
        for text in ["c/o Ada Lovelace", "ada/", "/ada", "orders/a/b", "a+b/c", "Ada/Lovelace"] {
            let reply = [&[0x0a, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            assert!(names(&reply).is_none_or(|names| names.is_empty()), "{text}");
        }
        assert_eq!(names(b"\x0a\x08orders"), None);
        assert_eq!(names(b"\x00"), None);
        assert_eq!(names(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
