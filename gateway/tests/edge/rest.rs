//! JSON over the real contracts: routes, codecs, raw bodies, operations, probes.

use contracts::{
    cart::v1::{AddItemRequest, AddItemResponse, Cart},
    catalog::v1::{GetProductRequest, Product, Variant},
    google::r#type::Money,
    operations::v1::ListSagasResponse,
    payment::v1::{IngestWebhookRequest, IngestWebhookResponse},
};
use prost::Message as _;
use serde_json::json;

use crate::rig::Rig;

const GET_PRODUCT: &str = "/stoa.catalog.v1.CatalogService/GetProduct";
const ADD_ITEM: &str = "/stoa.cart.v1.CartService/AddItem";
const LIST_SAGAS: &str = "/stoa.operations.v1.OperationsService/ListSagas";
const WEBHOOK: &str = "/stoa.payment.v1.PaymentService/IngestWebhook";

fn product() -> Product {
    let price = Money { currency_code: "EUR".to_owned(), units: 12, nanos: 500_000_000 };
    let variant = Variant { sku: "A-1".to_owned(), prices: vec![price.clone()], ..Default::default() };
    Product {
        name: "products/1".to_owned(),
        title: "Äpfel".to_owned(),
        variants: vec![variant],
        etag: "3".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_product_is_read_by_json() {
    let rig = Rig::new().await;
    rig.answer(GET_PRODUCT, &product());
    let answer = rig.get("/v1/products/1").await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"3\""));
    let variant = json!({"sku": "A-1", "prices": [{"currencyCode": "EUR", "units": "12", "nanos": 500_000_000}]});
    assert_eq!(answer.json(), json!({"name": "products/1", "title": "Äpfel", "variants": [variant], "etag": "3"}));
    let seen = rig.last();
    assert_eq!((seen.service, seen.path.as_str()), ("catalog", GET_PRODUCT));
    assert_eq!(GetProductRequest::decode(seen.message).unwrap().name, "products/1");
}

#[tokio::test]
async fn a_body_reaches_its_service_and_its_faults_are_named() {
    let rig = Rig::new().await;
    rig.answer(
        ADD_ITEM,
        &AddItemResponse {
            cart: Some(Cart { name: "carts/1".to_owned(), ..Default::default() }),
            item: "carts/1/items/1".to_owned(),
        },
    );
    let headers = [("content-type", "application/json"), ("idempotency-key", "8e03978e-40d5-43e8-bc93-6894a57f9324")];
    let answer = rig.send("POST", "/v1/carts/1:addItem", &headers, r#"{"sku":"A-1","quantity":2}"#).await;
    assert_eq!(answer.json(), json!({"cart": {"name": "carts/1"}, "item": "carts/1/items/1"}));
    let sent = AddItemRequest::decode(rig.last().message).unwrap();
    assert_eq!(
        (sent.cart.as_str(), sent.sku.as_str(), sent.quantity, sent.request_id.as_str()),
        ("carts/1", "A-1", 2, "8e03978e-40d5-43e8-bc93-6894a57f9324")
    );
    let before = rig.calls();
    for (bad, field) in [
        (r#"{"sku":"A-1","quantity":2,"price":1}"#, "price"),
        (r#"{"sku":"A-1","quantity":"two"}"#, "quantity"),
        (r#"{"sku":"A-1","quantity":9223372036854775808}"#, "quantity"),
        (r#"{"sku":"A-1","quantity":1.5}"#, "quantity"),
        (r#"{"sku":7}"#, "sku"),
        (r#"{"sku":"a","sku":"b"}"#, "sku"),
    ] {
        let answer = rig.send("POST", "/v1/carts/1:addItem", &headers[..1], bad).await;
        let body = answer.json();
        let named = &body["details"][0]["fieldViolations"][0]["field"];
        assert_eq!((answer.status, named, &body["code"]), (400, &json!(field), &json!(3)), "{bad}: {body}");
        assert!(!body["message"].as_str().unwrap().contains("untagged"), "{body}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert_eq!(rig.send("POST", "/v1/carts/1:addItem", &headers[..1], deep).await.status, 400);
    assert_eq!(rig.send("POST", "/v1/carts/1:addItem", &headers[..1], vec![b' '; 10 << 20]).await.status, 413);
    assert_eq!(rig.calls(), before);
}

#[tokio::test]
async fn a_webhook_arrives_byte_for_byte_with_its_signature() {
    let rig = Rig::new().await;
    rig.answer(WEBHOOK, &IngestWebhookResponse { duplicate: false });
    let raw = b"{ \"id\" :1}\r\n\xff".to_vec();
    let answer = rig
        .send(
            "POST",
            "/v1/webhooks/sandbox",
            &[("content-type", "application/json"), ("stoa-signature", "t=1,v1=ab")],
            raw.clone(),
        )
        .await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    let seen = rig.last();
    let sent = IngestWebhookRequest::decode(seen.message).unwrap();
    let body = sent.body.unwrap();
    assert_eq!((sent.provider.as_str(), body.content_type.as_str(), body.data), ("sandbox", "application/json", raw));
    assert_eq!(seen.headers["stoa-signature"], "t=1,v1=ab");
}

#[tokio::test]
async fn http_2_carries_json_too() {
    let rig = Rig::new().await;
    rig.answer(GET_PRODUCT, &product());
    let stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{}/v1/products/1", rig.address))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status(), response.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert!(body.starts_with(b"{\"name\":\"products/1\""), "{body:?}");
}

#[tokio::test]
async fn operations_go_to_the_service_in_the_name() {
    let rig = Rig::new().await;
    rig.answer(LIST_SAGAS, &ListSagasResponse::default());
    for service in ["ordering", "payment"] {
        assert_eq!(rig.get(&format!("/v1/services/{service}/sagas")).await.status, 200);
        assert_eq!((rig.last().service, rig.last().path.as_str()), (service, LIST_SAGAS));
    }
    assert_eq!(rig.get("/v1/services/nothing/sagas").await.status, 404);
    assert_eq!(rig.get("/v1/services/operations/sagas").await.status, 404);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_answer_in_the_one_shape() {
    let rig = Rig::new().await;
    let answer = rig.get("/v1/nothing").await;
    assert_eq!((answer.status, answer.json()["code"].clone()), (404, json!(5)));
    let answer = rig.send("PUT", "/v1/products/1", &[], "").await;
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").contains("GET"), "{}", answer.header("allow"));
    assert_eq!(rig.send("GET", "/v1/orders/1:cancel", &[], "").await.header("allow"), "POST");
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn a_service_that_refuses_is_heard_with_its_details() {
    let rig = Rig::new().await;
    rig.refuse(GET_PRODUCT, server::status::not_found("products/1"));
    let answer = rig.get("/v1/products/1").await;
    assert_eq!((answer.status, answer.json()["code"].clone()), (404, json!(5)));
    assert!(answer.json()["details"][0]["@type"].as_str().unwrap().starts_with("type.googleapis.com/google.rpc."));
}

#[tokio::test]
async fn a_trace_goes_in_and_its_id_comes_back() {
    let rig = Rig::new().await;
    rig.answer(GET_PRODUCT, &product());
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = rig.send("GET", "/v1/products/1", &[("traceparent", parent)], "").await;
    assert_eq!(answer.header("stoa-trace-id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(answer.header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert_eq!(rig.last().trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    let answer = rig.send("GET", "/v1/products/1", &[("traceparent", "nonsense")], "").await;
    assert_eq!(answer.header("stoa-trace-id").len(), 32);
    assert_eq!(rig.get("/v1/nothing").await.header("stoa-trace-id").len(), 32, "an error has one too");
}

#[tokio::test]
async fn probes_tell_life_and_readiness() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/healthz").await.status, 200);
    assert_eq!(rig.get("/readyz").await.status, 200);
    assert_eq!(rig.send("POST", "/healthz", &[], "").await.status, 405);
}

#[tokio::test]
async fn every_binding_of_the_contracts_finds_its_own_method() {
    use http::Method as HttpMethod;
    let pool = prost_reflect::DescriptorPool::decode(contracts::DESCRIPTOR_SET).unwrap();
    let routes = transcode::rule::router(&transcode::Schema::new(&pool), &pool).unwrap();
    let mut bindings = 0;
    for method in contracts::METHODS.iter() {
        for rule in method.http {
            bindings += 1;
            let path = rule.template.replace("**", "x/y").replace('*', "x");
            let path = path
                .split('{')
                .map(|part| {
                    part.split_once('}').map_or(part.to_owned(), |(variable, rest)| {
                        format!("{}{rest}", variable.split_once('=').map_or("x", |(_, pattern)| pattern))
                    })
                })
                .collect::<String>();
            let verb: HttpMethod = rule.verb.as_str().parse().unwrap();
            let found = routes.find(&verb, &path).unwrap_or_else(|miss| panic!("{verb} {path}: {miss:?}"));
            assert_eq!(found.value.grpc_path, method.path, "{verb} {path}");
        }
    }
    assert!(bindings > 40, "{bindings}");
}
