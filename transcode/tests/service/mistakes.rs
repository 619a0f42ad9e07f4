//! What other transcoders get wrong, each once.

use http::Version;
use http_body_util::Full;
use serde_json::json;
use transcode::{
    rule::RuleError,
    service::{Code, Detail, Status, Transcoder, boxed},
};

use crate::library::{Fake, Piece, Rig, frames, load, pool_of};

const BOOKS: &str = "/v1/shelves/1/books";
const BOOK: &str = "/v1/shelves/1/books/2";

#[tokio::test]
async fn a_query_does_not_override_what_the_path_says() {
    let rig = Rig::new();
    let answer = rig.get(&format!("{BOOK}?name=shelves/9/books/9")).await;
    assert_eq!((answer.status, answer.violations(), rig.fake.calls()), (400, vec!["name".to_owned()], 0));
}

#[tokio::test]
async fn a_stream_that_fails_is_not_a_complete_array_with_200() {
    let rig = Rig::new();
    for end in [Piece::Error(Status::new(Code::Internal, "lost")), Piece::Break] {
        rig.fake.answer([Piece::Message(json!({"title": "a"})), end]);
        let answer = rig.with("GET", &format!("{BOOKS}:watch"), &[("accept", "application/json")], "").await;
        let all = answer.json();
        assert_eq!(all[0], json!({"title": "a"}));
        assert!(all[1]["error"]["code"].is_number(), "{all}");
    }
}

#[tokio::test]
async fn a_detail_of_unknown_type_does_not_destroy_the_answer() {
    let rig = Rig::new();
    let detail = Detail { type_url: "type.googleapis.com/no.Where".to_owned(), value: b"\x08\x01"[..].into() };
    rig.fake.answer([Piece::Error(Status { details: vec![detail], ..Status::new(Code::Aborted, "changed") })]);
    let answer = rig.get(BOOK).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["code"], &body["message"]), (409, &json!(10), &json!("changed")));
    assert_eq!(body["details"], json!([{"@type": "type.googleapis.com/no.Where", "value": "CAE="}]));
}

#[tokio::test]
async fn a_wrong_method_is_405_with_those_that_are_right() {
    let rig = Rig::new();
    let answer = rig.json("POST", BOOK, "{}").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "DELETE, GET, HEAD, PATCH"));
}

#[tokio::test]
async fn an_escaped_slash_is_no_separator() {
    let rig = Rig::new();
    assert_eq!(rig.get("/v1/books/a%2Fb").await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"name": "a/b"})]);
    assert_eq!(rig.get("/v1/shelves%2F1/books/2").await.status, 404);
}

/// Methods with these rules, in this order.
fn again(rules: [&str; 2]) -> Result<Transcoder, RuleError> {
    let method = |(at, rule)| format!("rpc M{at}(R) returns (R) {{ option (google.api.http) = {{ {rule} }}; }}");
    let methods: String = (0..).zip(rules).map(method).collect();
    let source = format!(
        "syntax = \"proto3\"; package again; import \"google/api/annotations.proto\"; service S {{ {methods} }} message R {{ string a = 1; string b = 2; }}"
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("again.proto"), source).unwrap();
    load(&pool_of(folder.path(), "again.proto"), Fake::default())
}

#[test]
fn the_order_of_routes_decides_nothing_and_two_of_one_shape_do_not_load() {
    let (literal, star) = (r#"get: "/x/special""#, r#"get: "/x/{a}""#);
    for (rules, method) in [([literal, star], "/again.S/M0"), ([star, literal], "/again.S/M1")] {
        let found = again(rules).unwrap().find(&http::Request::get("/x/special").body(()).unwrap()).unwrap();
        assert_eq!(found.method().path, method);
    }
    for rules in [[star, r#"get: "/x/{b}""#], [r#"get: "/x/{b}""#, star]] {
        assert!(again(rules).unwrap_err().to_string().contains("two routes answer GET /x/*"));
    }
}

#[tokio::test]
async fn a_verb_stands_behind_the_last_colon_only() {
    let rig = Rig::new();
    assert_eq!(rig.json("POST", "/v1/shelves/1/books/isbn:978:lend", "{}").await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"name": "shelves/1/books/isbn:978"})]);
    assert_eq!(rig.get("/v1/shelves/1/books/user:1").await.status, 200);
}

#[tokio::test]
async fn int64_is_a_string_in_json() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"copies": "9007199254740993"}))]);
    assert_eq!(rig.get(BOOK).await.text(), r#"{"copies":"9007199254740993"}"#);
}

#[tokio::test]
async fn what_is_no_json_is_refused_and_a_number_with_an_exponent_is_one() {
    let rig = Rig::new();
    for bad in [r#"{"days":1,}"#, "{'days':1}", r#"{"days":"1 "}"#] {
        assert_eq!(rig.json("POST", &format!("{BOOK}:lend"), bad).await.status, 400, "{bad}");
    }
    for good in [r#"{"days":"1e2"}"#, r#"{"days":1e2}"#, r#"{"days":100.0}"#] {
        assert_eq!(rig.json("POST", &format!("{BOOK}:lend"), good).await.status, 200, "{good}");
        assert_eq!(rig.fake.last().messages[0]["days"], 100, "{good}");
    }
}

#[tokio::test]
async fn a_response_body_is_one_field() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"titles": ["a"], "nextPageToken": "n"}))]);
    assert_eq!(rig.get(&format!("{BOOKS}:titles")).await.text(), r#"["a"]"#);
}

#[tokio::test]
async fn integers_in_a_path_are_decimal() {
    let rig = Rig::new();
    for bad in ["0x10", "0b1", "0o7", "1_000"] {
        assert_eq!(rig.get(&format!("/v1/pages/{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(rig.get("/v1/pages/16").await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"number": 16})]);
}

#[tokio::test]
async fn head_answers_where_get_does() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Message(json!({"title": "t"}))]);
    let answer = rig.with("HEAD", BOOK, &[], "").await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, "13", 0));
}

#[tokio::test]
async fn a_body_that_does_not_say_it_is_json_is_415() {
    let rig = Rig::new();
    let answer = rig.with("POST", &format!("{BOOK}:lend"), &[("content-type", "text/plain")], "{\"days\":1}").await;
    assert_eq!((answer.status, rig.fake.calls()), (415, 0));
}

#[tokio::test]
async fn trailers_are_found_wherever_the_chunks_end() {
    let rig = Rig::new();
    rig.fake.trailers.lock().unwrap().insert("stoa-cost", "3".parse().unwrap());
    for in_one in [false, true] {
        *rig.fake.in_one.lock().unwrap() = in_one;
        rig.fake.answer([
            Piece::Message(json!({"title": "a"})),
            Piece::Message(json!({"title": "b"})),
            Piece::Error(Status::new(Code::Ok, "")),
        ]);
        let request = http::Request::post("/library.v1.Library/WatchBooks")
            .version(Version::HTTP_11)
            .header("content-type", "application/grpc-web+proto")
            .body(boxed(Full::from(&b"\0\0\0\0\0"[..])))
            .unwrap();
        let answer = rig.send(request).await;
        let frames = frames(&answer.body);
        let flags: Vec<u8> = frames.iter().map(|(flags, _)| *flags).collect();
        assert_eq!(flags, [0, 0, 0x80], "in one: {in_one}");
        let trailers = std::str::from_utf8(&frames[2].1).unwrap();
        assert!(trailers.contains("grpc-status: 0\r\n") && trailers.contains("stoa-cost: 3\r\n"), "{trailers}");
    }
}

#[tokio::test]
async fn a_challenge_does_not_repeat_what_the_service_said() {
    let rig = Rig::new();
    rig.fake.answer([Piece::Error(Status::new(Code::Unauthenticated, "eve's token\r\nset-cookie: a=b"))]);
    let answer = rig.get(BOOK).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
    assert!(!answer.headers.contains_key("set-cookie"));
}
