//! Rules of `google.api.http` become routes, and a request along a route becomes a message.

use http::Method;
use transcode::{
    ParseOptions, Schema,
    route::{Miss, Router},
    rule::{self, Target},
};

use crate::{POOL, SCHEMA, codec, print};

fn router() -> Router<Target> {
    rule::router(&SCHEMA, &POOL).unwrap()
}

/// The call a request leads to, and its message as JSON.
fn called(method: &str, path: &str, query: Option<&str>, body: &str) -> Result<(String, String), Miss> {
    let router = router();
    let found = router.find(&Method::from_bytes(method.as_bytes()).unwrap(), path)?;
    let mut wire = Vec::new();
    let bound = found.value.binding.bind(&found.captures, query, body.as_bytes(), &ParseOptions::default(), &mut wire);
    bound.unwrap();
    let input = match found.value.grpc_path.as_str() {
        "/transcode.test.Shelf/GetBook" => "transcode.test.GetBookRequest",
        "/transcode.test.Shelf/PutBook" => "transcode.test.PutBookRequest",
        _ => "transcode.test.Book",
    };
    Ok((found.value.grpc_path.clone(), print(&codec(input), &wire).unwrap()))
}

#[test]
fn a_request_follows_its_rule() {
    for (method, path, query, body, call, message) in [
        ("GET", "/v1/books/a%2Fb", Some("page=2"), "", "GetBook", "{\"page\":2,\"name\":\"books/a%2Fb\"}"),
        ("GET", "/v1/old/x%2Fy", None, "", "GetBook", "{\"name\":\"x/y\"}"),
        (
            "PATCH",
            "/v1/books/1",
            Some("force=true"),
            "{\"title\":\"T\"}",
            "PutBook",
            "{\"book\":{\"title\":\"T\",\"name\":\"books/1\"},\"force\":true}",
        ),
        ("PURGE", "/v1/books:purge", None, "{\"title\":\"T\"}", "Purge", "{\"title\":\"T\"}"),
    ] {
        let (grpc_path, json) = called(method, path, query, body).unwrap();
        assert_eq!(grpc_path, format!("/transcode.test.Shelf/{call}"));
        assert_eq!(crate::oracle::difference(&json, message), None, "{path}");
    }
    let allowed = ["GET", "HEAD", "PATCH"].map(str::to_owned).to_vec();
    assert_eq!(called("DELETE", "/v1/books/1", None, "").unwrap_err(), Miss::MethodNotAllowed(allowed));
    assert_eq!(called("GET", "/v1/nothing", None, "").unwrap_err(), Miss::NotFound);
}

#[test]
fn what_a_rule_says_of_the_answer_is_kept() {
    let router = router();
    let found = router.find(&Method::GET, "/v1/old/x").unwrap();
    assert_eq!((found.value.response_body.as_str(), found.value.output.name()), ("title", "transcode.test.Book"));
    assert_eq!(router.routes().count(), 4, "a method without a rule has no route");
}

#[test]
fn a_rule_that_cannot_be_followed_names_its_method() {
    for (from, to, told) in [
        ("{name=books/*}", "{name=books/*", "transcode.test.Shelf.GetBook: path template"),
        (
            "{book.name=books/*}",
            "{book.nope=books/*}",
            "transcode.test.Shelf.PutBook: transcode.test.PutBookRequest, `book.nope`",
        ),
        ("body: \"book\"", "body: \"nope\"", "transcode.test.Shelf.PutBook: transcode.test.PutBookRequest, `nope`"),
        (
            "\"/v1/old/{name}\"",
            "\"/v1/books/{name}\"",
            "transcode.test.Shelf.GetBook: two routes answer GET /v1/books/*",
        ),
        (
            "response_body: \"title\"",
            "response_body: \"nope\"",
            "transcode.test.Shelf.GetBook: the output has no field `nope`",
        ),
        ("kind: \"PURGE\"", "kind: \"\"", "transcode.test.Shelf.Purge: the rule has no method"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema");
        let text = std::fs::read_to_string(format!("{here}/shelf.proto")).unwrap();
        assert!(text.contains(from));
        std::fs::write(folder.path().join("changed.proto"), text.replace(from, to)).unwrap();
        let mut compiler = protox::Compiler::new([folder.path(), here.as_ref()]).unwrap();
        compiler.include_imports(true).open_files(["changed.proto"]).unwrap();
        let pool = compiler.descriptor_pool();
        let error = rule::router(&Schema::new(&pool), &pool).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
}
