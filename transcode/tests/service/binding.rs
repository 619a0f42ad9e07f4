//! A field is bound once: from the path, the body, the query or a header.

use serde_json::{Value, json};

use crate::library::{Answer, Rig};

const BOOKS: &str = "/v1/shelves/1/books";
const BOOK: &str = "/v1/shelves/1/books/2";

async fn bound(rig: &Rig, answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    rig.fake.last().messages[0].clone()
}

async fn query(rig: &Rig, query: &str) -> Value {
    let answer = rig.get(&format!("{BOOKS}?{query}")).await;
    bound(rig, answer).await
}

#[tokio::test]
async fn a_query_binds_nested_repeated_enum_and_well_known_fields() {
    let rig = Rig::new();
    let given = "pageSize=20&page_token=a+b%2Bc&filter.title=x&filter.author.birthYear=-1900&filter.genres=GENRE_POEM&filter.genres=1&tags=a&tags=b&genre=2\
                 &since=2024-01-02T03:04:05.5Z&within=1.5s&readMask=title,authors.givenName&minCopies=9007199254740993&lent=true&big=18446744073709551615\
                 &weight=-1.5e3&digest=_-8&offset=-3&deep=true&narrow=0.5&fixed=7&limit=0";
    assert_eq!(
        query(&rig, given).await,
        json!({
            "parent": "shelves/1", "pageSize": 20, "pageToken": "a b+c", "filter": {"title": "x", "author": {"birthYear": -1900}, "genres": ["GENRE_POEM", "GENRE_NOVEL"]},
            "tags": ["a", "b"], "genre": "GENRE_POEM", "since": "2024-01-02T03:04:05.500Z", "within": "1.500s", "readMask": "title,authors.givenName",
            "minCopies": "9007199254740993", "lent": true, "big": "18446744073709551615", "weight": -1500.0, "digest": "/+8=", "offset": -3, "deep": true, "narrow": 0.5,
            "fixed": 7, "limit": 0
        })
    );
}

#[tokio::test]
async fn query_values_of_another_type_are_named() {
    let rig = Rig::new();
    for (bad, field) in [
        ("pageSize=x", "pageSize"),
        ("pageSize=", "pageSize"),
        ("pageSize=2147483648", "pageSize"),
        ("pageSize=9223372036854775808", "pageSize"),
        ("pageSize=1.0", "pageSize"),
        ("pageSize=0x1", "pageSize"),
        ("big=-1", "big"),
        ("genre=NOVEL", "genre"),
        ("genre=genre_novel", "genre"),
        ("deep=1", "deep"),
        ("deep=True", "deep"),
        ("since=yesterday", "since"),
        ("within=5", "within"),
        ("weight=inf", "weight"),
        ("weight=1e999", "weight"),
        ("narrow=1e39", "narrow"),
        ("digest=!", "digest"),
        ("lent=yes", "lent"),
        ("filter.author.birthYear=x", "filter.author.birthYear"),
        ("pageToken=%zz", "pageToken"),
        ("pageToken=%ff", "pageToken"),
    ] {
        let answer = rig.get(&format!("{BOOKS}?{bad}")).await;
        assert_eq!((answer.status, answer.violations()), (400, vec![field.to_owned()]), "{bad} {answer:?}");
    }
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn query_parameters_that_bind_nothing_are_refused() {
    let rig = Rig::new();
    for (bad, field) in [
        ("nothing=1", "nothing"),
        ("filter=x", "filter"),
        ("filter.nothing=x", "filter.nothing"),
        ("pageSize.x=1", "pageSize.x"),
        ("since.seconds=1", "since.seconds"),
        ("authors=x", "authors"),
        ("authors.givenName=x", "authors.givenName"),
        ("labels=x", "labels"),
        ("labels.key=x", "labels.key"),
        ("labels[key]=x", "labels[key]"),
        ("=x", ""),
    ] {
        let answer = rig.get(&format!("{BOOKS}?{bad}")).await;
        assert_eq!((answer.status, answer.violations()), (400, vec![field.to_owned()]), "{bad}");
    }
}

#[tokio::test]
async fn all_bad_parameters_are_told_at_once() {
    let rig = Rig::new();
    let answer = rig.get(&format!("{BOOKS}?pageSize=x&nothing=1&deep=2&tags=fine")).await;
    assert_eq!(answer.violations(), ["deep", "nothing", "pageSize"]);
}

#[tokio::test]
async fn a_singular_field_given_twice_is_refused() {
    let rig = Rig::new();
    for bad in [
        "pageSize=1&pageSize=1",
        "pageSize=1&page_size=1",
        "filter.title=a&filter.title=b",
        "since=2024-01-01T00:00:00Z&since=2024-01-01T00:00:00Z",
        "orderBy=a&rankBy=b",
    ] {
        assert_eq!(rig.get(&format!("{BOOKS}?{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(query(&rig, "orderBy=a").await, json!({"parent": "shelves/1", "orderBy": "a"}));
}

#[tokio::test]
async fn a_query_never_overrides_the_path_or_the_body() {
    let rig = Rig::new();
    assert_eq!(rig.get(&format!("{BOOKS}?parent=shelves/9")).await.violations(), ["parent"]);
    assert_eq!(
        rig.json("POST", &format!("{BOOKS}?book.title=x"), r#"{"title":"y"}"#).await.violations(),
        ["book.title"]
    );
    assert_eq!(rig.json("POST", &format!("{BOOK}:lend?days=3"), r#"{"reader":"y"}"#).await.violations(), ["days"]);
    assert_eq!(rig.json("PATCH", &format!("{BOOK}?book.name=x"), "{}").await.violations(), ["book.name"]);
    assert_eq!(rig.fake.calls(), 0);
}

#[tokio::test]
async fn a_body_is_the_whole_request_or_one_field() {
    let rig = Rig::new();
    let answer = rig.json("POST", &format!("{BOOK}:lend"), r#"{"reader":"ann","days":3}"#).await;
    assert_eq!(bound(&rig, answer).await, json!({"name": "shelves/1/books/2", "reader": "ann", "days": 3}));
    let answer =
        rig.json("POST", &format!("{BOOKS}?requestId=r"), r#"{"title":"t","authors":[{"given_name":"g"}]}"#).await;
    assert_eq!(
        bound(&rig, answer).await,
        json!({"parent": "shelves/1", "book": {"title": "t", "authors": [{"givenName": "g"}]}, "requestId": "r"})
    );
    let answer = rig.json("PUT", &format!("{BOOK}/tags"), r#"["a","b"]"#).await;
    assert_eq!(bound(&rig, answer).await, json!({"name": "shelves/1/books/2", "tags": ["a", "b"]}));
    assert_eq!(rig.json("PUT", &format!("{BOOK}/tags"), r#""a""#).await.status, 400);
}

#[tokio::test]
async fn an_absent_body_is_an_empty_message() {
    let rig = Rig::new();
    let answer = rig.with("POST", &format!("{BOOK}:lend"), &[], "").await;
    assert_eq!(bound(&rig, answer).await, json!({"name": "shelves/1/books/2"}));
}

#[tokio::test]
async fn a_body_where_none_belongs_is_refused() {
    let rig = Rig::new();
    assert_eq!(rig.json("DELETE", BOOK, "{}").await.status, 400);
    assert_eq!(rig.json("GET", BOOK, "{}").await.status, 400);
    assert_eq!(rig.json("GET", BOOK, "").await.status, 200);
}

#[tokio::test]
async fn a_body_may_repeat_the_path_and_never_contradict_it() {
    let rig = Rig::new();
    assert_eq!(rig.json("POST", &format!("{BOOK}:lend"), r#"{"name":"shelves/1/books/2"}"#).await.status, 200);
    assert_eq!(
        rig.json("POST", &format!("{BOOK}:lend"), r#"{"name":"shelves/1/books/3"}"#).await.violations(),
        ["name"]
    );
    assert_eq!(rig.json("PATCH", BOOK, r#"{"name":"shelves/1/books/3"}"#).await.violations(), ["book.name"]);
}

#[tokio::test]
async fn an_idempotency_key_fills_an_empty_request_id() {
    let rig = Rig::new();
    let path = format!("{BOOK}:lend");
    let key = [("content-type", "application/json"), ("idempotency-key", "\"k1\"")];
    let answer = rig.with("POST", &path, &key, r#"{"days":1}"#).await;
    assert_eq!(bound(&rig, answer).await["requestId"], "k1");
    let answer = rig.with("POST", &path, &key, r#"{"requestId":"k1"}"#).await;
    assert_eq!(bound(&rig, answer).await["requestId"], "k1");
    assert_eq!(rig.with("POST", &path, &key, r#"{"requestId":"k2"}"#).await.violations(), ["request_id"]);
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(rig.with("POST", &path, &twice, "").await.violations(), ["request_id"]);
    assert_eq!(rig.with("GET", BOOK, &key[1..], "").await.status, 200, "a method without request_id takes no notice");
}

#[tokio::test]
async fn if_match_fills_an_empty_etag() {
    let rig = Rig::new();
    let answer = rig.with("POST", &format!("{BOOK}:lend"), &[("if-match", "\"7\"")], "").await;
    assert_eq!(bound(&rig, answer).await["etag"], "7");
    let answer = rig.with("PATCH", BOOK, &[("if-match", "W/\"7\"")], r#"{"title":"t"}"#).await;
    assert_eq!(bound(&rig, answer).await["book"], json!({"name": "shelves/1/books/2", "title": "t", "etag": "7"}));
    assert_eq!(rig.with("PATCH", BOOK, &[("if-match", "\"7\"")], r#"{"etag":"8"}"#).await.violations(), ["etag"]);
    let answer = rig.with("PATCH", BOOK, &[("if-match", "*")], r#"{"title":"t"}"#).await;
    assert_eq!(bound(&rig, answer).await["book"].get("etag"), None);
}

#[tokio::test]
async fn a_patch_fills_its_mask_from_the_keys_present() {
    let rig = Rig::new();
    for (body, mask) in [
        (r#"{"title":"t","copies":0}"#, "copies,title"),
        (
            r#"{"editor":{"givenName":"g","family_name":null},"labels":{"a":"b"},"authors":[{"givenName":"x"}]}"#,
            "authors,editor.familyName,editor.givenName,labels",
        ),
        (r#"{"editor":{}}"#, "editor"),
        (r#"{"sequel":{"sequel":{"title":"t"}},"printTime":"2024-01-01T00:00:00Z"}"#, "printTime,sequel.sequel.title"),
        (r#"{"name":"shelves/1/books/2","etag":"3","createTime":"2024-01-01T00:00:00Z","title":"t"}"#, "title"),
    ] {
        let answer = rig.json("PATCH", BOOK, body).await;
        let message = bound(&rig, answer).await;
        let mut paths: Vec<&str> = message["updateMask"].as_str().unwrap().split(',').collect();
        paths.sort_unstable();
        assert_eq!(paths.join(","), mask, "{body}");
    }
}

#[tokio::test]
async fn a_mask_that_is_given_stays() {
    let rig = Rig::new();
    let answer = rig.json("PATCH", &format!("{BOOK}?updateMask=title"), r#"{"title":"t","copies":"3"}"#).await;
    assert_eq!(bound(&rig, answer).await["updateMask"], "title");
}
