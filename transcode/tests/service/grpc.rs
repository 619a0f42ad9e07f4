//! gRPC passes as it comes: undecoded, within bounds, with a status at its end.

use http::{Request, Version};
use http_body_util::Full;
use serde_json::json;
use transcode::service::{Code, Status, boxed};

use crate::library::{Answer, MAX_REQUEST, Piece, Rig, frame, frames, json as decoded, wire};

const GET: &str = "/library.v1.Library/GetBook";
const WATCH: &str = "/library.v1.Library/WatchBooks";

async fn call(rig: &Rig, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = Request::post(path).version(Version::HTTP_2).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    rig.send(request.body(boxed(Full::from(body.to_vec()))).unwrap()).await
}

#[tokio::test]
async fn a_call_and_its_answer_pass_with_metadata_and_trailers() {
    let rig = Rig::new();
    rig.fake.show("anything", "shown");
    rig.fake.trailers.lock().unwrap().insert("cost", "3".parse().unwrap());
    rig.fake.answer([Piece::Message(json!({"title": "t"})), Piece::Error(Status::new(Code::Ok, ""))]);
    let asked = frame(&wire("GetBookRequest", json!({"name": "n"})));
    let answer = call(&rig, GET, &[("x-request-id", "r1"), ("x-user", "eve")], &asked).await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.header("anything")),
        (200, "application/grpc", "shown")
    );
    assert_eq!(decoded("Book", &frames(&answer.body)[0].1), json!({"title": "t"}));
    assert_eq!((answer.status().code, answer.trailers["cost"].to_str().unwrap()), (Code::Ok, "3"));
    let seen = rig.fake.last();
    assert_eq!((seen.version, seen.messages), (Version::HTTP_2, vec![json!({"name": "n"})]));
    assert_eq!(seen.headers["x-request-id"], "r1");
    assert!(!seen.headers.contains_key("x-user"));
}

#[tokio::test]
async fn bytes_that_are_no_message_pass_undecoded() {
    // The service behind echoes the body: nothing here may look into it.
    let transcoder = Rig::before(|request| async move {
        let mut trailers = http::HeaderMap::new();
        Status::new(Code::Ok, "").write(&mut trailers);
        let body = http_body_util::BodyExt::with_trailers(request.into_body(), async { Some(Ok(trailers)) });
        Ok(http::Response::new(boxed(body)))
    });
    let body = b"\x01\0\0\0\x04\xff\xff\xff\xff";
    let request = Request::post(GET).version(Version::HTTP_2).header("content-type", "application/grpc+proto");
    let request = request.body(boxed(Full::from(&body[..]))).unwrap();
    let answer = tower::ServiceExt::oneshot(transcoder, request).await.unwrap();
    let collected = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    assert_eq!(collected.to_bytes(), &body[..]);
}

#[tokio::test]
async fn refusals_are_grpc_answers() {
    let rig = Rig::new();
    let long = frame(&vec![0; MAX_REQUEST + 1]);
    for (path, headers, body, code) in [
        ("/library.v1.Library/Nothing", &[][..], &b""[..], Code::Unimplemented),
        ("/", &[], b"", Code::Unimplemented),
        (GET, &[("grpc-timeout", "soon")], b"", Code::InvalidArgument),
        (GET, &[("trace-bin", "!")], b"", Code::InvalidArgument),
        (GET, &[], &long, Code::ResourceExhausted),
    ] {
        let answer = call(&rig, path, headers, body).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc"));
        assert_eq!((answer.status().code, answer.body.len()), (code, 0), "{path} {headers:?}");
    }
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn grpc_over_http_1_is_refused() {
    let rig = Rig::new();
    let request = Request::post(GET).header("content-type", "application/grpc").body(boxed(Full::from(&b""[..])));
    assert_eq!(rig.send(request.unwrap()).await.status, 505);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_or_hangs_has_a_status() {
    let rig = Rig::new();
    for (end, code) in [(Piece::Break, Code::Unavailable), (Piece::Hang, Code::DeadlineExceeded)] {
        rig.fake.answer([Piece::Message(json!({"title": "t"})), end]);
        let answer = call(&rig, WATCH, &[], &frame(b"")).await;
        assert_eq!((frames(&answer.body).len(), answer.status().code), (1, code));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_ask_for_less_time_and_not_for_more() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Hang]);
    for (asked, told) in [("100m", "100m"), ("1H", "5000m")] {
        let begun = tokio::time::Instant::now();
        let answer = call(&rig, WATCH, &[("grpc-timeout", asked)], &frame(b"")).await;
        assert_eq!(answer.status().code, Code::DeadlineExceeded);
        let told_ms: u64 = told.trim_end_matches('m').parse().unwrap();
        assert_eq!(begun.elapsed().as_millis() as u64 / 10, told_ms / 10);
        assert_eq!(rig.fake.last().headers["grpc-timeout"], told);
    }
}
