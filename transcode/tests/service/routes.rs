//! Which route a request takes, and which contracts do not load.

use serde_json::json;

use crate::library::{Fake, Rig, load, pool_of};

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_apart() {
    let rig = Rig::new();
    for path in ["/v1/shelves/1/books/", "/v1//books", "/", "/v2", "/v1/shelves/1/BOOKS/2", "/v1/shelves/1/books;x/2/y"]
    {
        let answer = rig.get(path).await;
        assert_eq!((answer.status, answer.json()["code"].clone()), (404, json!(5)), "{path}");
    }
    let answer = rig.json("PUT", "/v1/shelves/1/books/2", "{}").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "DELETE, GET, HEAD, PATCH"));
    let answer = rig.get("/v1/shelves/1/books/2:lend").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn a_colon_in_an_id_is_no_verb() {
    let rig = Rig::new();
    assert_eq!(rig.get("/v1/shelves/1/books/isbn:978").await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"name": "shelves/1/books/isbn:978"})]);
    assert_eq!(rig.json("POST", "/v1/shelves/1/books/isbn:978:lend", "{}").await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"name": "shelves/1/books/isbn:978"})]);
}

#[tokio::test]
async fn paths_are_split_before_they_are_decoded() {
    let rig = Rig::new();
    rig.get("/v1/shelves/a%2Fb/books/c%20d%C3%A9").await;
    assert_eq!(rig.fake.last().messages, [json!({"name": "shelves/a%2Fb/books/c dé"})]);
    rig.get("/v1/files/a/b%2fc").await;
    assert_eq!(rig.fake.last().messages, [json!({"path": "files/a/b%2fc"})]);
    assert_eq!(rig.get("/v1/shelves%2F1%2Fbooks%2F2").await.status, 404);
    for path in ["/v1/shelves/%zz/books/2", "/v1/shelves/%ff/books/2", "/v1/shelves/%/books/2"] {
        assert_eq!(rig.get(path).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn dots_and_case_never_reach_another_route() {
    let rig = Rig::new();
    rig.get("/v1/shelves/../books/%2e%2e").await;
    assert_eq!(rig.fake.last().messages, [json!({"name": "shelves/../books/.."})]);
    assert_eq!(rig.get("/v1/pages/../shelves/1/books/2").await.status, 404);
}

#[tokio::test]
async fn path_integers_are_base_ten() {
    let rig = Rig::new();
    assert_eq!(rig.get("/v1/pages/010").await.status, 200);
    assert_eq!(rig.fake.last().messages, [json!({"number": 10})]);
    for bad in ["0x10", "1e1", "1.0", "2147483648", "abc", "+1"] {
        let answer = rig.get(&format!("/v1/pages/{bad}")).await;
        assert_eq!((answer.status, answer.violations()), (400, vec!["number".to_owned()]), "{bad}");
    }
}

#[tokio::test]
async fn a_long_url_is_refused() {
    let rig = Rig::new();
    let answer = rig.get(&format!("/v1/shelves/{}/books/2", "a".repeat(9000))).await;
    assert_eq!(answer.status, 414);
}

#[test]
fn two_methods_on_one_route_do_not_load() {
    assert_eq!(
        load_rule(r#"get: "/v1/shelves/{shelf}/books/{book}""#),
        "again.Again.Get: two routes answer GET /v1/shelves/*/books/*"
    );
}

#[test]
fn bindings_that_fit_no_field_do_not_load() {
    for (rule, reason) in [
        (r#"get: "/x/{nothing}""#, "no field of this name"),
        (r#"get: "/x/{name.inner}""#, "only fields of messages have fields"),
        (r#"get: "/x/{editor}""#, "a message cannot be given as text"),
        (r#"get: "/x/{tags}""#, "a list cannot be in a path"),
        (r#"post: "/x" body: "nothing""#, "`nothing`: the message has no field of this name"),
        (r#"get: "/x" body: "*""#, "a GET has no body"),
        (r#"get: "/x" response_body: "nothing""#, "the output has no field `nothing` to answer with"),
        (r#"get: "/x/{a""#, "path template"),
    ] {
        let error = load_rule(rule);
        assert!(error.starts_with("again.Again.Get: ") && error.contains(reason), "{rule}: {error}");
    }
}

/// Loads one more method with this rule and tells why it fails.
fn load_rule(rule: &str) -> String {
    let source = format!(
        r#"syntax = "proto3"; package again; import "google/api/annotations.proto"; import "library/v1/library.proto";
        service Again {{ rpc Get(Request) returns (Request) {{ option (google.api.http) = {{ {rule} }}; }} }}
        message Request {{ string shelf = 1; string book = 2; string name = 3; library.v1.Author editor = 4; repeated string tags = 5; }}"#
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("again.proto"), source).unwrap();
    load(&pool_of(folder.path(), "again.proto"), Fake::default()).map(|_| ()).unwrap_err().to_string()
}
