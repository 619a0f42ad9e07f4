//! Shipping as its callers see it: through every layer, over its own store, with none of the other services built in.

#![allow(clippy::unwrap_used)]

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contracts::address::v1::PostalAddress;
use contracts::google::r#type::Money;
use contracts::identity::v1 as identity;
use contracts::shipping::v1 as proto;
use contracts::shipping::v1::ShipmentState as State;
use contracts::shipping::v1::shipping_service_client::ShippingServiceClient;
use log::{Log, Meta};
use server::{Context, status};
use store::{Store, Tx, site};
use tonic::{Code, Request, Status};
use uuid::Uuid;

type Client = ShippingServiceClient<Channel>;

/// The service, running, and whoever calls it.
struct Shop {
    context: Context,
    ordering: Client,
    gateway: Client,
}

async fn shop() -> Shop {
    let context = Context::temporary(contracts::METHODS);
    let component = shipping::build(shipping::Config::default(), &context).await.unwrap();
    let (_, tasks) = context.mount(component);
    let running = context.clone();
    tokio::spawn(async move { server::supervise(tasks, &running).await });
    let client = |caller| Client::new(context.clients.as_caller(caller).channel("shipping"));
    Shop { ordering: client("ordering"), gateway: client("gateway"), context: context.clone() }
}

fn person(id: &str, role: Role) -> Outgoing {
    let subject = Subject { id: id.to_owned(), role, session: "sessions/1".to_owned() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }
}

fn operator<T>(message: T) -> Request<T> {
    person("users/operator", Role::Operator).request(message)
}

fn customer<T>(id: &str, message: T) -> Request<T> {
    person(id, Role::Customer).request(message)
}

fn key() -> String {
    Uuid::now_v7().to_string()
}

fn parcel(name: &str, order: &str, customer: &str) -> proto::Shipment {
    proto::Shipment {
        name: name.to_owned(),
        order: order.to_owned(),
        customer: customer.to_owned(),
        lines: vec![proto::ShipmentLine {
            line: "1".to_owned(),
            sku: "MUG-1".to_owned(),
            quantity: 2,
            title: "Mug".to_owned(),
        }],
        address: Some(PostalAddress {
            recipient: "Ada".to_owned(),
            street: "1 Lane".to_owned(),
            city: "Bath".to_owned(),
            country_code: "GB".to_owned(),
            ..PostalAddress::default()
        }),
        warehouse: "warehouses/north".to_owned(),
        ..proto::Shipment::default()
    }
}

fn reason(status: &Status) -> String {
    status::reason(status).unwrap_or_default()
}

impl Shop {
    async fn create(&self, name: &str, order: &str, customer: &str) -> Result<proto::Shipment, Status> {
        let shipment = Some(parcel(name, order, customer));
        let request = proto::CreateShipmentRequest { shipment, request_id: key() };
        self.ordering.clone().create_shipment(request).await.map(tonic::Response::into_inner)
    }

    async fn pack(&self, name: &str, etag: &str) -> Result<proto::Shipment, Status> {
        let pack = proto::PackShipmentRequest { name: name.to_owned(), etag: etag.to_owned(), request_id: key() };
        let reply = self.gateway.clone().pack_shipment(operator(pack)).await?;
        Ok(reply.into_inner().shipment.unwrap())
    }

    async fn release(&self, name: &str) -> Result<proto::Shipment, Status> {
        let release = proto::ReleaseShipmentRequest { name: name.to_owned(), request_id: key() };
        let reply = self.ordering.clone().release_shipment(release).await?;
        Ok(reply.into_inner().shipment.unwrap())
    }

    async fn dispatch(&self, name: &str) -> Result<proto::Shipment, Status> {
        let dispatch = proto::DispatchShipmentRequest {
            name: name.to_owned(),
            tracking_number: "T-1".to_owned(),
            request_id: key(),
            ..proto::DispatchShipmentRequest::default()
        };
        let reply = self.gateway.clone().dispatch_shipment(operator(dispatch)).await?;
        Ok(reply.into_inner().shipment.unwrap())
    }

    async fn cancel(&self, name: &str, order: &str) -> Result<proto::Shipment, Status> {
        let cancel = proto::CancelShipmentRequest {
            name: name.to_owned(),
            order: order.to_owned(),
            reason: "unwanted".to_owned(),
            request_id: key(),
        };
        let reply = self.ordering.clone().cancel_shipment(cancel).await?;
        Ok(reply.into_inner().shipment.unwrap())
    }

    async fn get(&self, caller: &str, name: &str) -> Result<proto::Shipment, Status> {
        let get = proto::GetShipmentRequest { name: name.to_owned() };
        self.gateway.clone().get_shipment(customer(caller, get)).await.map(tonic::Response::into_inner)
    }
}

#[tokio::test]
async fn a_parcel_leaves_only_after_it_is_charged() {
    let shop = shop().await;
    let name = "shipments/1-north";
    let created = shop.create(name, "orders/1", "users/ada").await.unwrap();
    assert_eq!((created.state(), created.etag.as_str()), (State::Preparing, "1"));
    assert_eq!(reason(&shop.dispatch(name).await.unwrap_err()), "PAYMENT_NOT_CAPTURED");

    let packed = shop.pack(name, "1").await.unwrap();
    assert_eq!(packed.state(), State::Packed);
    assert!(packed.pack_time.is_some());
    let early = shop.dispatch(name).await.unwrap_err();
    assert_eq!((early.code(), reason(&early).as_str()), (Code::FailedPrecondition, "PAYMENT_NOT_CAPTURED"));

    assert_eq!(shop.release(name).await.unwrap().state(), State::Released);
    assert_eq!(shop.release(name).await.unwrap().etag, "3", "a release twice is one release");
    let left = shop.dispatch(name).await.unwrap();
    assert_eq!(
        (left.state(), left.carrier.as_str(), left.tracking_number.as_str()),
        (State::Dispatched, "Parcel Post", "T-1")
    );
    assert_eq!(reason(&shop.dispatch(name).await.unwrap_err()), "ALREADY_DISPATCHED");

    let arrived = proto::RecordTrackingRequest {
        name: name.to_owned(),
        status: proto::TrackingStatus::Delivered.into(),
        note: "at the door".to_owned(),
        request_id: key(),
    };
    let reply = shop.gateway.clone().record_tracking(operator(arrived)).await.unwrap();
    let arrived = reply.into_inner().shipment.unwrap();
    assert_eq!(arrived.state(), State::Delivered);
    assert!(arrived.deliver_time.is_some() && arrived.dispatch_time.is_some());
}

#[tokio::test]
async fn a_cancellation_that_comes_first_keeps_the_parcel_from_being_made() {
    let shop = shop().await;
    let stopped = shop.cancel("shipments/1-north", "orders/1").await.unwrap();
    assert_eq!((stopped.state(), stopped.order.as_str()), (State::Cancelled, "orders/1"));
    let late = shop.create("shipments/1-north", "orders/1", "users/ada").await.unwrap_err();
    assert_eq!((late.code(), reason(&late).as_str()), (Code::FailedPrecondition, "SHIPMENT_CANCELLED"));
    assert_eq!(shop.cancel("shipments/1-north", "orders/1").await.unwrap().etag, "1");
}

#[tokio::test]
async fn what_is_packed_or_gone_is_not_cancelled() {
    let shop = shop().await;
    let name = "shipments/1-north";
    shop.create(name, "orders/1", "users/ada").await.unwrap();
    shop.pack(name, "").await.unwrap();
    assert_eq!(reason(&shop.cancel(name, "orders/1").await.unwrap_err()), "ALREADY_PACKED");
    shop.release(name).await.unwrap();
    shop.dispatch(name).await.unwrap();
    assert_eq!(reason(&shop.cancel(name, "orders/1").await.unwrap_err()), "ALREADY_DISPATCHED");
    assert_eq!(reason(&shop.pack(name, "").await.unwrap_err()), "ALREADY_DISPATCHED");
}

#[tokio::test]
async fn a_repeated_request_has_one_effect_and_a_stale_etag_none() {
    let shop = shop().await;
    let name = "shipments/1-north";
    let create =
        proto::CreateShipmentRequest { shipment: Some(parcel(name, "orders/1", "users/ada")), request_id: key() };
    let first = shop.ordering.clone().create_shipment(create.clone()).await.unwrap().into_inner();
    let again = shop.ordering.clone().create_shipment(create.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = proto::CreateShipmentRequest { shipment: Some(parcel(name, "orders/2", "users/ada")), ..create };
    let reused = shop.ordering.clone().create_shipment(other).await.unwrap_err();
    assert_eq!((reused.code(), reason(&reused).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    assert_eq!(shop.pack(name, "7").await.unwrap_err().code(), Code::Aborted);
    assert_eq!(shop.pack("shipments/none", "").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn another_customers_parcel_looks_like_none_at_all() {
    let shop = shop().await;
    shop.create("shipments/1-north", "orders/1", "users/ada").await.unwrap();
    assert_eq!(shop.get("users/ada", "shipments/1-north").await.unwrap().order, "orders/1");
    let foreign = shop.get("users/bob", "shipments/1-north").await.unwrap_err();
    shop.cancel("shipments/1-north", "orders/1").await.unwrap();
    let missing = shop.get("users/bob", "shipments/1-south").await.unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound);
    assert_eq!(foreign.message().replace("north", "south"), missing.message());
    assert_eq!(foreign.details().len(), missing.details().len());
}

#[tokio::test]
async fn a_list_shows_the_callers_own_page_by_page_and_all_to_a_service() {
    let shop = shop().await;
    for (number, buyer) in ["users/ada", "users/bob", "users/ada", "users/ada"].into_iter().enumerate() {
        let (name, order) = (format!("shipments/{number}-north"), format!("orders/{number}"));
        shop.create(&name, &order, buyer).await.unwrap();
    }
    let ask = |page_size, page_token: &str, filter: &str| proto::ListShipmentsRequest {
        page_size,
        page_token: page_token.to_owned(),
        filter: filter.to_owned(),
    };
    let first = shop.gateway.clone().list_shipments(customer("users/ada", ask(2, "", ""))).await.unwrap().into_inner();
    let token = first.next_page_token.clone();
    let second =
        shop.gateway.clone().list_shipments(customer("users/ada", ask(2, &token, ""))).await.unwrap().into_inner();
    let names: Vec<_> = first.shipments.iter().chain(&second.shipments).map(|shipment| shipment.name.clone()).collect();
    assert_eq!(names, ["shipments/3-north", "shipments/2-north", "shipments/0-north"]);
    assert_eq!(second.next_page_token, "");

    let filter = "state=SHIPMENT_STATE_PREPARING";
    for request in [customer("users/ada", ask(2, &token, filter)), customer("users/bob", ask(2, &token, ""))] {
        let refused = shop.gateway.clone().list_shipments(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    for wrong in ["color=red", "state=PACKED"] {
        let refused = shop.gateway.clone().list_shipments(operator(ask(2, "", wrong))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}");
    }

    let mut orderview = Client::new(shop.context.clients.as_caller("orderview").channel("shipping"));
    let all = orderview.list_shipments(ask(0, "", "")).await.unwrap().into_inner();
    assert_eq!(all.shipments.len(), 4);
    let one = orderview.list_shipments(ask(0, "", "order=\"orders/1\"")).await.unwrap().into_inner();
    assert_eq!(one.shipments.len(), 1);
    let packed = orderview.list_shipments(ask(0, "", "state=SHIPMENT_STATE_PACKED")).await.unwrap().into_inner();
    assert_eq!(packed.shipments, []);
}

#[tokio::test]
async fn rates_are_answered_to_anyone_cheapest_first() {
    let shop = shop().await;
    let quote = |currency: &str, subtotal: Option<Money>| proto::QuoteRatesRequest {
        country_code: "FR".to_owned(),
        weight_grams: 1500,
        currency_code: currency.to_owned(),
        subtotal,
    };
    let rates = shop.gateway.clone().quote_rates(quote("EUR", None)).await.unwrap().into_inner().rates;
    let ids: Vec<_> = rates.iter().map(|rate| rate.shipping_service.as_str()).collect();
    assert_eq!(ids, ["standard", "express"]);
    assert_eq!(rates[0].tax_basis_points, 2_000);
    let worth = |code: &str| Some(Money { currency_code: code.to_owned(), units: 500, nanos: 0 });
    let free = shop.gateway.clone().quote_rates(quote("EUR", worth("EUR"))).await.unwrap().into_inner().rates;
    assert_eq!(free[0].price.as_ref().unwrap().units, 0);
    for wrong in [quote("JPY", None), quote("EUR", worth("USD")), quote("XXQ", None)] {
        assert_eq!(shop.gateway.clone().quote_rates(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn an_erased_person_leaves_parcels_without_an_address() {
    let shop = shop().await;
    let shipment = Some(parcel("shipments/1-north", "orders/1", "users/ada"));
    let create = proto::CreateShipmentRequest { shipment, request_id: key() };
    let first = shop.ordering.clone().create_shipment(create.clone()).await.unwrap().into_inner();
    let again = shop.ordering.clone().create_shipment(create.clone()).await.unwrap().into_inner();
    assert_eq!(again, first);
    let before = shop.get("users/ada", "shipments/1-north").await.unwrap();
    assert_eq!(before.address.unwrap().recipient, "Ada");

    let config = store::Config::temporary("identity").migrations([log::MIGRATIONS]);
    let persons: Log<identity::Event> = Log::new(Store::open(config).await.unwrap(), vec![]);
    shop.context.hub.publish("identity", bus::source(persons.clone()));
    let log = persons.clone();
    let erased =
        identity::Event::UserErased(identity::UserErased { user: "users/ada".to_owned(), ..Default::default() });
    let mut changed = shop.context.hub.source("shipping").unwrap().changed();
    persons
        .store()
        .write(site!("test.erase"), async move |tx: &mut Tx| {
            log.append(tx, "users/ada", 0, &Meta::default(), None, vec![erased.clone()]).await.map(drop)
        })
        .await
        .unwrap();

    // The erasure is the second event of this log.
    tokio::time::timeout(std::time::Duration::from_secs(10), changed.wait_for(|head| *head >= 2))
        .await
        .unwrap()
        .unwrap();
    let after = shop.get("users/ada", "shipments/1-north").await.unwrap();
    let address = after.address.unwrap();
    assert_eq!((address.recipient.as_str(), address.street.as_str(), address.country_code.as_str()), ("", "", "GB"));
    assert_eq!(after.lines, before.lines);
    // Nor does the answer that is kept for the request tell it.
    let again = shop.ordering.clone().create_shipment(create).await.unwrap().into_inner();
    let address = again.address.unwrap();
    assert_eq!((address.recipient.as_str(), address.street.as_str(), address.country_code.as_str()), ("", "", "GB"));
}

#[tokio::test]
async fn rows_rebuilt_from_the_log_are_what_they_were() {
    use contracts::operations::v1::operations_service_client::OperationsServiceClient;
    use contracts::operations::v1::{RebuildProjectionRequest, VerifyProjectionRequest};
    let shop = shop().await;
    for order in ["orders/1", "orders/2"] {
        shop.create(&format!("shipments/{}-north", &order[7..]), order, "users/ada").await.unwrap();
    }
    shop.pack("shipments/1-north", "").await.unwrap();
    shop.cancel("shipments/2-north", "orders/2").await.unwrap();
    let mut desk = OperationsServiceClient::new(shop.context.clients.as_caller("gateway").channel("shipping"));
    let name = "services/shipping/projections/shipments".to_owned();
    let verify = VerifyProjectionRequest { name: name.clone() };
    assert_eq!(desk.verify_projection(operator(verify.clone())).await.unwrap().into_inner().differences, []);
    let rebuild = RebuildProjectionRequest { name, request_id: key(), ..Default::default() };
    desk.rebuild_projection(operator(rebuild)).await.unwrap();
    assert_eq!(desk.verify_projection(operator(verify)).await.unwrap().into_inner().differences, []);
    assert_eq!(shop.get("users/ada", "shipments/1-north").await.unwrap().state(), State::Packed);
}
