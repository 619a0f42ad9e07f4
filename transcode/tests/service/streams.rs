//! Streams down as lines, events or an array; uploads as lines or bytes.

use std::{io::Write as _, sync::Arc};

use futures_util::StreamExt as _;
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use tower::ServiceExt as _;
use transcode::service::{Body, BoxError, Code, Status, boxed};

use crate::library::{MAX_REQUEST, Piece, Rig, frame};

const CALL: &str = "/library.v1.Library/WatchBooks";
const WATCH: &str = "/v1/shelves/1/books:watch";
const IMPORT: &str = "/v1/shelves/1/books:import";
const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

fn two_books() -> [Piece; 2] {
    [Piece::Message(json!({"title": "a"})), Piece::Message(json!({"title": "b"}))]
}

#[tokio::test]
async fn a_stream_is_lines_unless_the_client_says_otherwise() {
    let rig = Rig::new();
    rig.fake.answer(two_books());
    let answer = rig.get(WATCH).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    assert_eq!(answer.text(), "{\"title\":\"a\"}\n{\"title\":\"b\"}\n");
}

#[tokio::test]
async fn a_stream_is_events_or_an_array_when_asked() {
    let rig = Rig::new();
    rig.fake.answer(two_books());
    let answer = rig.with("GET", WATCH, &[("accept", "text/event-stream")], "").await;
    assert_eq!(
        (answer.header("content-type"), answer.text()),
        ("text/event-stream", "data: {\"title\":\"a\"}\n\ndata: {\"title\":\"b\"}\n\n")
    );
    let answer = rig.with("GET", WATCH, &[("accept", "application/json")], "").await;
    assert_eq!(
        (answer.header("content-type"), answer.json()),
        ("application/json", json!([{"title": "a"}, {"title": "b"}]))
    );
    assert_eq!(rig.with("GET", WATCH, &[("accept", "image/png")], "").await.status, 406);
}

#[tokio::test]
async fn an_empty_stream_is_empty_in_every_format() {
    let rig = Rig::new();
    rig.fake.answer([]);
    assert_eq!(rig.get(WATCH).await.text(), "");
    assert_eq!(rig.with("GET", WATCH, &[("accept", "application/json")], "").await.json(), json!([]));
}

#[tokio::test]
async fn an_error_before_the_first_message_keeps_its_status() {
    let rig = Rig::new();
    for accept in ["application/x-ndjson", "text/event-stream", "application/json"] {
        rig.fake.answer([Piece::Error(Status::new(Code::NotFound, "no shelf"))]);
        let answer = rig.with("GET", WATCH, &[("accept", accept)], "").await;
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.json()["message"].clone()),
            (404, "application/json", json!("no shelf")),
            "{accept}"
        );
    }
}

#[tokio::test]
async fn an_error_behind_a_message_is_a_visible_last_frame_in_every_format() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "a"})), Piece::Error(Status::new(Code::Unavailable, "lost"))]);
    let error = r#"{"error":{"code":14,"message":"lost","details":[]}}"#;
    assert_eq!(rig.get(WATCH).await.text(), format!("{{\"title\":\"a\"}}\n{error}\n"));
    let answer = rig.with("GET", WATCH, &[("accept", "text/event-stream")], "").await;
    assert_eq!(answer.text(), format!("data: {{\"title\":\"a\"}}\n\nevent: error\ndata: {error}\n\n"));
    let answer = rig.with("GET", WATCH, &[("accept", "application/json")], "").await;
    assert_eq!(answer.text(), format!("[{{\"title\":\"a\"}},{error}]"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_by_its_deadline_and_says_so() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "a"})), Piece::Hang]);
    let answer = rig.get(WATCH).await;
    assert!(
        answer.text().ends_with("{\"error\":{\"code\":4,\"message\":\"the stream took too long\",\"details\":[]}}\n"),
        "{}",
        answer.text()
    );
}

/// A service that never answers, or never ends its answer, as long as `held` is held.
async fn endless(first: bool, held: Arc<()>) -> Result<Response<Body>, BoxError> {
    if !first {
        let _held = held;
        return std::future::pending().await;
    }
    let message = futures_util::stream::once(async { Ok::<_, BoxError>(Frame::data(frame(b""))) });
    let endless = futures_util::stream::unfold(held, |held| async move {
        std::future::pending::<()>().await;
        Some((Ok(Frame::data(bytes::Bytes::new())), held))
    });
    Ok(Response::new(boxed(StreamBody::new(message.chain(endless)))))
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_call_in_every_protocol() {
    let grpc = frame(b"");
    let web = [("content-type", "application/grpc-web+proto")];
    let native = [("content-type", "application/grpc")];
    let connect = [("content-type", "application/connect+proto")];
    for first in [false, true] {
        for (path, headers, body) in
            [(WATCH, &[][..], &b""[..]), (CALL, &native, &grpc), (CALL, &web, &grpc), (CALL, &connect, &grpc)]
        {
            let held = Arc::new(());
            let holder = held.clone();
            let transcoder = Rig::before(move |_| endless(first, holder.clone()));
            let mut request = http::Request::builder().method(if body.is_empty() { "GET" } else { "POST" }).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.version(http::Version::HTTP_2).body(boxed(http_body_util::Full::from(body.to_vec())));
            let mut serving = Box::pin(transcoder.clone().oneshot(request.unwrap()));
            let response = futures_util::poll!(&mut serving);
            assert_eq!((response.is_ready(), Arc::strong_count(&held)), (first, 3), "in use: {headers:?}");
            drop((response, serving));
            assert_eq!(Arc::strong_count(&held), 2, "let go: {headers:?}");
        }
    }
}

#[tokio::test]
async fn raw_bytes_stream_and_break_off_on_an_error() {
    let rig = Rig::new();
    let path = "/v1/shelves/1/books/2/text";
    let chunk = |data: &str| Piece::Message(json!({"contentType": "text/plain", "data": data}));
    rig.fake.answer([chunk("YWI="), chunk("Y2Q=")]);
    let answer = rig.get(path).await;
    assert_eq!((answer.header("content-type"), answer.text()), ("text/plain", "abcd"));
    rig.fake.answer([chunk("YWI="), Piece::Error(Status::new(Code::Internal, "lost"))]);
    assert!(rig.get(path).await.broke_off);
}

#[tokio::test]
async fn an_upload_is_a_message_a_line_with_the_path_in_each() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"books": "3"}))]);
    let answer =
        rig.with("POST", IMPORT, &[LINES], "{\"title\":\"a\"}\n\n{\"title\":\"b\"}\r\n{\"title\":\"c\"}").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"books": "3"})));
    let book = |title: &str| json!({"parent": "shelves/1", "book": {"title": title}});
    assert_eq!(rig.fake.last().messages, [book("a"), book("b"), book("c")]);
    rig.with("POST", IMPORT, &[LINES], "").await;
    assert!(rig.fake.last().messages.is_empty());
}

#[tokio::test]
async fn a_bad_line_is_named_by_its_number() {
    let rig = Rig::new();
    for (upload, message) in [
        ("{\"title\":\"a\"}\n{\"title\":1}\n", "line 2 of the upload: column 10: book.title: "),
        ("{\"title\":\"a\"}\n\n{\"title\"\n", "line 3 of the upload: column 9: book: "),
    ] {
        let answer = rig.with("POST", IMPORT, &[LINES], upload).await;
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(answer.status == 400 && text.starts_with(message), "{text}");
    }
}

#[tokio::test]
async fn a_line_is_bounded_and_an_upload_is_not() {
    let rig = Rig::new();
    let many = "{\"title\":\"tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt\"}\n".repeat(20_000);
    assert!(many.len() > 4 * MAX_REQUEST);
    assert_eq!(rig.with("POST", IMPORT, &[LINES], many).await.status, 200);
    assert_eq!(rig.fake.last().messages.len(), 20_000);
    let long = format!("{{\"title\":\"a\"}}\n{{\"title\":\"{}\"}}\n", "t".repeat(4 * MAX_REQUEST));
    let answer = rig.with("POST", IMPORT, &[LINES], long).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("line 2 of the upload"));
}

#[tokio::test]
async fn a_packed_upload_is_inflated_as_it_comes() {
    let rig = Rig::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all("{\"title\":\"a\"}\n".repeat(5000).as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let headers = [LINES, ("content-encoding", "gzip")];
    assert_eq!(rig.with("POST", IMPORT, &headers, packed.clone()).await.status, 200);
    assert_eq!(rig.fake.last().messages.len(), 5000);
    assert_eq!(rig.with("POST", IMPORT, &headers, packed[..packed.len() / 2].to_vec()).await.status, 400);
}

#[tokio::test]
async fn an_upload_of_another_type_is_415() {
    let rig = Rig::new();
    assert_eq!(rig.with("POST", IMPORT, &[("content-type", "text/csv")], "a,b").await.status, 415);
}
