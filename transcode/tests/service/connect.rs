//! Connect: unary calls by POST and GET, streams in envelopes, JSON and protobuf.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, Version};
use http_body_util::Full;
use serde_json::{Value, json};
use transcode::service::{Code, Detail, Status, boxed};

use crate::library::{Answer, MAX_REQUEST, Piece, Rig, frame, frames, json as decoded, wire};

const GET: &str = "/library.v1.Library/GetBook";
const LEND: &str = "/library.v1.Library/LendBook";
const WATCH: &str = "/library.v1.Library/WatchBooks";
const IMPORT: &str = "/library.v1.Library/ImportBooks";
const JSON: (&str, &str) = ("content-type", "application/json");
const PROTO: (&str, &str) = ("content-type", "application/proto");
const STREAM: (&str, &str) = ("content-type", "application/connect+json");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// The messages of a stream's answer, and its end.
fn taken(answer: &Answer) -> (Vec<Value>, Value) {
    assert_eq!((answer.status, answer.header("content-type")), (200, STREAM.1));
    let mut frames = frames(&answer.body);
    let (flags, end) = frames.pop().unwrap();
    assert_eq!(flags, 2, "the end is the last envelope");
    let messages = frames.iter().map(|(flags, message)| {
        assert_eq!(*flags, 0);
        serde_json::from_slice(message).unwrap()
    });
    (messages.collect(), serde_json::from_slice(&end).unwrap())
}

#[tokio::test]
async fn a_unary_call_is_a_post_of_json_or_protobuf() {
    let rig = Rig::new();
    rig.fake.show("stoa-stale", "true");
    rig.fake.trailers.lock().unwrap().insert("stoa-cost", "3".parse().unwrap());
    rig.fake.answer([Piece::Message(json!({"title": "t"})), Piece::Error(Status::new(Code::Ok, ""))]);
    let answer = rig.with("POST", LEND, &[JSON, ("connect-protocol-version", "1")], r#"{"name":"n","days":3}"#).await;
    assert_eq!((answer.status, answer.header("content-type"), answer.text()), (200, JSON.1, r#"{"title":"t"}"#));
    assert_eq!((answer.header("stoa-stale"), answer.header("trailer-stoa-cost")), ("true", "3"));
    assert_eq!(rig.fake.last().messages, [json!({"name": "n", "days": 3})]);
    let asked = wire("LendBookRequest", json!({"name": "n"}));
    let answer = rig.with("POST", LEND, &[PROTO], asked.clone()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, PROTO.1));
    assert_eq!(decoded("Book", &answer.body), json!({"title": "t"}));
    let packed = [JSON, ("content-encoding", "gzip")];
    assert_eq!(rig.with("POST", LEND, &packed, gzip(br#"{"days":4}"#)).await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"days": 4})]);
}

#[tokio::test]
async fn a_method_without_side_effects_answers_get() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "t"}))]);
    let text = r#"{"name":"a b"}"#;
    let coded = URL_SAFE_NO_PAD.encode(text);
    let packed = URL_SAFE_NO_PAD.encode(gzip(text.as_bytes()));
    let bytes = URL_SAFE_NO_PAD.encode(wire("GetBookRequest", json!({"name": "a b"})));
    for (query, media) in [
        (format!("connect=v1&encoding=json&base64=1&message={coded}"), JSON.1),
        ("encoding=json&message=%7B%22name%22:%22a%20b%22%7D&further=1".to_owned(), JSON.1),
        (format!("encoding=json&base64=1&compression=gzip&message={packed}"), JSON.1),
        (format!("encoding=proto&base64=1&message={bytes}"), PROTO.1),
    ] {
        let answer = rig.get(&format!("{GET}?{query}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media), "{query} {answer:?}");
        assert_eq!(rig.fake.last().messages, [json!({"name": "a b"})], "{query}");
    }
    for bad in [
        "encoding=json",
        "message=%7B%7D",
        "encoding=xml&message=%7B%7D",
        "encoding=json&message=%7B%7D&message=%7B%7D",
        "encoding=json&base64=1&message=!",
        "encoding=json&base64=2&message=%7B%7D",
        "encoding=json&message=%7B%7D&connect=v2",
        "encoding=json&message=%zz",
        "encoding=json&message=%7B",
    ] {
        let answer = rig.get(&format!("{GET}?{bad}")).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("invalid_argument")), "{bad}");
    }
}

#[tokio::test]
async fn what_the_method_does_not_take_is_told_with_what_it_takes() {
    let rig = Rig::new();
    for (method, path, headers, status, header, value) in [
        ("GET", LEND, &[][..], 405, "allow", "POST"),
        ("PUT", GET, &[JSON], 405, "allow", "GET, POST"),
        ("POST", GET, &[("content-type", "text/xml")], 415, "accept-post", "application/json, application/proto"),
        (
            "POST",
            GET,
            &[("content-type", "application/json; charset=utf-16")],
            415,
            "accept-post",
            "application/json, application/proto",
        ),
        ("POST", GET, &[STREAM], 415, "accept-post", "application/json, application/proto"),
        ("POST", WATCH, &[JSON], 415, "accept-post", "application/connect+json, application/connect+proto"),
    ] {
        let answer = rig.with(method, path, headers, "{}").await;
        assert_eq!((answer.status, answer.header(header)), (status, value), "{method} {path} {headers:?}");
    }
    assert_eq!(rig.with("POST", "/library.v1.Library/Nothing", &[JSON], "{}").await.status, 404);
    let brotli = [JSON, ("content-encoding", "br")];
    assert_eq!(rig.with("POST", GET, &brotli, "{}").await.json()["code"], "unimplemented");
    assert_eq!(rig.with("POST", GET, &[JSON, ("connect-protocol-version", "2")], "{}").await.status, 400);
    assert_eq!(rig.with("POST", GET, &[JSON, ("connect-timeout-ms", "x")], "{}").await.status, 400);
    assert_eq!(rig.with("POST", GET, &[PROTO], vec![0; MAX_REQUEST + 1]).await.status, 413);
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn an_error_has_the_form_of_the_protocol() {
    let rig = Rig::new();
    let book = Detail {
        type_url: "type.googleapis.com/library.v1.Book".to_owned(),
        value: wire("Book", json!({"title": "t"})).into(),
    };
    rig.fake.answer([Piece::Error(Status { details: vec![book], ..Status::new(Code::NotFound, "no \"such\"") })]);
    let answer = rig.with("POST", GET, &[JSON], "{}").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, JSON.1));
    assert_eq!(
        answer.json(),
        json!({"code": "not_found", "message": "no \"such\"", "details":
            [{"type": "library.v1.Book", "value": "EgF0", "debug": {"title": "t"}}]})
    );
    let answer = rig.with("POST", GET, &[JSON], "{\"name\":1}").await;
    assert_eq!((answer.status, answer.json()["details"][0]["type"].as_str()), (400, Some("google.rpc.BadRequest")));
}

#[tokio::test]
async fn a_stream_is_envelopes_and_an_end() {
    let rig = Rig::new();
    let message = |title: &str| Piece::Message(json!({"title": title}));
    rig.fake.trailers.lock().unwrap().insert("stoa-cost", "3".parse().unwrap());
    rig.fake.answer([message("a"), message("b"), Piece::Error(Status::new(Code::Ok, ""))]);
    let answer = rig.with("POST", WATCH, &[STREAM], frame(br#"{"parent":"p"}"#)).await;
    let both = vec![json!({"title": "a"}), json!({"title": "b"})];
    assert_eq!(taken(&answer), (both, json!({"metadata": {"stoa-cost": ["3"]}})));
    assert_eq!(rig.fake.last().messages, [json!({"parent": "p"})]);
    let proto = ("content-type", "application/connect+proto");
    let answer = rig.with("POST", WATCH, &[proto], frame(b"")).await;
    let frames = frames(&answer.body);
    assert_eq!((answer.header("content-type"), frames.len()), (proto.1, 3));
    assert_eq!(decoded("Book", &frames[1].1), json!({"title": "b"}));
}

#[tokio::test]
async fn an_upload_is_an_envelope_a_message_packed_or_not() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"books": "2"}))]);
    let packed = gzip(br#"{"parent":"b"}"#);
    let mut second = frame(&packed).to_vec();
    second[0] = 1;
    let body = [frame(br#"{"parent":"a"}"#).to_vec(), second].concat();
    let answer = rig.with("POST", IMPORT, &[STREAM, ("connect-content-encoding", "gzip")], body).await;
    assert_eq!(taken(&answer), (vec![json!({"books": "2"})], json!({})));
    assert_eq!(rig.fake.last().messages, [json!({"parent": "a"}), json!({"parent": "b"})]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_says_so_in_its_end() {
    let rig = Rig::new();
    for (end, code) in [
        (Piece::Error(Status::new(Code::DataLoss, "lost")), "data_loss"),
        (Piece::Break, "unavailable"),
        (Piece::Hang, "deadline_exceeded"),
    ] {
        rig.fake.answer([Piece::Message(json!({"title": "a"})), end]);
        let (messages, end) = taken(&rig.with("POST", WATCH, &[STREAM], frame(b"{}")).await);
        assert_eq!((messages.len(), end["error"]["code"].as_str()), (1, Some(code)));
    }
    rig.fake.answer([Piece::Error(Status::new(Code::NotFound, "no shelf"))]);
    let (messages, end) = taken(&rig.with("POST", WATCH, &[STREAM], frame(b"{}")).await);
    assert_eq!((messages.len(), &end["error"]), (0, &json!({"code": "not_found", "message": "no shelf"})));
}

#[tokio::test]
async fn a_request_that_is_no_stream_of_envelopes_is_an_error_in_the_end() {
    let rig = Rig::new();
    let long = frame(&vec![b' '; 4 * MAX_REQUEST + 1]).to_vec();
    let flagged = |flag: u8| {
        let mut envelope = frame(b"{}").to_vec();
        envelope[0] = flag;
        envelope
    };
    for (body, code) in [
        (frame(b"{\"nothing\":1}").to_vec(), "invalid_argument"),
        (frame(b"{}")[..6].to_vec(), "invalid_argument"),
        (Vec::new(), "unimplemented"),
        ([frame(b"{}"), frame(b"{}")].concat(), "unimplemented"),
        (flagged(1), "internal"),
        (flagged(2), "invalid_argument"),
        (long, "resource_exhausted"),
    ] {
        let (messages, end) = taken(&rig.with("POST", WATCH, &[STREAM], body).await);
        assert_eq!((messages.len(), end["error"]["code"].as_str()), (0, Some(code)), "{end}");
    }
    let brotli = [STREAM, ("connect-content-encoding", "br")];
    let (_, end) = taken(&rig.with("POST", WATCH, &brotli, frame(b"{}")).await);
    assert_eq!(end["error"]["code"], "unimplemented");
    let bad = [frame(b"{}"), frame(b"{\"parent\":1}")].concat();
    let (_, end) = taken(&rig.with("POST", IMPORT, &[STREAM], bad).await);
    assert!(end["error"]["message"].as_str().unwrap().starts_with("message 2: "), "{end}");
}

#[tokio::test]
async fn a_stream_both_ways_is_answered_while_it_is_sent_and_needs_http_2() {
    use http_body_util::{BodyExt as _, StreamBody};
    // The service behind answers each message with itself.
    let transcoder = Rig::before(|request| async move {
        let mut trailers = http::HeaderMap::new();
        Status::new(Code::Ok, "").write(&mut trailers);
        Ok(http::Response::new(boxed(request.into_body().with_trailers(async { Some(Ok(trailers)) }))))
    });
    let ask = |version, body| {
        let request = Request::post("/library.v1.Library/Talk").version(version).header(STREAM.0, STREAM.1);
        tower::ServiceExt::oneshot(transcoder.clone(), request.body(body).unwrap())
    };
    let refused = ask(Version::HTTP_11, boxed(Full::from(&b""[..]))).await.unwrap();
    assert_eq!(refused.status(), 505);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, transcode::service::BoxError>(http_body::Frame::data(bytes)), receiver))
    });
    let mut answer = ask(Version::HTTP_2, boxed(StreamBody::new(frames))).await.unwrap().into_body();
    for title in ["a", "b"] {
        sender.send(frame(format!("{{\"title\":\"{title}\"}}").as_bytes())).await.unwrap();
        let envelope = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&envelope[5..], format!("{{\"title\":\"{title}\"}}").as_bytes());
    }
    drop(sender);
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap()[0], 2);
}
