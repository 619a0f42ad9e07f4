//! What travels with a call in either direction, and for how long a call may go on.

use serde_json::json;
use transcode::service::{Code, Config, Passing, Status};

use crate::library::{Piece, Rig, config};

const BOOK: &str = "/v1/shelves/1/books/2";

#[tokio::test]
async fn a_binary_header_is_base64_or_400() {
    let rig = Rig::new();
    assert_eq!(rig.with("GET", BOOK, &[("trace-bin", "AAE")], "").await.status, 200);
    assert_eq!(rig.fake.last().headers["trace-bin"], "AAE");
    let answer = rig.with("GET", BOOK, &[("trace-bin", "!")], "").await;
    assert_eq!((answer.status, answer.violations(), rig.fake.calls()), (400, vec!["trace-bin".to_owned()], 1));
}

#[tokio::test]
async fn trailers_are_headers_of_an_answer_and_of_an_error() {
    let rig = Rig::new();
    rig.fake.show("stoa-a", "1");
    rig.fake.trailers.lock().unwrap().insert("stoa-b", "2".parse().unwrap());
    for (code, status) in [(Code::Ok, 200), (Code::NotFound, 404)] {
        rig.fake.answer([Piece::Message(json!({})), Piece::Error(Status::new(code, "end"))]);
        let answer = rig.get(BOOK).await;
        assert_eq!((answer.status, answer.header("stoa-a"), answer.header("stoa-b")), (status, "1", "2"));
    }
}

#[tokio::test]
async fn a_service_cannot_set_a_header_of_http() {
    let rig = Rig::with_config(Config { expose: Passing::Custom, ..config() });
    for (name, value) in
        [("set-cookie", "a=b"), ("content-length", "1"), ("access-control-allow-origin", "*"), ("x-fine", "1")]
    {
        rig.fake.show(name, value);
    }
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.text(), answer.header("content-length"), answer.header("x-fine")), ("{}", "2", "1"));
    assert!(!answer.headers.contains_key("set-cookie") && !answer.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn every_custom_header_may_pass_and_what_is_http_s_own_does_not() {
    let rig = Rig::with_config(Config { forward: Passing::Custom, ..config() });
    let sent =
        [("authorization", "Bearer x"), ("x-tenant", "1"), ("cookie", "a=b"), ("grpc-status", "0"), ("te", "trailers")];
    rig.with("GET", BOOK, &sent, "").await;
    let mut names: Vec<String> = rig.fake.last().headers.keys().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["authorization", "content-type", "grpc-timeout", "te", "x-tenant"]);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_kept_by_rest_and_connect_too() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Hang]);
    let json = ("content-type", "application/json");
    for (method, path, header, body) in [
        ("GET", BOOK, ("grpc-timeout", "100m"), ""),
        ("POST", "/library.v1.Library/GetBook", ("connect-timeout-ms", "100"), "{}"),
    ] {
        let begun = tokio::time::Instant::now();
        let answer = rig.with(method, path, &[header, json][..if body.is_empty() { 1 } else { 2 }], body).await;
        assert_eq!((answer.status, begun.elapsed().as_millis() / 10), (504, 10), "{path}");
    }
    assert_eq!(rig.with("GET", BOOK, &[("grpc-timeout", "1s")], "").await.status, 400);
}
