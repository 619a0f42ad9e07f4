//! gRPC-Web, binary and as base64.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{Request, Version};
use http_body_util::Full;
use serde_json::json;
use transcode::service::{Code, Status, boxed};

use crate::library::{Answer, MAX_REQUEST, Piece, Rig, frame, frames, json as decoded, wire};

const GET: &str = "/library.v1.Library/GetBook";
const WATCH: &str = "/library.v1.Library/WatchBooks";
const TEXT: &str = "application/grpc-web-text";

async fn call(rig: &Rig, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = Request::post(path).version(Version::HTTP_11).header("content-type", kind);
    rig.send(request.body(boxed(Full::from(body.into()))).unwrap()).await
}

/// The messages of an answer and the block of its trailers.
fn taken(answer: &Answer, text: bool) -> (Vec<serde_json::Value>, String) {
    let body = if text {
        // As a browser does: groups of four, padding anywhere.
        let groups = answer.body.chunks(4).map(|group| BASE64.decode(group).unwrap());
        groups.collect::<Vec<_>>().concat()
    } else {
        answer.body.to_vec()
    };
    let mut frames = frames(&body);
    let (flags, trailers) = frames.pop().unwrap();
    assert_eq!(flags, 0x80, "the trailers are the last frame");
    let messages = frames.iter().map(|(flags, message)| {
        assert_eq!(*flags, 0);
        decoded("Book", message)
    });
    (messages.collect(), String::from_utf8(trailers.to_vec()).unwrap())
}

#[tokio::test]
async fn unary_calls_and_streams_are_answered_in_the_form_they_come() {
    let rig = Rig::new();
    rig.fake.show("anything", "shown");
    rig.fake.trailers.lock().unwrap().insert("cost", "3".parse().unwrap());
    let ok = || Piece::Error(Status::new(Code::Ok, ""));
    let message = |title: &str| Piece::Message(json!({"title": title}));
    let asked = frame(&wire("GetBookRequest", json!({"name": "n"})));
    for (kind, text) in [("application/grpc-web", false), ("application/grpc-web+proto", false), (TEXT, true)] {
        let body = if text { BASE64.encode(&asked).into_bytes() } else { asked.to_vec() };
        rig.fake.answer([message("a"), ok()]);
        let answer = call(&rig, GET, kind, body).await;
        let media = if text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
        assert_eq!((answer.header("content-type"), answer.header("anything")), (media, "shown"));
        let (messages, trailers) = taken(&answer, text);
        assert_eq!(messages, [json!({"title": "a"})]);
        assert!(trailers.contains("grpc-status: 0\r\n") && trailers.contains("cost: 3\r\n"), "{trailers}");
        assert_eq!(rig.fake.last().messages, [json!({"name": "n"})]);
        rig.fake.answer([message("a"), message("bc"), ok()]);
        let empty = if text { BASE64.encode(frame(b"")).into_bytes() } else { frame(b"").to_vec() };
        let (messages, _) = taken(&call(&rig, WATCH, kind, empty).await, text);
        assert_eq!(messages, [json!({"title": "a"}), json!({"title": "bc"})]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_in_the_trailers_however_the_call_ends() {
    let rig = Rig::new();
    for (end, code) in
        [(Piece::Error(Status::new(Code::DataLoss, "lost")), "15"), (Piece::Break, "14"), (Piece::Hang, "4")]
    {
        rig.fake.answer([Piece::Message(json!({"title": "a"})), end]);
        let (messages, trailers) = taken(&call(&rig, WATCH, "application/grpc-web", frame(b"").to_vec()).await, false);
        assert_eq!(messages.len(), 1);
        assert!(trailers.contains(&format!("grpc-status: {code}\r\n")), "{trailers}");
    }
    rig.fake.answer([Piece::Error(Status::new(Code::NotFound, "no such book"))]);
    let answer = call(&rig, GET, "application/grpc-web", frame(b"").to_vec()).await;
    assert_eq!((answer.status, answer.status()), (200, Status::new(Code::NotFound, "no such book")));
}

#[tokio::test]
async fn refusals_are_answers_of_the_protocol() {
    let rig = Rig::new();
    let long = frame(&vec![0; MAX_REQUEST + 1]).to_vec();
    for (path, kind, body, code) in [
        ("/library.v1.Library/Nothing", "application/grpc-web", vec![], Code::Unimplemented),
        (GET, "application/grpc-web", long, Code::ResourceExhausted),
        (GET, TEXT, b"!!!!".to_vec(), Code::InvalidArgument),
        (GET, TEXT, b"AAA".to_vec(), Code::InvalidArgument),
    ] {
        let answer = call(&rig, path, kind, body).await;
        assert_eq!((answer.status, answer.status().code), (200, code), "{path} {kind}");
        assert!(answer.header("content-type").starts_with("application/grpc-web"));
    }
    assert_eq!(call(&rig, GET, "application/grpc-webby", vec![]).await.status, 415);
    assert_eq!(rig.fake.calls(), 0);
}
