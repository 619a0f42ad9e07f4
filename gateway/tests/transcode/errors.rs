//! Errors leave in one shape, whoever made them.

use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

use crate::library::{Piece, Rig};

const BOOK: &str = "/v1/shelves/1/books/2";

fn with_any(code: Code, message: &str, any: prost_types::Any) -> Status {
    let rich = pb::Status { code: i32::from(code), message: message.to_owned(), details: vec![any] };
    Status::with_details(code, message, rich.encode_to_vec().into())
}

#[tokio::test]
async fn an_error_of_the_service_keeps_code_message_and_details() {
    let rig = Rig::new();
    let mut details = ErrorDetails::new();
    details.set_error_info("SHELF_FULL", "library", [("shelf".to_owned(), "1".to_owned())]);
    details.add_bad_request_violation("book.title", "too long");
    rig.fake.answer([Piece::Error(Status::with_error_details(
        Code::FailedPrecondition,
        "no room, \"sorry\"",
        details,
    ))]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.header("content-type")), (400, "application/json"));
    assert_eq!(
        answer.json(),
        json!({"code": 9, "message": "no room, \"sorry\"", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SHELF_FULL", "domain": "library", "metadata": {"shelf": "1"}},
            {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "book.title", "description": "too long"}]},
        ]})
    );
}

#[tokio::test]
async fn a_detail_of_the_contract_is_written_out() {
    let rig = Rig::new();
    let book =
        prost_types::Any { type_url: "type.googleapis.com/library.v1.Book".to_owned(), value: vec![0x12, 1, b't'] };
    rig.fake.answer([Piece::Error(with_any(Code::Aborted, "changed", book))]);
    let answer = rig.get(BOOK).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["details"], json!([{"@type": "type.googleapis.com/library.v1.Book", "title": "t"}]));
}

#[tokio::test]
async fn an_unknown_or_broken_detail_takes_nothing_else_with_it() {
    let rig = Rig::new();
    for (name, value) in [("foreign.Thing", vec![8, 1]), ("library.v1.Book", vec![0xff])] {
        let any = prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value };
        rig.fake.answer([Piece::Error(with_any(Code::NotFound, "gone", any))]);
        let answer = rig.get(BOOK).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["code"], &body["message"]), (404, &json!(5), &json!("gone")), "{name}");
        assert_eq!(body["details"][0]["@type"], format!("type.googleapis.com/{name}"));
    }
    rig.fake.answer([Piece::Error(Status::with_details(Code::NotFound, "gone", vec![0xff, 0xff].into()))]);
    assert_eq!(rig.get(BOOK).await.json(), json!({"code": 5, "message": "gone", "details": []}));
}

#[tokio::test]
async fn stack_traces_stay_inside() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Error(Status::with_error_details(
        Code::Internal,
        "broken",
        ErrorDetails::with_debug_info(["main.rs:1".to_owned()], "secret"),
    ))]);
    assert_eq!(rig.get(BOOK).await.json(), json!({"code": 13, "message": "broken", "details": []}));
}

#[tokio::test]
async fn a_retry_delay_is_a_header_too() {
    let rig = Rig::new();
    let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(1500)));
    rig.fake.answer([Piece::Error(Status::with_error_details(Code::Unavailable, "soon", details))]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
}

#[tokio::test]
async fn a_challenge_never_repeats_the_error_text() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Error(Status::unauthenticated("token eyJ.. of eve"))]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer realm=\"stoa\""));
}

#[tokio::test]
async fn a_cancelled_call_is_499() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Error(Status::cancelled("gone"))]);
    assert_eq!(rig.get(BOOK).await.status, 499);
}

#[tokio::test]
async fn an_error_behind_the_only_message_is_an_error() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "t"})), Piece::Error(Status::data_loss("broken"))]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.json()["code"].clone()), (500, json!(15)));
}

#[tokio::test]
async fn an_answer_without_a_message_or_with_two_is_an_error() {
    let rig = Rig::new();
    rig.fake.answer([]);
    assert_eq!(rig.get(BOOK).await.status, 500);
    rig.fake.answer([Piece::Message(json!({})), Piece::Message(json!({}))]);
    assert_eq!(rig.get(BOOK).await.status, 500);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_504() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Hang]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.json()["code"].clone()), (504, json!(4)));
}

#[tokio::test]
async fn only_the_listed_headers_travel_inwards() {
    let rig = Rig::new();
    let sent = [
        ("authorization", "Bearer x"),
        ("x-request-id", "r1"),
        ("cookie", "a=b"),
        ("stoa-caller", "ordering"),
        ("x-user-id", "1"),
        ("grpc-timeout", "1n"),
        ("connection", "close"),
    ];
    rig.with("GET", BOOK, &sent, "").await;
    let mut names: Vec<String> = rig.fake.last().headers.keys().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["content-type", "te", "x-request-id"]);
}
