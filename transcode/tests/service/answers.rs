//! One answer: its JSON, its field, its headers, its packing.

use serde_json::json;

use crate::library::{Piece, Rig};

#[tokio::test]
async fn a_get_binds_its_path_and_answers_proto_json() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"name": "shelves/1/books/2", "copies": "9007199254740993", "genre": "GENRE_POEM", "printTime": "2024-01-02T03:04:05Z"}))]);
    let answer = rig.get("/v1/shelves/1/books/2").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.json(),
        json!({"name": "shelves/1/books/2", "copies": "9007199254740993", "genre": "GENRE_POEM", "printTime": "2024-01-02T03:04:05Z"})
    );
    let seen = rig.fake.last();
    assert_eq!(seen.path, "/library.v1.Library/GetBook");
    assert_eq!(seen.messages, [json!({"name": "shelves/1/books/2"})]);
}

#[tokio::test]
async fn int64_leaves_as_a_string_and_defaults_are_left_out() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"copies": 5, "pages": 0}))]);
    assert_eq!(rig.get("/v1/shelves/1/books/2").await.text(), r#"{"copies":"5"}"#);
}

#[tokio::test]
async fn additional_bindings_reach_the_same_method() {
    let rig = Rig::new();
    assert_eq!(rig.get("/v1/books/a%2Fb").await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"name": "a/b"})]);
}

#[tokio::test]
async fn a_response_body_is_the_answers_field() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"titles": ["a", "b"], "first": {"title": "a"}}))]);
    assert_eq!(rig.get("/v1/shelves/1/books:titles").await.json(), json!(["a", "b"]));
    assert_eq!(rig.get("/v1/shelves/1/books:first").await.json(), json!({"title": "a"}));
    rig.fake.answer([Piece::Message(json!({}))]);
    assert_eq!(rig.get("/v1/shelves/1/books:titles").await.json(), json!([]));
}

#[tokio::test]
async fn head_is_a_get_without_a_body() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "t"}))]);
    let answer = rig.with("HEAD", "/v1/shelves/1/books/2", &[], "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "13"));
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn an_empty_answer_is_an_empty_object() {
    let rig = Rig::new();
    assert_eq!(rig.with("DELETE", "/v1/shelves/1/books/2", &[], "").await.text(), "{}");
}

#[tokio::test]
async fn a_large_answer_is_packed_when_the_client_asks() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "t".repeat(5000)}))]);
    let answer = rig.with("GET", "/v1/shelves/1/books/2", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert!(answer.body.len() < 500);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(answer.body.as_ref()), &mut text).unwrap();
    assert!(text.starts_with("{\"title\":\"ttt"));
    rig.fake.answer([Piece::Message(json!({"title": "small"}))]);
    assert_eq!(
        rig.with("GET", "/v1/shelves/1/books/2", &[("accept-encoding", "gzip")], "").await.header("content-encoding"),
        ""
    );
}

#[tokio::test]
async fn the_upstream_may_choose_a_success_status_and_show_headers() {
    let rig = Rig::new();
    rig.fake.show("stoa-http-status", "201");
    rig.fake.show("stoa-stale", "true");
    rig.fake.show("internal", "secret");
    let answer = rig.get("/v1/shelves/1/books/2").await;
    assert_eq!(
        (answer.status, answer.header("stoa-stale"), answer.header("internal"), answer.header("stoa-http-status")),
        (201, "true", "", "")
    );
    rig.fake.show("stoa-http-status", "503");
    assert_eq!(rig.get("/v1/shelves/1/books/2").await.status, 200);
}

#[tokio::test]
async fn an_etag_is_a_header_and_a_known_one_answers_304() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "t", "etag": "7"}))]);
    assert_eq!(rig.get("/v1/shelves/1/books/2").await.header("etag"), "\"7\"");
    let answer = rig.with("GET", "/v1/shelves/1/books/2", &[("if-none-match", "\"6\", W/\"7\"")], "").await;
    assert_eq!((answer.status, answer.body.len()), (304, 0));
    assert_eq!(rig.with("GET", "/v1/shelves/1/books/2", &[("if-none-match", "\"8\"")], "").await.status, 200);
}
