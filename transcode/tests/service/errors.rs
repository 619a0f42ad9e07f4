//! Errors leave in one shape, whoever made them.

use serde_json::json;
use transcode::service::{Code, Detail, Status};

use crate::library::{Piece, Rig, wire};

const BOOK: &str = "/v1/shelves/1/books/2";

fn detail(name: &str, value: &[u8]) -> Detail {
    Detail { type_url: format!("type.googleapis.com/{name}"), value: bytes::Bytes::copy_from_slice(value) }
}

fn with(code: Code, message: &str, details: impl IntoIterator<Item = Detail>) -> Status {
    Status { details: details.into_iter().collect(), ..Status::new(code, message) }
}

#[tokio::test]
async fn an_error_of_the_service_keeps_code_message_and_details() {
    let rig = Rig::new();
    let info = b"\x0a\x0aSHELF_FULL\x12\x07library\x1a\x0a\x0a\x05shelf\x12\x011";
    let bad = b"\x0a\x16\x0a\x0abook.title\x12\x08too long";
    let details = [detail("google.rpc.ErrorInfo", info), detail("google.rpc.BadRequest", bad)];
    rig.fake.answer([Piece::Error(with(Code::FailedPrecondition, "no room, \"sorry\"", details))]);
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
    let book = detail("library.v1.Book", &wire("Book", json!({"title": "t"})));
    rig.fake.answer([Piece::Error(with(Code::Aborted, "changed", [book]))]);
    let answer = rig.get(BOOK).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["details"], json!([{"@type": "type.googleapis.com/library.v1.Book", "title": "t"}]));
}

#[tokio::test]
async fn an_unknown_or_broken_detail_takes_nothing_else_with_it() {
    let rig = Rig::new();
    for (name, value) in [("foreign.Thing", &[8, 1][..]), ("library.v1.Book", &[0xff])] {
        rig.fake.answer([Piece::Error(with(Code::NotFound, "gone", [detail(name, value)]))]);
        let answer = rig.get(BOOK).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["code"], &body["message"]), (404, &json!(5), &json!("gone")), "{name}");
        assert_eq!(body["details"][0]["@type"], format!("type.googleapis.com/{name}"));
    }
    rig.fake.trailers.lock().unwrap().insert("grpc-status-details-bin", "//8".parse().unwrap());
    rig.fake.answer([Piece::Message(json!({})), Piece::Error(Status::new(Code::NotFound, "gone"))]);
    assert_eq!(rig.get(BOOK).await.json(), json!({"code": 5, "message": "gone", "details": []}));
}

#[tokio::test]
async fn stack_traces_stay_inside() {
    let rig = Rig::new();
    let debug = detail("google.rpc.DebugInfo", b"\x0a\x09main.rs:1\x12\x06secret");
    rig.fake.answer([Piece::Error(with(Code::Internal, "broken", [debug]))]);
    assert_eq!(rig.get(BOOK).await.json(), json!({"code": 13, "message": "broken", "details": []}));
}

#[tokio::test]
async fn a_retry_delay_is_a_header_too() {
    let rig = Rig::new();
    let info = detail("google.rpc.RetryInfo", b"\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01");
    rig.fake.answer([Piece::Error(with(Code::Unavailable, "soon", [info]))]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
}

#[tokio::test]
async fn a_challenge_never_repeats_the_error_text() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Error(Status::new(Code::Unauthenticated, "token eyJ.. of eve"))]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
}

#[tokio::test]
async fn a_cancelled_call_is_499() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Error(Status::new(Code::Cancelled, "gone"))]);
    assert_eq!(rig.get(BOOK).await.status, 499);
}

#[tokio::test]
async fn an_error_behind_the_only_message_is_an_error() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "t"})), Piece::Error(Status::new(Code::DataLoss, "broken"))]);
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
        ("grpc-timeout", "1S"),
        ("connection", "close"),
    ];
    rig.with("GET", BOOK, &sent, "").await;
    let mut names: Vec<String> = rig.fake.last().headers.keys().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["content-type", "grpc-timeout", "te", "x-request-id"]);
}
