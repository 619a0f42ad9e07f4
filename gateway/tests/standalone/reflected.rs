//! What the gateway knows of a server, and when.

use contracts::storefront::v1::{GetProductPageRequest, storefront_service_client::StorefrontServiceClient};
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::behind::{Gateway, Reflection, STOREFRONT, Server, send};

const PAGE: &str = "/v1/storefront/products/1";
const CALL: &str = "/stoa.storefront.v1.StorefrontService/GetProductPage";

async fn channel(gateway: &Gateway) -> tonic::transport::Channel {
    Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap().connect().await.unwrap()
}

fn asking(product: &str) -> GetProductPageRequest {
    GetProductPageRequest { product: product.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_server_is_served_by_every_protocol_with_its_own_descriptors() {
    for reflection in [Reflection::V1, Reflection::V1Alpha] {
        let server = Server::start("t", reflection).await;
        let gateway = Gateway::start(server.address, &[]).await;
        assert_eq!(gateway.until_served(PAGE).await.title(), "t");
        let answer = send(gateway.address, "GET", "/v1/storefront/products/none", &[], "").await;
        assert_eq!((answer.status, answer.json()["message"].as_str()), (404, Some("no such product")));
        let json = [("content-type", "application/json")];
        let answer = send(gateway.address, "POST", CALL, &json, "{\"product\":\"products/1\"}").await;
        assert_eq!((answer.status, answer.title()), (200, "t".to_owned()));
        let web = [("content-type", "application/grpc-web+proto")];
        let message = asking("products/1").encode_to_vec();
        let framed = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()][..], &message].concat();
        let answer = send(gateway.address, "POST", CALL, &web, framed).await;
        assert!(answer.body.ends_with(b"grpc-status: 0\r\n"), "{answer:?}");
        let answer = send(gateway.address, "GET", "/v1/storefront/home", &[("x-said", "a"), ("cookie", "b")], "").await;
        assert_eq!((answer.status, &answer.headers["x-heard"]), (200, &"a".parse().unwrap()));
        let mut client = StorefrontServiceClient::new(channel(&gateway).await);
        let page = client.get_product_page(asking("products/2")).await.unwrap().into_inner();
        assert_eq!(page.product.unwrap().product.unwrap().name, "products/2");
        let refused = client.get_product_page(asking("products/none")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "no such product"));
    }
}

#[tokio::test]
async fn only_the_services_that_are_named_are_served() {
    let server = Server::start("t", Reflection::V1).await;
    let gateway = Gateway::start(server.address, &["--services", "grpc.reflection.v1.ServerReflection"]).await;
    assert_eq!(gateway.until_served(PAGE).await.status, 404);
    let mut client = StorefrontServiceClient::new(channel(&gateway).await);
    assert_eq!(client.get_product_page(asking("products/1")).await.unwrap_err().code(), Code::Unimplemented);
    let named = Gateway::start(server.address, &["--services", STOREFRONT]).await;
    assert_eq!(named.until_served(PAGE).await.title(), "t");
    let check = HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(channel(&named).await).check(check).await;
    assert_eq!(health.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_server_may_come_after_the_gateway_and_come_back_as_another() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = Gateway::start(address, &[]).await;
    let answer = send(gateway.address, "GET", PAGE, &[], "").await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (503, Some(14)));
    let mut client = StorefrontServiceClient::new(channel(&gateway).await);
    assert_eq!(client.get_product_page(asking("products/1")).await.unwrap_err().code(), Code::Unavailable);
    let server = Server::start_at(address, "first", Reflection::V1).await;
    assert_eq!(gateway.until_served(PAGE).await.title(), "first");
    server.stop();
    assert_eq!(gateway.until(PAGE, |answer| answer.status != 200).await.status, 503);
    let _server = Server::start_at(address, "second", Reflection::V1).await;
    assert_eq!(gateway.until(PAGE, |answer| answer.status == 200).await.title(), "second");
}

#[tokio::test]
async fn a_file_describes_a_server_without_reflection_and_is_read_again() {
    let server = Server::start("t", Reflection::None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("descriptors.binpb");
    std::fs::write(&file, contracts::DESCRIPTOR_SET).unwrap();
    let gateway = Gateway::start(server.address, &["--descriptors", file.to_str().unwrap()]).await;
    assert_eq!(gateway.until_served(PAGE).await.title(), "t");
    // Descriptors without services serve nothing; ones that are no descriptors change nothing.
    std::fs::write(&file, "").unwrap();
    assert_eq!(gateway.until(PAGE, |answer| answer.status == 404).await.status, 404);
    std::fs::write(&file, contracts::DESCRIPTOR_SET).unwrap();
    assert_eq!(gateway.until(PAGE, |answer| answer.status == 200).await.title(), "t");
}

#[tokio::test]
async fn messages_are_bounded_and_unknown_fields_refused_unless_it_is_said() {
    let server = Server::start("t", Reflection::V1).await;
    let json = [("content-type", "application/json")];
    let unknown = "{\"product\":\"products/1\",\"nothing\":1}";
    let strict = Gateway::start(server.address, &["--max-message", "100"]).await;
    strict.until_served(PAGE).await;
    assert_eq!(send(strict.address, "POST", CALL, &json, unknown).await.status, 400);
    let long = format!("{{\"product\":\"products/{}\"}}", "1".repeat(100));
    assert_eq!(send(strict.address, "POST", CALL, &json, long).await.status, 413);
    let mut client = StorefrontServiceClient::new(channel(&strict).await);
    let refused = client.get_product_page(asking(&"p".repeat(101))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let lax = Gateway::start(server.address, &["--ignore-unknown"]).await;
    lax.until_served(PAGE).await;
    assert_eq!(send(lax.address, "POST", CALL, &json, unknown).await.status, 200);
    assert_eq!(send(lax.address, "GET", &format!("{PAGE}?nothing=1"), &[], "").await.status, 200);
}
