//! Requests: half of them right, in every way the rules allow, the others with one thing that is odd.

use anyhow::{Context, Result};
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::dice::Dice;
use super::{behind, bodies, queries};

/// The one thing in a request that is not as a careful client would have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Odd {
    // In the method and the path.
    /// HEAD where there is GET.
    Head,
    /// A known path with another HTTP method.
    WrongVerb,
    /// A path that nothing is at.
    Nowhere,
    /// A slash behind the last segment.
    TrailingSlash,
    /// Two slashes where one would be.
    DoubleSlash,
    /// `%2F` in a segment.
    EscapedSlash,
    /// `%` without two hexadecimal digits behind it.
    BadPathEscape,
    /// Escapes that are no UTF-8.
    PathNotUtf8,
    /// `.` or `..` as a segment.
    DotSegment,
    /// A colon that begins no verb of the contract.
    ColonInName,
    /// A verb that the contract does not have.
    UnknownVerb,
    /// A verb whose colon is escaped.
    EscapedVerb,
    /// `0x10` for an integer.
    HexInPath,
    /// `+` in a segment.
    PlusInPath,
    /// A zero before an integer.
    ZeroInPath,
    /// An integer out of the range of its field.
    RangeInPath,
    /// No integer where one has to be.
    TextInPath,
    /// Nothing between two slashes.
    EmptySegment,
    // In the query.
    /// A parameter for no field.
    UnknownParameter,
    /// Two values for a field that has one.
    RepeatedScalar,
    /// A parameter for a field that the path says.
    ParameterOfThePath,
    /// A parameter for a field that the body says.
    ParameterOfTheBody,
    /// A value that its field cannot have.
    BadParameter,
    /// No value for a field that is no text.
    EmptyParameter,
    /// No value for a text.
    EmptyText,
    /// A name alone.
    NoEqualsSign,
    /// Parameters without name and value.
    BareAmpersands,
    /// `+` in a value.
    PlusForSpace,
    /// Another spelling of a bool.
    FlagSpelling,
    /// A value for a whole message.
    MessageParameter,
    /// Several values with commas.
    ListByComma,
    /// `%` without two hexadecimal digits behind it.
    BadQueryEscape,
    /// Escapes that are no UTF-8.
    QueryNotUtf8,
    /// An integer that is not written as one.
    NumberFormInQuery,
    /// A number that the enum does not know.
    EnumNumberInQuery,
    /// Another spelling of an enum value.
    EnumSpellingInQuery,
    // In the headers.
    /// A body of no stated type.
    NoContentType,
    /// A body of a type that is not JSON.
    OtherContentType,
    /// A body that says it is a form.
    FormContentType,
    /// A body where the rule has none.
    BodyWhereNone,
    // In the body.
    /// No body where the rule has one.
    NoBody,
    /// A field that the path says, in the body.
    BodySaysThePath,
    /// JSON without its end.
    Cut,
    /// A comma behind the last member.
    TrailingComma,
    /// `'` for `"`.
    SingleQuotes,
    /// A comment.
    Comment,
    /// A name without quotes.
    UnquotedName,
    /// A field twice.
    DuplicateName,
    /// A field that the message does not have.
    UnknownField,
    /// A value of another type.
    WrongType,
    /// One value where a list has to be.
    ScalarForList,
    /// A bool in quotes.
    WordForFlag,
    /// A number for a bool.
    NumberForFlag,
    /// A number that does not fit into its field.
    OutOfRange,
    /// A whole number with an exponent or a fraction of zero.
    NumberForm,
    /// A fraction for an integer.
    Fraction,
    /// What JSON does not take for a number.
    BadNumber,
    /// A blank within the quotes of a number.
    SpaceInNumber,
    /// Bytes that are no base64.
    BadBase64,
    /// A name that the enum does not have.
    UnknownEnum,
    /// Another spelling of an enum value.
    EnumSpelling,
    /// A number that the enum does not know.
    EnumNumber,
    /// No time, or one out of range.
    BadTime,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// An escape that JSON does not know.
    BadEscape,
    /// A control character as it is.
    ControlCharacter,
    /// JSON that is no object.
    NotAnObject,
    /// `null` as the whole body.
    Null,
    /// Something behind the JSON, or nothing of it.
    Garbage,
    /// A byte order mark.
    ByteOrderMark,
    /// White space alone.
    Blank,
    /// Two hundred lists in each other.
    Deep,
    /// `null` as an item.
    NullInList,
    /// Two fields of a oneof.
    TwoOfAChoice,
}

impl Odd {
    const PATHS: [Odd; 18] = [
        Odd::Head,
        Odd::WrongVerb,
        Odd::Nowhere,
        Odd::TrailingSlash,
        Odd::DoubleSlash,
        Odd::EscapedSlash,
        Odd::BadPathEscape,
        Odd::PathNotUtf8,
        Odd::DotSegment,
        Odd::ColonInName,
        Odd::UnknownVerb,
        Odd::EscapedVerb,
        Odd::HexInPath,
        Odd::PlusInPath,
        Odd::ZeroInPath,
        Odd::RangeInPath,
        Odd::TextInPath,
        Odd::EmptySegment,
    ];

    const QUERIES: [Odd; 18] = [
        Odd::UnknownParameter,
        Odd::RepeatedScalar,
        Odd::ParameterOfThePath,
        Odd::ParameterOfTheBody,
        Odd::BadParameter,
        Odd::EmptyParameter,
        Odd::EmptyText,
        Odd::NoEqualsSign,
        Odd::BareAmpersands,
        Odd::PlusForSpace,
        Odd::FlagSpelling,
        Odd::MessageParameter,
        Odd::ListByComma,
        Odd::BadQueryEscape,
        Odd::QueryNotUtf8,
        Odd::NumberFormInQuery,
        Odd::EnumNumberInQuery,
        Odd::EnumSpellingInQuery,
    ];

    const HEADERS: [Odd; 4] = [Odd::NoContentType, Odd::OtherContentType, Odd::FormContentType, Odd::BodyWhereNone];

    const BODIES: [Odd; 35] = [
        Odd::NoBody,
        Odd::BodySaysThePath,
        Odd::Cut,
        Odd::TrailingComma,
        Odd::SingleQuotes,
        Odd::Comment,
        Odd::UnquotedName,
        Odd::DuplicateName,
        Odd::UnknownField,
        Odd::WrongType,
        Odd::ScalarForList,
        Odd::WordForFlag,
        Odd::NumberForFlag,
        Odd::OutOfRange,
        Odd::NumberForm,
        Odd::Fraction,
        Odd::BadNumber,
        Odd::SpaceInNumber,
        Odd::BadBase64,
        Odd::UnknownEnum,
        Odd::EnumSpelling,
        Odd::EnumNumber,
        Odd::BadTime,
        Odd::NotUtf8,
        Odd::LoneSurrogate,
        Odd::BadEscape,
        Odd::ControlCharacter,
        Odd::NotAnObject,
        Odd::Null,
        Odd::Garbage,
        Odd::ByteOrderMark,
        Odd::Blank,
        Odd::Deep,
        Odd::NullInList,
        Odd::TwoOfAChoice,
    ];
}

/// A request.
#[derive(Clone, Debug)]
pub struct Case {
    /// Which of them it is.
    pub number: u64,
    /// The HTTP method.
    pub verb: &'static str,
    /// Path and query.
    pub target: String,
    /// Headers besides those that every request has.
    pub headers: Vec<(&'static str, String)>,
    /// The body, which may be none.
    pub body: Vec<u8>,
    /// What is odd, where something is.
    pub odd: Option<Odd>,
}

/// Makes requests, the same ones for the same seed.
pub struct Cases {
    dice: Dice,
    pool: DescriptorPool,
    next: u64,
}

/// Names as they may stand in a segment of a path.
const NAMES: [&str; 7] = ["first", "4711", "two words", "Ä ö", "50%", "a&b=c?", "~.-_"];

impl Cases {
    /// For the methods in this pool.
    pub fn new(pool: DescriptorPool, seed: u64) -> Self {
        Self { dice: Dice::new(seed), pool, next: 1 }
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor> {
        let name = format!("gallery.v1.{name}");
        self.pool.get_message_by_name(&name).with_context(|| format!("no message {name}"))
    }

    /// The next one.
    pub fn another(&mut self) -> Result<Case> {
        let mut case = match self.dice.below(20) {
            0..=9 => self.right()?,
            10..=12 => self.odd_path(),
            13..=14 => self.odd_query()?,
            15 => self.odd_headers(),
            _ => self.odd_body()?,
        };
        case.number = self.next;
        self.next += 1;
        Ok(case)
    }

    fn request(&self, verb: &'static str, target: String) -> Case {
        Case { number: 0, verb, target, headers: vec![], body: vec![], odd: None }
    }

    fn json(&self, verb: &'static str, target: String, body: Vec<u8>) -> Case {
        let headers = vec![("content-type", "application/json".to_owned())];
        Case { headers, body, ..self.request(verb, target) }
    }

    fn segment(&mut self) -> String {
        queries::escaped(self.dice.pick(&NAMES))
    }

    fn with(target: String, parameters: &[String]) -> String {
        if parameters.is_empty() { target } else { format!("{target}?{}", parameters.join("&")) }
    }

    fn picture(&mut self) -> Result<Vec<u8>> {
        let picture = self.message("Picture")?;
        Ok(bodies::object(&mut self.dice, &picture, 0).into_bytes())
    }

    /// A request that no rule forbids; some end with an error of the service.
    fn right(&mut self) -> Result<Case> {
        let (name, room) = (self.segment(), self.segment());
        let mut case = match self.dice.below(10) {
            0 => self.request("GET", format!("/v1/pictures/{name}")),
            1 | 2 => {
                let message = self.message("ListPicturesRequest")?;
                let parameters = queries::parameters(&mut self.dice, &message);
                self.request("GET", Self::with("/v1/pictures".to_owned(), &parameters))
            }
            3 => {
                let body = self.picture()?;
                let parameters = self.dice.pick(&["", "?picture_id=a", "?pictureId=a&validateOnly=true"]).to_owned();
                self.json("POST", format!("/v1/rooms/{room}/walls/{name}/pictures{parameters}"), body)
            }
            4 => {
                // What the path says is said once.
                let body = self.dice.pick(&["{\"title\":\"a\"}", "{\"year\":1503,\"size\":{\"width\":77.5}}", "{}"]);
                let parameters = self.dice.pick(&["", "?update_mask=title,year"]);
                self.json("PATCH", format!("/v1/pictures/{name}{parameters}"), body.as_bytes().to_vec())
            }
            5 => {
                let parameters = self.dice.pick(&["", "?force=true", "?version=9007199254740993&force=false"]);
                self.request("DELETE", format!("/v1/pictures/{name}{parameters}"))
            }
            6 => {
                let body = self.dice.pick(&["{}", "{\"room\":\"rooms/1\",\"heightCm\":150}", "{\"height_cm\":\"-1\"}"]);
                self.json("POST", format!("/v1/pictures/{name}:hang"), body.as_bytes().to_vec())
            }
            7 => {
                let target =
                    self.dice.pick(&["/v1/rooms/7/visits/-12", "/v1/visits/9007199254740993", "/v1/visits/3?room=8"]);
                self.request("GET", target.to_owned())
            }
            8 => {
                let count = 1 + self.dice.below(3);
                let path: Vec<String> = (0..count).map(|_| self.segment()).collect();
                self.request("GET", format!("/v1/files/{}", path.join("/")))
            }
            _ => {
                let body = self.picture()?;
                self.json("POST", "/v1/pictures:describe".to_owned(), body)
            }
        };
        if self.dice.one_in(8) {
            let status = 1 + self.dice.below(16);
            case.headers.push((behind::ANSWER, status.to_string()));
        }
        if !case.body.is_empty() && self.dice.one_in(8) {
            case.headers[0].1 = "application/json; charset=utf-8".to_owned();
        }
        Ok(case)
    }

    fn odd_path(&mut self) -> Case {
        let odd = Odd::PATHS[self.dice.below(Odd::PATHS.len())];
        let picture = |what: &str| format!("/v1/pictures/{what}");
        let (verb, target) = match odd {
            Odd::Head => ("HEAD", picture("first")),
            Odd::WrongVerb => (self.dice.pick(&["PUT", "POST"]), picture("first")),
            Odd::Nowhere => {
                ("GET", self.dice.pick(&["/v1/frames", "/", "/v2/pictures", "/v1", "/v1/rooms/1"]).to_owned())
            }
            Odd::TrailingSlash => ("GET", self.dice.pick(&["/v1/pictures/first/", "/v1/pictures/"]).to_owned()),
            Odd::DoubleSlash => {
                ("GET", self.dice.pick(&["/v1//pictures", "//v1/pictures", "/v1/pictures//first"]).to_owned())
            }
            Odd::EscapedSlash => {
                ("GET", self.dice.pick(&["/v1/pictures/a%2Fb", "/v1/pictures/%2f", "/v1/files/a%2Fb/c"]).to_owned())
            }
            Odd::BadPathEscape => {
                ("GET", self.dice.pick(&["/v1/pictures/%zz", "/v1/pictures/a%4", "/v1/pictures/%"]).to_owned())
            }
            Odd::PathNotUtf8 => ("GET", picture("%ff%fe")),
            Odd::DotSegment => {
                ("GET", self.dice.pick(&["/v1/./pictures", "/v1/rooms/../pictures", "/v1/pictures/."]).to_owned())
            }
            Odd::ColonInName => (
                "GET",
                self.dice
                    .pick(&["/v1/pictures/a:b", "/v1/pictures/a:b:c", "/v1/pictures/:", "/v1/pictures/a%3Ab"])
                    .to_owned(),
            ),
            Odd::UnknownVerb => ("POST", picture("first:sell")),
            Odd::EscapedVerb => ("POST", picture("first%3Ahang")),
            Odd::HexInPath => ("GET", "/v1/visits/0x10".to_owned()),
            Odd::PlusInPath => ("GET", self.dice.pick(&["/v1/visits/+5", "/v1/files/a+b"]).to_owned()),
            Odd::ZeroInPath => ("GET", "/v1/visits/010".to_owned()),
            Odd::RangeInPath => {
                ("GET", self.dice.pick(&["/v1/rooms/4294967296/visits/1", "/v1/rooms/-1/visits/1"]).to_owned())
            }
            Odd::TextInPath => {
                ("GET", self.dice.pick(&["/v1/visits/last", "/v1/visits/1.5", "/v1/visits/1e2"]).to_owned())
            }
            _ => ("GET", self.dice.pick(&["/v1/rooms//visits/1", "/v1/files/", "/v1/files//a"]).to_owned()),
        };
        let hangs = matches!(odd, Odd::UnknownVerb | Odd::EscapedVerb);
        let case = if hangs { self.json(verb, target, b"{}".to_vec()) } else { self.request(verb, target) };
        Case { odd: Some(odd), ..case }
    }

    fn odd_query(&mut self) -> Result<Case> {
        let odd = Odd::QUERIES[self.dice.below(Odd::QUERIES.len())];
        let case = match odd {
            Odd::ParameterOfThePath => {
                let target = self.dice.pick(&["/v1/pictures/first?name=pictures/second", "/v1/visits/1?number=2"]);
                self.request("GET", target.to_owned())
            }
            Odd::ParameterOfTheBody => {
                let target =
                    self.dice.pick(&["/v1/rooms/1/walls/1/pictures?picture.title=b", "/v1/pictures/first:hang?room=b"]);
                let body = self.dice.pick(&["{}", "{\"name\":\"a\"}"]);
                self.json("POST", target.to_owned(), body.as_bytes().to_vec())
            }
            _ => {
                let mut parameters = vec![queries::odd(&mut self.dice, odd).to_owned()];
                if self.dice.one_in(2) {
                    parameters.push("tags=also".to_owned());
                }
                self.request("GET", Self::with("/v1/pictures".to_owned(), &parameters))
            }
        };
        Ok(Case { odd: Some(odd), ..case })
    }

    fn odd_headers(&mut self) -> Case {
        let odd = Odd::HEADERS[self.dice.below(Odd::HEADERS.len())];
        if odd == Odd::BodyWhereNone {
            let case = self.json("GET", "/v1/pictures/first".to_owned(), b"{\"name\":\"pictures/second\"}".to_vec());
            return Case { odd: Some(odd), ..case };
        }
        let mut case = self.json("POST", "/v1/pictures:describe".to_owned(), b"{\"title\":\"a\"}".to_vec());
        case.headers = match odd {
            Odd::NoContentType => vec![],
            Odd::FormContentType => vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            _ => vec![("content-type", self.dice.pick(&["text/plain", "application/xml", "image/png"]).to_owned())],
        };
        Case { odd: Some(odd), ..case }
    }

    fn odd_body(&mut self) -> Result<Case> {
        let odd = Odd::BODIES[self.dice.below(Odd::BODIES.len())];
        let (verb, target) = match (odd, self.dice.below(3)) {
            (Odd::BodySaysThePath, _) | (_, 0) => ("PATCH", "/v1/pictures/first"),
            (_, 1) => ("POST", "/v1/rooms/1/walls/2/pictures"),
            _ => ("POST", "/v1/pictures:describe"),
        };
        let body = match odd {
            Odd::NoBody => vec![],
            Odd::BodySaysThePath => {
                let body =
                    self.dice.pick(&["{\"name\":\"pictures/first\"}", "{\"name\":\"pictures/second\",\"year\":1}"]);
                body.as_bytes().to_vec()
            }
            _ => bodies::spoilt(&mut self.dice, odd),
        };
        Ok(Case { odd: Some(odd), ..self.json(verb, target.to_owned(), body) })
    }
}
