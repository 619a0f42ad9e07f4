//! Bodies that are no good JSON, too large, packed, or of another type: each refused with its status, and nothing sent on.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use crate::library::{MAX_REQUEST, Rig};

const LEND: &str = "/v1/shelves/1/books/2:lend";
const BOOKS: &str = "/v1/shelves/1/books";

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn what_is_no_strict_json_is_refused_with_its_place() {
    let rig = Rig::new();
    for (bad, place) in [
        (r#"{"reader":"a",}"#.as_bytes(), "line 1, column 15"),
        (b"{\n \"reader\": 'a'}", "line 2, column 12"),
        (b"{\"days\":1}}", "line 1, column 11"),
        (b"{\"days\":1 /* x */}", "line 1, column 11"),
        (b"{\"days\":01}", "line 1, column 9"),
        (b"{\"days\":NaN}", "line 1, column 9"),
        (b"{\"reader\":\"\\ud800\"}", "line 1, column 12"),
        (b"{\"reader\":\"\xff\"}", "line 1, column 12"),
        (b"{\"days\":1", "line 1, column 10"),
        (b"{}x", "line 1, column 3"),
    ] {
        let answer = rig.json("POST", LEND, bad).await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && message.starts_with(place), "{}: {message}", String::from_utf8_lossy(bad));
    }
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn what_does_not_fit_the_message_is_refused_and_named() {
    let rig = Rig::new();
    for (bad, field) in [
        (r#"{"nothing":1}"#, "nothing"),
        (r#"{"days":"many"}"#, "days"),
        (r#"{"days":2147483648}"#, "days"),
        (r#"{"days":9223372036854775808}"#, "days"),
        (r#"{"days":1.5}"#, "days"),
        (r#"{"reader":1}"#, "reader"),
        (r#"{"reader":["a"]}"#, "reader"),
        (r#"{"days":1,"days":2}"#, "days"),
    ] {
        let answer = rig.json("POST", LEND, bad).await;
        assert_eq!((answer.status, answer.violations()), (400, vec![field.to_owned()]), "{bad} {answer:?}");
    }
    for (bad, field) in [
        (r#"{"authors":[{"givenName":"a"},{"birthYear":"x"}]}"#, "book.authors[1].birthYear"),
        (r#"{"editor":{"unknown":1}}"#, "book.editor.unknown"),
        (r#"{"copies":"9223372036854775808"}"#, "book.copies"),
        (r#"{"genre":"NOVEL"}"#, "book.genre"),
        (r#"{"printTime":"yesterday"}"#, "book.printTime"),
        (r#"{"digest":"!"}"#, "book.digest"),
        (r#"{"labels":{"a":"1","a":"2"}}"#, "book.labels.a"),
    ] {
        let answer = rig.json("POST", BOOKS, bad).await;
        assert_eq!((answer.status, answer.violations()), (400, vec![field.to_owned()]), "{bad} {answer:?}");
    }
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn proto_json_takes_what_the_mapping_allows() {
    let rig = Rig::new();
    let answer = rig.json("POST", BOOKS, r#"{"title":null,"copies":5,"pages":"7","genre":1,"weight":"Infinity","digest":"_-8","printTime":"2024-01-02T03:04:05+01:00"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let book = json!({"copies": "5", "pages": 7, "genre": "GENRE_NOVEL", "weight": "Infinity", "digest": "/+8=", "printTime": "2024-01-02T02:04:05Z"});
    assert_eq!(rig.fake.last().messages, [json!({"parent": "shelves/1", "book": book})]);
}

#[tokio::test]
async fn ten_thousand_levels_are_refused_without_a_stack_overflow() {
    let rig = Rig::new();
    for (open, close) in [("{\"sequel\":", "}"), ("[", "]")] {
        let deep = format!("{}{}{}", open.repeat(10_000), "{}", close.repeat(10_000));
        let answer = rig.json("POST", BOOKS, deep).await;
        assert_eq!(answer.status, 400);
        assert!(open == "[" || answer.text().contains("deeper than 100"));
    }
    let deep = format!("{}{{}}{}", "{\"sequel\":".repeat(60), "}".repeat(60));
    assert_eq!(rig.json("POST", BOOKS, deep).await.status, 200);
}

#[tokio::test]
async fn a_large_body_is_413() {
    let rig = Rig::new();
    let answer = rig.json("POST", LEND, vec![b' '; 4 * MAX_REQUEST + 1]).await;
    assert_eq!((answer.status, answer.json()["code"].clone()), (413, json!(8)));
    let title = "t".repeat(MAX_REQUEST);
    assert_eq!(
        rig.json("POST", BOOKS, format!("{{\"title\":\"{title}\"}}")).await.status,
        413,
        "the message itself is too large"
    );
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn packed_bodies_are_inflated_within_bounds() {
    let rig = Rig::new();
    let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let good = packed(br#"{"days":3}"#);
    assert_eq!(rig.with("POST", LEND, &gzip, good.clone()).await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"name": "shelves/1/books/2", "days": 3})]);
    assert_eq!(rig.with("POST", LEND, &gzip, good[..good.len() - 6].to_vec()).await.status, 400);
    assert_eq!(rig.with("POST", LEND, &gzip, b"{\"days\":3}".to_vec()).await.status, 400);
    assert_eq!(rig.with("POST", LEND, &gzip, packed(&vec![b' '; 50 << 20])).await.status, 413);
    assert_eq!(rig.with("POST", LEND, &[("content-encoding", "br")], "x").await.status, 415);
    assert_eq!(rig.fake.calls(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_415() {
    let rig = Rig::new();
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/json; charset=utf-16",
        "application/x-ndjson",
    ] {
        assert_eq!(rig.with("POST", LEND, &[("content-type", media)], r#"{"days":3}"#).await.status, 415, "{media}");
    }
    assert_eq!(rig.with("POST", LEND, &[], r#"{"days":3}"#).await.status, 200, "nothing said is JSON");
}

#[tokio::test]
async fn an_accept_header_that_excludes_json_is_406() {
    let rig = Rig::new();
    for accept in ["text/html", "application/json;q=0", "image/png, text/*"] {
        assert_eq!(rig.with("GET", "/v1/shelves/1/books/2", &[("accept", accept)], "").await.status, 406, "{accept}");
    }
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn raw_bytes_go_in_and_out_untouched() {
    let rig = Rig::new();
    let cover = "/v1/shelves/1/books/2/cover";
    let answer = rig.with("PUT", cover, &[("content-type", "image/png")], b"\x89PNG\xff".to_vec()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        rig.fake.last().messages,
        [json!({"name": "shelves/1/books/2", "image": {"contentType": "image/png", "data": "iVBOR/8="}})]
    );
    rig.fake.answer([crate::library::Piece::Message(json!({"contentType": "image/png", "data": "iVBO"}))]);
    let answer = rig.with("GET", cover, &[("accept", "image/*")], "").await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.body.as_ref()),
        (200, "image/png", b"\x89PN".as_slice())
    );
    assert_eq!(rig.with("GET", cover, &[("accept", "text/html")], "").await.status, 406);
}
