//! What the service behind the gateways answers, and what is sent to it. The shapes are those of
//! `integration/gateway/library.proto`.

use bytes::Bytes;
use prost::Message;

/// Books of a list, some 180 KB of JSON.
const BOOKS: usize = 180;
/// Messages of a stream.
pub(super) const PAGES: usize = 1000;
/// Bytes of an upload: its JSON, in which they are base64, has a million.
const COVER: usize = 749_952;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Price {
    #[prost(string, tag = "1")]
    currency_code: String,
    #[prost(int64, tag = "2")]
    units: i64,
    #[prost(int32, tag = "3")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Review {
    #[prost(string, tag = "1")]
    reader: String,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(int32, tag = "3")]
    stars: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Book {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    title: String,
    #[prost(string, repeated, tag = "3")]
    authors: Vec<String>,
    #[prost(string, tag = "4")]
    summary: String,
    #[prost(string, tag = "5")]
    isbn: String,
    #[prost(int32, tag = "6")]
    page_count: i32,
    #[prost(int64, tag = "7")]
    copies_sold: i64,
    #[prost(message, optional, tag = "8")]
    price: Option<Price>,
    #[prost(message, optional, tag = "9")]
    publish_time: Option<Timestamp>,
    #[prost(int32, tag = "10")]
    binding: i32,
    #[prost(bool, tag = "11")]
    in_print: bool,
    #[prost(double, tag = "12")]
    weight_kg: f64,
    #[prost(string, repeated, tag = "13")]
    tags: Vec<String>,
    #[prost(message, repeated, tag = "14")]
    reviews: Vec<Review>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetBookRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListBooksRequest {
    #[prost(int32, tag = "1")]
    pub(super) page_size: i32,
    #[prost(string, tag = "2")]
    page_token: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListBooksResponse {
    #[prost(message, repeated, tag = "1")]
    books: Vec<Book>,
    #[prost(string, tag = "2")]
    next_page_token: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateBookRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) book: Option<Book>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UploadCoverRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) content: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct UploadCoverResponse {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "2")]
    size_bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Page {
    #[prost(int32, tag = "1")]
    number: i32,
    #[prost(string, tag = "2")]
    text: String,
}

/// The name that is asked for.
pub(super) const NAME: &str = "books/4711";

/// The book of a number. No field is empty, so that it makes no difference whether those are written.
pub(super) fn book(number: usize) -> Book {
    let review = |reader: &str, text: &str, stars| Review { reader: reader.to_owned(), text: text.to_owned(), stars };
    Book {
        name: format!("books/{number}"),
        title: format!("A History of Covered Walks, Volume {number}"),
        authors: vec!["Ἀττικός Ζένων".to_owned(), "Jane \"Portico\" Doe".to_owned()],
        summary: "From the painted porch of Athens to the arcades of Bologna: who built them, who paid, what was sold \
                  there and why people still prefer to walk dry.\nWith 120 plates, three maps and an index of places; \
                  the second edition corrects the dates of the Hellenistic chapters throughout."
            .to_owned(),
        isbn: format!("978-3-16-{number:06}-0"),
        page_count: 412,
        copies_sold: 9_007_199_254_740_993 + number as i64,
        price: Some(Price { currency_code: "EUR".to_owned(), units: 49, nanos: 900_000_000 }),
        publish_time: Some(Timestamp { seconds: 1_718_000_000, nanos: 0 }),
        binding: 1,
        in_print: true,
        weight_kg: 1.25,
        tags: ["architecture", "history", "mediterranean"].map(str::to_owned).to_vec(),
        reviews: vec![
            review("readers/17", "Dry in the best sense.", 5),
            review("readers/2048", "I wanted more about roofs, and got it in the appendix.", 4),
        ],
    }
}

/// The book that is asked for and made, encoded.
pub(super) fn one() -> Bytes {
    book(4711).encode_to_vec().into()
}

/// The list, encoded.
pub(super) fn list() -> Bytes {
    let books = (1..=BOOKS).map(book).collect();
    ListBooksResponse { books, next_page_token: "after-180".to_owned() }.encode_to_vec().into()
}

/// What is uploaded.
pub(super) fn cover() -> Bytes {
    // Not the same byte over and over: every value, in an order that does not repeat within a page.
    (0..COVER).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What an upload is answered with.
pub(super) fn covered() -> Bytes {
    UploadCoverResponse { name: NAME.to_owned(), size_bytes: COVER as i64 }.encode_to_vec().into()
}

/// The messages of the stream.
pub(super) fn pages() -> Vec<Bytes> {
    let page = |number: usize| Page {
        number: number as i32,
        text: format!(
            "Page {number}: the colonnade goes on for another forty paces and then turns towards the harbour."
        ),
    };
    (1..=PAGES).map(|number| page(number).encode_to_vec().into()).collect()
}

/// A message as it goes over the wire of gRPC.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], message].concat().into()
}
