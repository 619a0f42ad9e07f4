//! From wire to command to log and back. Nothing is decided here.

use std::sync::Arc;
use std::time::Duration;

use contracts::cart::v1::ResolveQuoteRequest;
use contracts::ordering::v1 as proto;
use contracts::ordering::v1::ordering_service_server::OrderingService;
use contracts::wkt;
use futures_util::future::select_all;
use log::Meta;
use saga::{Progress, Runner, Start};
use server::{Call, status};
use store::{Tx, site};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::cancellation::CANCELLATION;
use crate::checkout::CHECKOUT;
use crate::error::Error;
use crate::order::{Command, Event, Order};
use crate::returning::RETURNING;
use crate::sagas::{Desk, cancellation_saga, checkout_saga, data, return_saga};
use crate::store::{self as rows, Loaded, Until};
use crate::wire;

/// The longest a call may wait for an outcome; its deadline is a little longer.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
const DEFAULT_PAGE: u32 = 50;

/// The handlers. A cheap handle.
#[derive(Clone)]
pub(crate) struct Rpc {
    pub(crate) desk: Arc<Desk>,
    pub(crate) runner: Runner<Desk>,
    pub(crate) wait: Duration,
}

/// The reply that is stored for a repeat of PlaceOrder: the name alone. Whoever repeats it gets the order as it then is.
type Named = proto::GetOrderRequest;

impl Rpc {
    /// An order the caller may see; another's is not told from a missing one.
    async fn visible(&self, call: &Call, name: &str, until: Until) -> Result<Loaded, Status> {
        let (log, wanted) = (self.desk.log.clone(), name.to_owned());
        let loaded =
            self.desk.log.store().read(async move |tx: &mut Tx| rows::load(&log, tx, &wanted, until).await).await?;
        loaded.filter(|loaded| call.owns(&loaded.order.placed.customer)).ok_or_else(|| status::not_found(name))
    }

    /// Waits until the order satisfies `enough` or the time is over; the order as it then is.
    async fn settled(
        &self,
        name: &str,
        mut watched: Vec<Progress<Desk>>,
        wait: Duration,
        enough: impl Fn(&Order) -> bool,
    ) -> Result<proto::Order, Status> {
        let end = Instant::now() + wait;
        loop {
            let loaded = self.desk.read(name).await?.ok_or_else(|| status::not_found(name))?;
            if enough(&loaded.order) || Instant::now() >= end {
                return Ok(wire::reply(name, loaded.version, loaded.times, &loaded.order));
            }
            let any = select_all(watched.iter_mut().map(|progress| Box::pin(progress.changed())));
            let _ = tokio::time::timeout_at(end, any).await;
        }
    }

    fn wait(&self, asked: Option<wkt::Duration>) -> Duration {
        let asked = asked.and_then(|asked| Duration::try_from(asked).ok());
        asked.unwrap_or(self.wait).min(LONGEST_WAIT)
    }

    /// Places the order in one transaction, or finds the one that is there. None: the request id is new and the quote must
    /// be resolved first.
    async fn known(&self, request: &log::Request) -> Result<Option<String>, Status> {
        let request = request.clone();
        let known: Option<Named> = self
            .desk
            .log
            .store()
            .read(async move |tx: &mut Tx| log::once::find(tx, &request).await)
            .await
            .map_err(|error: log::Error| status::of_log(&error))?;
        Ok(known.map(|named| named.name))
    }
}

#[tonic::async_trait]
impl OrderingService for Rpc {
    async fn place_order(&self, request: Request<proto::PlaceOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let call = Call::of(&request)?;
        let place = request.into_inner();
        let subject = call.require_subject()?.id.clone();
        if !call.is_privileged() && (!place.external_reference.is_empty() || place.placed_time.is_some()) {
            let message = "only operators take orders over from elsewhere";
            return Err(status::permission_denied("OPERATORS_ONLY", message));
        }
        let key = call.request(&place, &place.request_id);
        let wait = self.wait(place.wait_timeout);
        let known = match &key {
            Some(key) => self.known(key).await?,
            None => None,
        };
        let name = match known {
            Some(name) => name,
            None => {
                let resolve = ResolveQuoteRequest {
                    cart: place.cart.clone(),
                    cart_etag: place.cart_etag.clone(),
                    quote_token: place.quote_token.clone(),
                };
                let resolved = self.desk.cart.clone().resolve_quote(call.outgoing(resolve)).await?.into_inner();
                let quote = resolved.quote.unwrap_or_default();
                if !call.owns(&resolved.customer) {
                    return Err(status::not_found(&place.cart));
                }
                if place.shipping_address.is_none() && quote.lines.iter().any(|line| line.stocked) {
                    return Err(status::invalid_argument("shipping_address", "is needed: goods are sent"));
                }
                let actor = if resolved.customer == subject { "" } else { &subject };
                let placement = wire::placement(&place, &quote, &resolved.customer, actor);
                let placement = placement.map_err(|problem| status::invalid_argument("quote_token", problem))?;
                let new = New {
                    name: format!("orders/{}", Uuid::now_v7()),
                    command: Command::Place(Box::new(placement)),
                    cart: (place.cart, place.cart_etag),
                    meta: call.meta(),
                };
                let place = self.clone();
                call.detached(async move { place.place(key, new).await }).await?
            }
        };
        let progress = self.runner.watch(&checkout_saga(&name));
        self.runner.wake(&checkout_saga(&name));
        let enough = |order: &Order| order.is_settled() || order.action.is_some();
        Ok(Response::new(call.aside(self.settled(&name, vec![progress], wait, enough)).await?))
    }

    async fn get_order(&self, request: Request<proto::GetOrderRequest>) -> Result<Response<proto::Order>, Status> {
        let call = Call::of(&request)?;
        let get = request.into_inner();
        let read_time = get.read_time.map(jiff::Timestamp::try_from).transpose();
        let read_time = read_time.map_err(|_| status::invalid_argument("read_time", "is out of range"))?;
        let until = match (get.version, read_time) {
            (0, None) => Until::Now,
            (0, Some(time)) => Until::Time(time),
            (version, None) => Until::Version(version.unsigned_abs()),
            (_, Some(_)) => return Err(status::invalid_argument("read_time", "not together with version")),
        };
        let loaded = self.visible(&call, &get.name, until).await?;
        if matches!(until, Until::Version(version) if loaded.version < version) {
            return Err(status::invalid_argument("version", "the order has no such version yet"));
        }
        Ok(Response::new(wire::reply(&get.name, loaded.version, loaded.times, &loaded.order)))
    }

    async fn cancel_order(
        &self,
        request: Request<proto::CancelOrderRequest>,
    ) -> Result<Response<proto::CancelOrderResponse>, Status> {
        let call = Call::of(&request)?;
        let cancel = request.into_inner();
        self.visible(&call, &cancel.name, Until::Now).await?;
        let key = call.request(&cancel, &cancel.request_id);
        let wait = self.wait(cancel.wait_timeout);
        let by = call.require_subject()?.id.clone();
        let (desk, meta, name) = (Arc::clone(&self.desk), call.meta(), cancel.name.clone());
        // Whichever saga undoes it: the checkout that is still open, or the cancellation of a confirmed order.
        let (checkout, undoing) = (checkout_saga(&name), cancellation_saga(&name));
        let watched = vec![self.runner.watch(&checkout), self.runner.watch(&undoing)];
        let log = desk.log.clone();
        let _: Named = call
            .detached(async move {
                let done = log.once(site!("ordering.cancel_order"), key, async move |tx: &mut Tx| {
                    let asked = Command::RequestCancel { by: by.clone(), reason: cancel.reason.clone() };
                    let before = rows::load(&desk.log, tx, &name, Until::Now).await?;
                    let version = before.as_ref().map_or(0, |before| before.version);
                    if !cancel.etag.is_empty() && cancel.etag != version.to_string() {
                        return Err(Error::Stale(name.clone()));
                    }
                    let (after, events) = rows::execute(&desk.log, &desk.recent, tx, &name, &meta, asked).await?;
                    if events.is_empty() {
                        return Ok(named(&name));
                    }
                    if after.order.is_open() {
                        // The checkout finds the request at its next step; a waiting one is woken for it.
                        saga::nudge(tx, &checkout).await?;
                    } else {
                        saga::enqueue(tx, &CANCELLATION, &start(undoing.clone(), &name, "", &meta)).await?;
                    }
                    Ok(named(&name))
                });
                done.await.map_err(Status::from)
            })
            .await?;
        let enough = |order: &Order| order.is_settled();
        let order = call.aside(self.settled(&cancel.name, watched, wait, enough)).await?;
        Ok(Response::new(proto::CancelOrderResponse { order: Some(order) }))
    }

    async fn return_lines(
        &self,
        request: Request<proto::ReturnLinesRequest>,
    ) -> Result<Response<proto::ReturnLinesResponse>, Status> {
        let call = Call::of(&request)?;
        let give = request.into_inner();
        let key = call.request(&give, &give.request_id);
        let wait = self.wait(give.wait_timeout);
        let actor = call.require_subject()?.id.clone();
        // The request id names the return, so a repeat asks for the same one.
        let id = give.request_id.clone();
        let lines = give.lines.iter().map(|line| (line.line.clone(), i64::from(line.quantity))).collect();
        let command = Command::ReturnLines {
            id: id.clone(),
            lines,
            restock: give.restock,
            reason: give.reason,
            actor,
            external_reference: give.external_reference,
            external_time: give.returned_time.and_then(|time| time.try_into().ok()),
        };
        let (desk, meta, name) = (Arc::clone(&self.desk), call.meta(), give.order.clone());
        let saga = return_saga(&id);
        let (progress, part, log) = (self.runner.watch(&saga), id.clone(), desk.log.clone());
        let _: Named = call
            .detached(async move {
                let done = log.once(site!("ordering.return_lines"), key, async move |tx: &mut Tx| {
                    rows::execute(&desk.log, &desk.recent, tx, &name, &meta, command.clone()).await?;
                    saga::enqueue(tx, &RETURNING, &start(saga.clone(), &name, &part, &meta)).await?;
                    Ok::<_, Error>(named(&name))
                });
                done.await.map_err(Status::from)
            })
            .await?;
        let enough = |order: &Order| order.returns.get(&id).is_none_or(|returned| returned.complete);
        let order = call.aside(self.settled(&give.order, vec![progress], wait, enough)).await?;
        let order_return = order.returns.iter().find(|returned| returned.return_id == id).cloned();
        Ok(Response::new(proto::ReturnLinesResponse { order: Some(order), order_return }))
    }

    async fn list_order_events(
        &self,
        request: Request<proto::ListOrderEventsRequest>,
    ) -> Result<Response<proto::ListOrderEventsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        self.visible(&call, &list.parent, Until::Now).await?;
        let after = call.cursor(&list.parent, &list.page_token)?.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let limit = u32::try_from(list.page_size).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE);
        let (log, name) = (self.desk.log.clone(), list.parent.clone());
        let mut entries = self
            .desk
            .log
            .store()
            .read(async move |tx: &mut Tx| Ok::<_, Error>(log.read(tx, &name, after + 1, limit + 1).await?))
            .await?;
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        let cursor = entries.last().filter(|_| more).map(|entry| entry.at.version.to_string());
        let events = entries.iter().map(|entry| wire::order_event(&list.parent, entry)).collect();
        let next_page_token = call.page_token(&list.parent, cursor.as_deref());
        Ok(Response::new(proto::ListOrderEventsResponse { events, next_page_token }))
    }
}

/// An order about to be placed.
struct New {
    name: String,
    command: Command,
    cart: (String, String),
    meta: Meta,
}

impl Rpc {
    /// One transaction: request id, order, saga. A cart that became an order already answers with that order.
    async fn place(&self, key: Option<log::Request>, new: New) -> Result<String, Status> {
        let (desk, runner) = (Arc::clone(&self.desk), self.runner.clone());
        let placed: Named = self
            .desk
            .log
            .once(site!("ordering.place_order"), key, async move |tx: &mut Tx| {
                if let Some(first) = rows::order_of_cart(tx, &new.cart.0, &new.cart.1).await? {
                    return Ok(named(&first));
                }
                let (_, events) =
                    rows::execute(&desk.log, &desk.recent, tx, &new.name, &new.meta, new.command.clone()).await?;
                if matches!(events.first(), Some(Event::Placed(_))) {
                    let begin = start(checkout_saga(&new.name), &new.name, "", &new.meta);
                    runner.start(tx, &CHECKOUT, &begin).await?;
                }
                Ok::<_, Error>(named(&new.name))
            })
            .await?;
        Ok(placed.name)
    }
}

fn named(name: &str) -> Named {
    Named { name: name.to_owned(), ..Named::default() }
}

fn start(id: String, order: &str, part: &str, meta: &Meta) -> Start {
    Start { id, data: data(order, part), correlation: meta.correlation.clone(), traceparent: meta.traceparent.clone() }
}
