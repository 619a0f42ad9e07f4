//! gRPC on the same port: the same identity, the same rules, reflection and health.

use auth::{Principal, Role};
use contracts::{
    catalog::v1::{GetProductRequest, Product, catalog_service_client::CatalogServiceClient},
    operations::v1::{ListSagasRequest, ListSagasResponse, operations_service_client::OperationsServiceClient},
};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::rig::Rig;

const GET_PRODUCT: &str = "/stoa.catalog.v1.CatalogService/GetProduct";
const LIST_SAGAS: &str = "/stoa.operations.v1.OperationsService/ListSagas";

fn asking() -> Request<GetProductRequest> {
    Request::new(GetProductRequest { name: "products/1".to_owned() })
}

#[tokio::test]
async fn a_call_passes_with_the_tokens_identity_and_without_foreign_metadata() {
    let rig = Rig::new().await;
    rig.answer(GET_PRODUCT, &Product { title: "t".to_owned(), ..Default::default() });
    let mut client = CatalogServiceClient::new(rig.channel().await);
    assert_eq!(client.get_product(asking()).await.unwrap().into_inner().title, "t");
    assert_eq!(rig.last().identity.principal, Principal::Anonymous);
    let mut request = asking();
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", rig.token("users/1", Role::Operator)).parse().unwrap());
    request.metadata_mut().insert("stoa-caller", "ordering".parse().unwrap());
    request.metadata_mut().insert("stoa-client-address", "203.0.113.7".parse().unwrap());
    request.metadata_mut().insert("x-request-id", "r1".parse().unwrap());
    let response = client.get_product(request).await.unwrap();
    assert_eq!(response.metadata().get("stoa-trace-id").unwrap().len(), 32);
    let seen = rig.last();
    assert_eq!(
        (seen.identity.principal.subject().unwrap().id.as_str(), seen.identity.caller.as_ref()),
        ("users/1", "gateway")
    );
    assert!(!seen.headers.contains_key("authorization") && !seen.headers.contains_key("stoa-caller"));
    assert_eq!(seen.headers["x-request-id"], "r1");
    assert_eq!(seen.headers["stoa-client-address"], "127.0.0.1", "as the listener saw it");
}

#[tokio::test]
async fn refusals_are_grpc_answers() {
    let rig = Rig::new().await;
    let mut client = CatalogServiceClient::new(rig.channel().await);
    let mut request = asking();
    request.metadata_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    assert_eq!(client.get_product(request).await.unwrap_err().code(), Code::Unauthenticated);
    let mut request = asking();
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    assert_eq!(client.get_product(request).await.unwrap_err().code(), Code::InvalidArgument);
    let large = Request::new(GetProductRequest { name: "x".repeat(300 << 10) });
    assert_eq!(client.get_product(large).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let rig = Rig::new().await;
    let mut grpc = tonic::client::Grpc::new(rig.channel().await);
    for path in ["/foreign.Service/Get", "/stoa.catalog.v1.CatalogService/Nothing", "/"] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<GetProductRequest, Product>::default();
        let answer = grpc.unary(asking(), http::uri::PathAndQuery::from_static(path), codec).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn operations_go_to_the_service_in_the_first_message() {
    let rig = Rig::new().await;
    rig.answer(LIST_SAGAS, &ListSagasResponse::default());
    let mut client = OperationsServiceClient::new(rig.channel().await);
    let asking = |parent: &str| ListSagasRequest { parent: parent.to_owned(), ..Default::default() };
    client.list_sagas(asking("services/payment")).await.unwrap();
    assert_eq!(rig.last().service, "payment");
    assert_eq!(client.list_sagas(asking("services/nothing")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.list_sagas(asking("payment")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_internal_method_is_denied_by_its_service() {
    let rig = Rig::new().await;
    // The real layers stand in front of a service without handlers: its policy is decided first.
    let catalog = server::Component::new(
        "catalog",
        contract::Table(contracts::catalog::v1::METHODS),
        tonic::service::Routes::default(),
    );
    let _ = rig.context.mount(catalog);
    let mut client = CatalogServiceClient::new(rig.channel().await);
    let answer = client.resolve_prices(contracts::catalog::v1::ResolvePricesRequest::default()).await;
    assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
    let answer = client.create_product(contracts::catalog::v1::CreateProductRequest::default()).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn reflection_lists_and_describes_every_service() {
    let rig = Rig::new().await;
    let mut client = ServerReflectionClient::new(rig.channel().await);
    let mut ask = async |request: MessageRequest| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("no list")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in [
        "stoa.catalog.v1.CatalogService",
        "stoa.ordering.v1.OrderingService",
        "stoa.storefront.v1.StorefrontService",
        "stoa.mobile.v1.MobileService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name.to_owned()), "{name} is not in {names:?}");
    }
    let described = ask(MessageRequest::FileContainingSymbol("stoa.catalog.v1.CatalogService".to_owned())).await;
    let MessageResponse::FileDescriptorResponse(files) = described else { panic!("not described") };
    let file = files.file_descriptor_proto.concat();
    let route = b"/v1/{name=products/*}";
    assert!(file.windows(route.len()).any(|window| window == route), "the HTTP rules are part of the description");
}

#[tokio::test]
async fn the_older_reflection_answers_too() {
    use tonic_reflection::pb::v1alpha::{self, server_reflection_client::ServerReflectionClient};
    let rig = Rig::new().await;
    let mut client = ServerReflectionClient::new(rig.channel().await);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
}

#[tokio::test]
async fn every_service_is_healthy_until_the_end_begins() {
    let rig = Rig::new().await;
    let mut client = HealthClient::new(rig.channel().await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "stoa.catalog.v1.CatalogService", "stoa.ordering.v1.OrderingService"] {
        assert_eq!(client.check(ask(service)).await.unwrap().into_inner().status, 1, "{service}");
    }
    assert_eq!(client.check(ask("nothing")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    rig.context.shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
}
