//! Ordering over its real store and real layers, with cart, inventory, payment and shipping played by one double.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::{Principal, Role, Subject};
use bytes::{BufMut as _, Bytes, BytesMut};
use client::{Answer, Callee, Channel, Outgoing};
use contracts::cart::v1 as cart;
use contracts::google::r#type::Money;
use contracts::identity::v1 as identity;
use contracts::inventory::v1 as inventory;
use contracts::ordering::v1 as proto;
use contracts::ordering::v1::ordering_service_client::OrderingServiceClient;
use contracts::payment::v1 as payment;
use contracts::shipping::v1 as shipping;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message;
use server::{Context, Storage, status};
use telemetry::Trace;
use tonic::Status;
use tonic::body::Body;

/// How the double answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Play {
    /// Units that can be sold, of any SKU.
    pub(crate) stock: i64,
    /// What becomes of an authorisation.
    pub(crate) payment: Payment,
    /// How many calls of a method (by its last path segment) go unanswered first, although they happen.
    pub(crate) lost: BTreeMap<&'static str, u32>,
    /// Parcels are packed already.
    pub(crate) packed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Payment {
    #[default]
    Approves,
    Declines,
    AsksTheBuyer,
    StaysSilent,
}

/// What the double was made to do: the sums that a test compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) held: i64,
    pub(crate) committed: i64,
    pub(crate) authorized: i64,
    pub(crate) voided: i64,
    pub(crate) refunded: i64,
    pub carts_closed: usize,
    pub(crate) shipments: usize,
    pub shipments_cancelled: usize,
}

#[derive(Debug, Default)]
struct State {
    play: Play,
    effects: Effects,
    done: BTreeMap<String, Vec<u8>>,
    reservations: BTreeMap<String, (i64, &'static str)>,
    payments: BTreeMap<String, payment::PaymentState>,
}

/// A running ordering service.
pub(crate) struct World {
    pub(crate) context: Context,
    double: Double,
    folder: tempfile::TempDir,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    pub(crate) async fn new(play: Play) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let double = Double(Arc::new(Mutex::new(State { play, ..State::default() })));
        let mut world = Self { context: context(folder.path()), double, folder, running: None };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        for name in ["cart", "inventory", "payment", "shipping"] {
            self.context.clients.serve(name, Arc::new(self.double.clone()));
        }
        let component = ordering::build(ordering::Config::default(), &self.context).await.unwrap();
        let (_, tasks) = self.context.mount(component);
        let context = self.context.clone();
        self.running = Some(tokio::spawn(async move {
            server::supervise(tasks, &context).await.unwrap();
        }));
    }

    /// Ends the service and starts it again on the same store.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.context = context(self.folder.path());
        self.start().await;
    }

    pub(crate) async fn stop(&mut self) {
        self.context.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
        self.context.finish_writes().await;
        self.context.clients = client::Registry::new(contracts::METHODS);
    }

    /// Identity tells that somebody was erased.
    pub(crate) async fn erase(&self, user: &str) {
        let store = self.context.open("identity", &[]).await.unwrap();
        let log: log::Log<identity::Event> = log::Log::new(store, vec![]);
        self.context.hub.publish("identity", bus::source(log.clone()));
        let (writer, user) = (log.clone(), user.to_owned());
        let written = log.store().write(store::Site::named("test.erase"), async move |tx: &mut store::Tx| {
            let erased = identity::UserErased { user: user.clone(), actor: user.clone() };
            let meta = log::Meta { causation: "test".to_owned(), ..log::Meta::default() };
            writer.append_next(tx, &user, &meta, None, vec![identity::Event::UserErased(erased)]).await
        });
        written.await.unwrap();
    }

    pub(crate) fn play(&self, change: impl FnOnce(&mut Play)) {
        change(&mut self.double.0.lock().unwrap().play);
    }

    pub(crate) fn effects(&self) -> Effects {
        self.double.0.lock().unwrap().effects.clone()
    }

    pub(crate) fn client(&self) -> OrderingServiceClient<Channel> {
        OrderingServiceClient::new(self.context.clients.as_caller("gateway").channel("ordering"))
    }

    pub(crate) async fn place(&self, by: &str, request: proto::PlaceOrderRequest) -> Result<proto::Order, Status> {
        Ok(self.client().place_order(as_user(by, request)).await?.into_inner())
    }

    pub(crate) async fn get(&self, by: &str, name: &str) -> Result<proto::Order, Status> {
        let get = proto::GetOrderRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.client().get_order(as_user(by, get)).await?.into_inner())
    }

    pub(crate) async fn cancel(&self, by: &str, name: &str) -> Result<proto::Order, Status> {
        let cancel = proto::CancelOrderRequest {
            name: name.to_owned(),
            request_id: uuid::Uuid::now_v7().to_string(),
            ..Default::default()
        };
        let reply = self.client().cancel_order(as_user(by, cancel)).await?;
        Ok(reply.into_inner().order.unwrap())
    }

    /// The order once it satisfies `enough`.
    pub(crate) async fn until(&self, name: &str, enough: impl Fn(&proto::Order) -> bool) -> proto::Order {
        let mut head = self.context.hub.source("ordering").unwrap().changed();
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let order = self.get("users/ann", name).await.unwrap();
            if enough(&order) {
                return order;
            }
            let changed = tokio::time::timeout_at(end, head.changed()).await;
            assert!(changed.is_ok(), "{name} is still {:?}", order.state());
        }
    }
}

fn context(folder: &std::path::Path) -> Context {
    let storage = Storage::of_test_in(folder);
    let mut context = Context::new(storage, folder, contracts::METHODS, &[7; 32]);
    context.windows.retry_base = Duration::from_millis(5);
    context.windows.retry_cap = Duration::from_millis(50);
    context.windows.in_doubt = Duration::from_secs(2);
    context.windows.action = Duration::from_secs(2);
    context
}

pub(crate) fn request(cart: &str) -> proto::PlaceOrderRequest {
    proto::PlaceOrderRequest {
        cart: cart.to_owned(),
        cart_etag: "3".to_owned(),
        quote_token: "quote".to_owned(),
        payment_method: Some(proto::PaymentMethod { token: "tok_ok".to_owned() }),
        shipping_address: Some(contracts::address::v1::PostalAddress {
            recipient: "Ann".to_owned(),
            street: "Stoa 1".to_owned(),
            city: "Athens".to_owned(),
            country_code: "GR".to_owned(),
            ..Default::default()
        }),
        contact_email: "ann@example.com".to_owned(),
        request_id: uuid::Uuid::now_v7().to_string(),
        wait_timeout: Some(Duration::from_secs(20).into()),
        ..Default::default()
    }
}

pub(crate) fn as_user<T>(id: &str, message: T) -> tonic::Request<T> {
    let role = if id == "users/operator" { Role::Operator } else { Role::Customer };
    let subject = Subject { id: id.to_owned(), role, session: "s".to_owned() };
    let principal = Principal::User(subject);
    Outgoing { principal, trace: Trace::new_root(), deadline: None }.request(message)
}

#[derive(Clone)]
struct Double(Arc<Mutex<State>>);

impl Callee for Double {
    fn call(&self, request: http::Request<Body>) -> Answer {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let method = path.rsplit('/').next().unwrap().to_owned();
            let answer = state.lock().unwrap().answer(&method, body.slice(5..));
            match answer {
                Ok(message) => grpc(&message),
                Err(status) => status.into_http(),
            }
        })
    }
}

fn grpc(message: &[u8]) -> http::Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [Ok::<_, Status>(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
    let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
    http::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

impl State {
    fn answer(&mut self, method: &str, body: Bytes) -> Result<Vec<u8>, Status> {
        let answer = self.act(method, body);
        if let Some(left) = self.play.lost.get_mut(method)
            && *left > 0
        {
            *left -= 1;
            return Err(Status::unavailable("the answer was lost"));
        }
        answer
    }

    fn act(&mut self, method: &str, body: Bytes) -> Result<Vec<u8>, Status> {
        match method {
            "ResolveQuote" => Ok(resolve(&cart::ResolveQuoteRequest::decode(body).unwrap()).encode_to_vec()),
            "CloseCart" => {
                let close = cart::CloseCartRequest::decode(body).unwrap();
                self.once(&close.request_id, |state| {
                    state.effects.carts_closed += 1;
                    cart::CloseCartResponse::default().encode_to_vec()
                })
            }
            "HoldStock" => self.hold(&inventory::HoldStockRequest::decode(body).unwrap()),
            "CommitReservation" => {
                let commit = inventory::CommitReservationRequest::decode(body).unwrap();
                let (units, at) = self.reservations.get_mut(&commit.name).unwrap();
                if *at == "HELD" {
                    *at = "COMMITTED";
                    self.effects.held -= *units;
                    self.effects.committed += *units;
                }
                Ok(inventory::CommitReservationResponse::default().encode_to_vec())
            }
            "ReleaseReservation" => {
                let release = inventory::ReleaseReservationRequest::decode(body).unwrap();
                let (units, at) = self.reservations.entry(release.name).or_insert((0, "NONE"));
                match *at {
                    "HELD" => self.effects.held -= *units,
                    "COMMITTED" => self.effects.committed -= *units,
                    _ => {}
                }
                *at = "RELEASED";
                Ok(inventory::ReleaseReservationResponse::default().encode_to_vec())
            }
            "ExtendReservation" => Ok(inventory::ExtendReservationResponse::default().encode_to_vec()),
            "FulfillReservation" => Ok(inventory::FulfillReservationResponse::default().encode_to_vec()),
            "RestockReservation" => Ok(inventory::RestockReservationResponse::default().encode_to_vec()),
            "AuthorizePayment" => self.authorize(&payment::AuthorizePaymentRequest::decode(body).unwrap()),
            "CancelPayment" => {
                let cancel = payment::CancelPaymentRequest::decode(body).unwrap();
                let at = self.payments.entry(cancel.name.clone()).or_insert(payment::PaymentState::Failed);
                if *at == payment::PaymentState::Authorized {
                    self.effects.voided += 1;
                }
                *at = payment::PaymentState::Voided;
                let payment = Some(payment::Payment { state: (*at).into(), ..Default::default() });
                Ok(payment::CancelPaymentResponse { payment }.encode_to_vec())
            }
            "RefundPayment" => {
                let refund = payment::RefundPaymentRequest::decode(body).unwrap();
                self.once(&refund.request_id, |state| {
                    state.effects.refunded += refund.amount.clone().unwrap().units;
                    let attempt =
                        payment::Attempt { state: payment::AttemptState::Succeeded.into(), ..Default::default() };
                    payment::RefundPaymentResponse { payment: None, attempt: Some(attempt) }.encode_to_vec()
                })
            }
            "CreateShipment" => {
                let create = shipping::CreateShipmentRequest::decode(body).unwrap();
                self.once(&create.request_id, |state| {
                    state.effects.shipments += 1;
                    create.shipment.clone().unwrap_or_default().encode_to_vec()
                })
            }
            "CancelShipment" if self.play.packed => {
                Err(status::failed_precondition("ALREADY_PACKED", "it is packed", []))
            }
            "CancelShipment" => {
                let cancel = shipping::CancelShipmentRequest::decode(body).unwrap();
                self.once(&cancel.request_id, |state| {
                    state.effects.shipments_cancelled += 1;
                    shipping::CancelShipmentResponse::default().encode_to_vec()
                })
            }
            other => Err(Status::unimplemented(other.to_owned())),
        }
    }

    /// One effect and one answer a key.
    fn once(&mut self, key: &str, act: impl FnOnce(&mut Self) -> Vec<u8>) -> Result<Vec<u8>, Status> {
        if let Some(answer) = self.done.get(key) {
            return Ok(answer.clone());
        }
        let answer = act(self);
        self.done.insert(key.to_owned(), answer.clone());
        Ok(answer)
    }

    fn hold(&mut self, hold: &inventory::HoldStockRequest) -> Result<Vec<u8>, Status> {
        let units: i64 = hold.lines.iter().map(|line| line.quantity).sum();
        let (kept, at) = *self.reservations.entry(hold.name.clone()).or_insert((0, "NONE"));
        if at == "RELEASED" {
            return Err(status::failed_precondition("RESERVATION_CLOSED", "closed", []));
        }
        if at == "NONE" {
            if self.play.stock - self.effects.held - self.effects.committed < units {
                return Err(status::failed_precondition("OUT_OF_STOCK", "not in stock: MUG", []));
            }
            self.reservations.insert(hold.name.clone(), (units, "HELD"));
            self.effects.held += units;
        }
        let _ = kept;
        let allocations = hold.lines.iter().map(|line| inventory::Allocation {
            warehouse: "warehouses/north".to_owned(),
            sku: line.sku.clone(),
            quantity: line.quantity,
            ..Default::default()
        });
        let reservation = inventory::Reservation { allocations: allocations.collect(), ..Default::default() };
        Ok(inventory::HoldStockResponse { reservation: Some(reservation) }.encode_to_vec())
    }

    fn authorize(&mut self, authorize: &payment::AuthorizePaymentRequest) -> Result<Vec<u8>, Status> {
        let now = match self.play.payment {
            Payment::Approves => payment::PaymentState::Authorized,
            Payment::Declines => payment::PaymentState::Failed,
            Payment::AsksTheBuyer => payment::PaymentState::RequiresAction,
            Payment::StaysSilent => payment::PaymentState::Created,
        };
        let at = self.payments.entry(authorize.name.clone()).or_insert(payment::PaymentState::Created);
        if matches!(*at, payment::PaymentState::Created | payment::PaymentState::RequiresAction) {
            *at = now;
            if now == payment::PaymentState::Authorized {
                self.effects.authorized += 1;
            }
        }
        let payment = payment::Payment { state: (*at).into(), challenge_id: "ch".to_owned(), ..Default::default() };
        Ok(payment::AuthorizePaymentResponse { payment: Some(payment) }.encode_to_vec())
    }
}

/// Every cart holds two mugs at 10.00 and a postage line at 5.00, and belongs to Ann.
fn resolve(asked: &cart::ResolveQuoteRequest) -> cart::ResolveQuoteResponse {
    let money = |units| Some(Money { currency_code: "GBP".to_owned(), units, nanos: 0 });
    let line = |item: &str, sku: &str, quantity: i32, price, stocked| cart::QuoteLine {
        item: format!("{}/items/{item}", asked.cart),
        sku: sku.to_owned(),
        title: sku.to_owned(),
        quantity,
        unit_price: money(price),
        subtotal: money(price * i64::from(quantity)),
        tax: money(0),
        stocked,
        ..Default::default()
    };
    let quote = cart::Quote {
        quote_token: asked.quote_token.clone(),
        cart: asked.cart.clone(),
        cart_etag: asked.cart_etag.clone(),
        lines: vec![line("1", "MUG", 2, 10, true), line("2", "POST", 1, 5, false)],
        subtotal: money(25),
        tax: money(0),
        shipping: money(0),
        total: money(25),
        currency_code: "GBP".to_owned(),
        quote_id: "q".to_owned(),
        ..Default::default()
    };
    cart::ResolveQuoteResponse { quote: Some(quote), customer: "users/ann".to_owned() }
}
