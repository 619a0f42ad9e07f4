//! Where requests over HTTP/1.1 begin and end, read strictly beside the library (RFC 9112).
//!
//! The library takes a line that ends without a carriage return, and a length beside a transfer coding. Both are how one
//! request is smuggled behind another past a proxy that reads them otherwise, so what can be read in two ways is spoilt before
//! the library sees it, and answered 400. Bodies are skipped, chunk by chunk, so that the heads behind them are looked at too.

/// How much of a line is kept: more than the two fields need that say where a body ends.
const KEPT: usize = 128;

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    at: At,
    /// The line that has begun, its first bytes.
    line: Vec<u8>,
    /// Its bytes.
    length: usize,
    /// It ended with a carriage return, if a line feed comes.
    returned: bool,
    /// Where the body ends, as far as the head has said.
    body: Option<u64>,
    coded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The line of a request.
    Request,
    /// A field, or the empty line behind the last.
    Field,
    /// So many bytes of a body.
    Body(u64),
    /// How long the next chunk is.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    /// A field behind the last chunk.
    Trailer,
    /// Nobody reads on.
    Spoilt,
}

/// Something could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ambiguous;

impl Framing {
    pub(crate) fn new() -> Self {
        Framing { at: At::Request, line: vec![], length: 0, returned: false, body: None, coded: false }
    }

    /// Looks at what came; the place of the byte from which on it is not to be read, if there is one.
    pub(crate) fn came(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut place = 0;
        while let Some(rest) = bytes.get(place..).filter(|rest| !rest.is_empty()) {
            let taken = match self.at {
                At::Spoilt => return None,
                At::Body(left) => {
                    let (taken, left) = skip(rest, left);
                    self.at = if left == 0 { At::Request } else { At::Body(left) };
                    taken
                }
                At::Chunk(left) => {
                    let (taken, left) = skip(rest, left);
                    self.at = if left == 0 { At::ChunkEnd } else { At::Chunk(left) };
                    taken
                }
                At::Request | At::Field | At::Size | At::ChunkEnd | At::Trailer => match self.line(rest) {
                    Ok(taken) => taken,
                    Err((at, Ambiguous)) => {
                        self.at = At::Spoilt;
                        return Some(place + at);
                    }
                },
            };
            place += taken;
        }
        None
    }

    /// Takes bytes up to the end of the line; how many, or which of them is wrong.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, (usize, Ambiguous)> {
        let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        if self.returned && bytes.first() != Some(&b'\n') {
            return Err((0, Ambiguous));
        }
        let text = bytes.get(..end).unwrap_or_default();
        self.length += text.len();
        self.line.extend(text.iter().take(KEPT - self.line.len()));
        match bytes.get(end) {
            None => Ok(end),
            Some(b'\r') => {
                self.returned = true;
                Ok(end + 1)
            }
            Some(_) if !self.returned => Err((end, Ambiguous)),
            Some(_) => {
                self.returned = false;
                self.ended().map_err(|ambiguous| (end, ambiguous))?;
                self.line.clear();
                self.length = 0;
                Ok(end + 1)
            }
        }
    }

    fn ended(&mut self) -> Result<(), Ambiguous> {
        self.at = match self.at {
            // Empty lines before a request are skipped by everybody.
            At::Request if self.length == 0 => At::Request,
            At::Request => {
                (self.body, self.coded) = (None, false);
                At::Field
            }
            At::Field if self.length == 0 => match (self.body, self.coded) {
                (Some(_), true) => return Err(Ambiguous),
                (None, true) => At::Size,
                (None | Some(0), false) => At::Request,
                (Some(length), false) => At::Body(length),
            },
            At::Field => {
                self.field()?;
                At::Field
            }
            At::Size => match self.size()? {
                0 => At::Trailer,
                size => At::Chunk(size),
            },
            At::ChunkEnd if self.length == 0 => At::Size,
            At::ChunkEnd => return Err(Ambiguous),
            At::Trailer if self.length == 0 => At::Request,
            At::Trailer => At::Trailer,
            At::Body(_) | At::Chunk(_) | At::Spoilt => self.at,
        };
        Ok(())
    }

    fn field(&mut self) -> Result<(), Ambiguous> {
        // A line that goes on with the field before it.
        if matches!(self.line.first(), Some(b' ' | b'\t')) {
            return Err(Ambiguous);
        }
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else { return Ok(()) };
        let (name, value) = self.line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            let length = self.whole()?.and(number(value, 10)).ok_or(Ambiguous)?;
            if self.body.is_some_and(|before| before != length) {
                return Err(Ambiguous);
            }
            self.body = Some(length);
        } else if name.trim_ascii().eq_ignore_ascii_case(b"transfer-encoding") {
            self.coded = true;
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, Ambiguous> {
        self.whole()?;
        let size = self.line.split(|byte| *byte == b';').next().unwrap_or_default();
        number(size.trim_ascii(), 16).ok_or(Ambiguous)
    }

    /// Nothing but an error where more of the line came than was kept.
    fn whole(&self) -> Result<Option<()>, Ambiguous> {
        if self.length > self.line.len() { Err(Ambiguous) } else { Ok(Some(())) }
    }
}

fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (taken, left - taken as u64)
}

/// Digits alone: no sign, no space.
fn number(text: &[u8], base: u32) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(|byte| char::from(*byte).is_digit(base));
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    u64::from_str_radix(text, base).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is spoilt, however the bytes are cut.
    fn spoilt(text: &str) -> Option<usize> {
        let whole = Framing::new().came(text.as_bytes());
        for piece in 1..20 {
            let mut framing = Framing::new();
            let mut before = 0;
            let mut found = None;
            for bytes in text.as_bytes().chunks(piece) {
                if let Some(at) = framing.came(bytes) {
                    found = found.or(Some(before + at));
                }
                before += bytes.len();
            }
            assert_eq!(found, whole, "in pieces of {piece}: {text:?}");
        }
        whole
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: stoa\r\n\r\n";

    #[test]
    fn what_everybody_reads_the_same_way_is_left_alone() {
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4;x=y\r\na\nb\r\r\n0\r\nafter: x\r\n\r\n";
        for one in [
            GET,
            "\r\nGET / HTTP/1.1\r\nhost: stoa\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\rc",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\ncontent-length:0 \r\n\r\n",
            "POST / HTTP/1.1\r\nx: content-length: 7\r\n\r\n",
            chunked,
        ] {
            assert_eq!(spoilt(&[one, one, GET].concat()), None, "{one:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_spoilt_where_it_stands() {
        for (text, at) in [
            ("GET / HTTP/1.1\nhost: stoa\r\n\r\n", 14),
            ("GET / HTTP/1.1\r\nhost: stoa\n\r\n", 26),
            ("GET / HTTP/1.1\r\nhost: stoa\r\n\n", 28),
            ("GET / HTTP/1.1\r\nho\rst: stoa\r\n\r\n", 19),
            ("GET / HTTP/1.1\r\nhost: stoa\r\n folded: x\r\n\r\n", 39),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", 54),
            ("POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\nabc", 36),
            ("POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\nabc", 38),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 65),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length : 3\r\n\r\n", 66),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n", 48),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n", 55),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-3\r\nabc\r\n", 50),
        ] {
            assert_eq!(spoilt(text), Some(at), "{text:?}");
            // Behind another request as well.
            assert_eq!(spoilt(&[GET, text].concat()), Some(GET.len() + at), "{text:?}");
        }
    }

    #[test]
    fn a_length_behind_spaces_without_end_is_no_length() {
        let text = format!("POST / HTTP/1.1\r\ncontent-length:{}3\r\n\r\nabc", " ".repeat(200));
        assert!(spoilt(&text).is_some());
    }
}
