//! From wire to command to log and back. Nothing is decided here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use contract::{Currency, Money};
use contracts::cart::v1 as proto;
use contracts::cart::v1::cart_service_server::CartService;
use jiff::{SignedDuration, Timestamp};
use log::{Log, Meta};
use server::{Call, status};
use store::{Site, Tx, site};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::cart::{Added, Command, Event, NewLine, Rejection, State};
use crate::error::Error;
use crate::goods::{Goods, Unanswered};
use crate::quote::{self, Carriage, Offer, Quote, Terms};
use crate::store::Stored;
use crate::token::Keys;
use crate::{store as rows, wire};

/// Open carts that a customer may have. Operators may open more for them.
const MOST_OPEN_CARTS: i64 = 20;

/// The handlers. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) log: Log<proto::Event>,
    pub(crate) goods: Goods,
    pub(crate) keys: Arc<Keys>,
    /// How long a quote holds.
    pub(crate) quote_holds: Duration,
    /// The currency of a cart whose maker names none.
    pub(crate) currency: Currency,
}

/// What a change asks for: which cart, in which version, and who asks.
struct Asked {
    call: Call,
    cart: String,
    etag: String,
    request: Option<log::Request>,
}

impl Rpc {
    /// One command to one cart in one transaction; `answer` makes the reply of the cart as it then is.
    async fn change<Reply, M, A>(
        &self,
        site: &'static Site,
        asked: Asked,
        make: M,
        answer: A,
    ) -> Result<Response<Reply>, Status>
    where
        Reply: prost::Message + Default + 'static,
        M: Fn() -> Result<Command, Error> + Send + 'static,
        A: Fn(&Stored, &[Event]) -> Reply + Send + 'static,
    {
        let (log, meta) = (self.log.clone(), asked.call.meta());
        let call = asked.call.clone();
        let reply = call
            .detached(async move {
                let Asked { call, cart, etag, request } = asked;
                let reply = log
                    .clone()
                    .once(site, request, async move |tx: &mut Tx| {
                        let stored = owned(tx, &call, &cart).await?;
                        fits(&stored, &cart, &etag)?;
                        let (stored, events) = decide(&log, tx, &cart, &meta, stored, &make()?).await?;
                        Ok::<_, Error>(answer(&stored, &events))
                    })
                    .await?;
                Ok(reply)
            })
            .await?;
        Ok(Response::new(reply))
    }

    /// The cart of a caller that may know of it, outside of any change.
    async fn read(&self, call: &Call, name: &str) -> Result<Stored, Error> {
        let (call, name) = (call.clone(), name.to_owned());
        self.log.store().read(async move |tx: &mut Tx| owned(tx, &call, &name).await).await
    }

    /// Lines to add with what their SKUs are. The outcome is for the transaction to look at: a repeat of a request is
    /// answered with its first answer, whatever the catalogue says by now.
    async fn new_lines(&self, call: &Call, items: &[proto::NewItem]) -> Result<Vec<NewLine>, Unanswered> {
        let variants = self.goods.variants(call, items.iter().map(|item| item.sku.as_str())).await?;
        let lines = items.iter().map(|item| {
            let variant = variants.get(&item.sku).ok_or_else(|| Unanswered::UnknownSku(item.sku.clone()))?;
            Ok(NewLine {
                sku: item.sku.clone(),
                variant: variant.name.clone(),
                title: variant.title.clone(),
                stocked: variant.stocked,
                quantity: item.quantity.into(),
                separate: item.separate_line,
            })
        });
        lines.collect()
    }

    /// A quote of an open cart at the prices of the catalogue, signed.
    async fn price(
        &self,
        call: &Call,
        name: &str,
        stored: &Stored,
        country: &str,
        service: &str,
    ) -> Result<proto::Quote, Error> {
        let unpriced = |rejection| Error::Unpriced { cart: name.to_owned(), rejection };
        let (lines, currency) = priceable(name, stored)?;
        if lines.is_empty() {
            return Err(unpriced(quote::Rejection::Empty));
        }
        let mut skus: Vec<String> = lines.iter().map(|line| line.sku.clone()).collect();
        skus.sort_unstable();
        skus.dedup();
        let known = self.goods.offers(call, skus, currency).await?;
        let offers = lines.iter().map(|line| {
            let offer = known.get(&line.sku).cloned();
            offer.ok_or_else(|| Error::from(Unanswered::UnknownSku(line.sku.clone())))
        });
        let offers: Vec<Offer> = offers.collect::<Result<_, _>>()?;
        let subtotal = quote::subtotal(lines, &offers).map_err(unpriced)?;
        let carriage = if offers.iter().any(|offer| offer.stocked) {
            let (weight, subtotal) = (quote::weight(lines, &offers), Money::new(currency, subtotal));
            self.goods.carriage(call, country, service, weight, subtotal).await?
        } else {
            Carriage { country: country.to_owned(), ..Carriage::default() }
        };
        let terms = self.terms(name, stored, self.log.store().clock().now());
        let terms = quote::price(terms, lines, &offers, &carriage).map_err(unpriced)?;
        let quote = quote::quote(terms, lines, currency).map_err(unpriced)?;
        Ok(self.signed(&quote))
    }

    fn terms(&self, cart: &str, stored: &Stored, now: Timestamp) -> Terms {
        let holds = SignedDuration::try_from(self.quote_holds).unwrap_or(SignedDuration::MAX);
        Terms {
            id: Uuid::now_v7().to_string(),
            cart: cart.to_owned(),
            etag: stored.lines_version,
            issue_time: now,
            expire_time: now.checked_add(holds).unwrap_or(Timestamp::MAX),
            ..Terms::default()
        }
    }

    fn signed(&self, quote: &Quote) -> proto::Quote {
        wire::quote(quote, self.keys.sign(&quote.terms))
    }

    /// An operator's prices as a quote, and its event.
    async fn issue(
        &self,
        tx: &mut Tx,
        call: &Call,
        meta: &Meta,
        issue: &proto::IssueQuoteRequest,
        prices: &HashMap<u32, Money>,
    ) -> Result<proto::Quote, Error> {
        let cart = issue.cart.as_str();
        let unpriced = |rejection| Error::Unpriced { cart: cart.to_owned(), rejection };
        let stored = owned(tx, call, cart).await?;
        fits(&stored, cart, &issue.etag)?;
        let (lines, currency) = priceable(cart, &stored)?;
        let invalid = |problem: String| Error::Invalid { field: "lines".to_owned(), problem };
        if let Some(id) = prices.keys().find(|id| stored.cart.line(**id).is_none()) {
            return Err(invalid(format!("name {}, which the cart does not have", wire::item_name(cart, *id))));
        }
        let mut minor = Vec::with_capacity(lines.len());
        for line in lines {
            let name = wire::item_name(cart, line.id);
            let price = prices.get(&line.id).ok_or_else(|| invalid(format!("must price every line; {name} is not")))?;
            if price.currency != currency {
                let (cart, currency) = (cart.to_owned(), currency.code().to_owned());
                return Err(Error::OtherCurrency { cart, currency, field: format!("the price of {name}") });
            }
            minor.push(price.minor);
        }
        let issued_by = call.subject().map(|subject| subject.id.clone()).unwrap_or_default();
        let terms = Terms { issued_by, reason: issue.reason.clone(), ..self.terms(cart, &stored, tx.now()) };
        let terms = quote::negotiate(terms, lines, &minor).map_err(unpriced)?;
        let quote = quote::quote(terms, lines, currency).map_err(unpriced)?;
        let stream = wire::quote_name(&quote.terms.id);
        self.log.append(tx, &stream, 0, meta, None, vec![wire::issued(&quote)]).await?;
        Ok(self.signed(&quote))
    }
}

/// A cart that exists and that the caller may know of; if not, the error is the same.
async fn owned(tx: &mut Tx, call: &Call, name: &str) -> Result<Stored, Error> {
    tx.take_stream(name).await?;
    let stored = rows::load(tx, name).await?.filter(|stored| call.owns(&stored.cart.customer));
    stored.ok_or_else(|| Error::Missing(name.to_owned()))
}

/// Refuses a version that the caller saw and that is no more.
fn fits(stored: &Stored, name: &str, etag: &str) -> Result<(), Error> {
    if etag.is_empty() || etag == wire::etag(stored) { Ok(()) } else { Err(Error::Stale(name.to_owned())) }
}

/// The lines of an open cart and their currency.
fn priceable<'a>(name: &str, stored: &'a Stored) -> Result<(&'a [crate::cart::Line], Currency), Error> {
    let cart = &stored.cart;
    let reject = |rejection| Err(Error::Rejected { cart: name.to_owned(), rejection });
    match (cart.state, cart.currency) {
        (State::Open, Some(currency)) => Ok((&cart.lines, currency)),
        (State::Closed, _) => reject(Rejection::Closed { order: cart.order.clone() }),
        (State::Missing, _) | (State::Open, None) => reject(Rejection::Missing),
    }
}

/// Decides and appends one command to one loaded cart inside its transaction.
async fn decide(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    name: &str,
    meta: &Meta,
    stored: Stored,
    command: &Command,
) -> Result<(Stored, Vec<Event>), Error> {
    let reject = |rejection| Error::Rejected { cart: name.to_owned(), rejection };
    let events = stored.cart.decide(command).map_err(reject)?;
    if events.is_empty() {
        return Ok((stored, events));
    }
    let wire = events.iter().map(|event| wire::to_stored(name, &stored.cart.customer, event)).collect();
    log.append(tx, name, stored.version, meta, None, wire).await?;
    let now = tx.now();
    let stored = events.iter().fold(stored, |stored, event| stored.evolve(event, now));
    Ok((stored, events))
}

/// A cart by the fold of its stream, and its (line, units) at the version that was ordered.
async fn fold(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    name: &str,
    ordered: u64,
) -> Result<(Stored, Vec<(u32, i64)>), Error> {
    let entries = log.load(tx, name).await?;
    let first = entries.first().ok_or_else(|| Error::Missing(name.to_owned()))?;
    let mut stored = Stored::missing(first.at.occur_time);
    let mut lines = None;
    for entry in &entries {
        let Some(event) = wire::from_stored(&entry.event) else { continue };
        stored = stored.evolve(&event, entry.at.occur_time);
        if entry.at.version == ordered {
            lines = Some(stored.cart.lines.iter().map(|line| (line.id, line.quantity)).collect());
        }
    }
    let problem = "is no version of the cart".to_owned();
    let lines = lines.ok_or(Error::Invalid { field: "cart_etag".to_owned(), problem })?;
    Ok((stored, lines))
}

/// The lines that were added to, in the order asked for.
fn added_items(cart: &str, events: &[Event]) -> Vec<String> {
    let added = events.iter().flat_map(|event| match event {
        Event::Added(added) => added.as_slice(),
        Event::Created { .. }
        | Event::QuantitySet { .. }
        | Event::Removed { .. }
        | Event::Closed { .. }
        | Event::OrderedRemoved { .. }
        | Event::Erased => &[],
    });
    added.map(|Added { line, .. }| wire::item_name(cart, line.id)).collect()
}

/// The prices an operator sets, by line.
fn prices_of(issue: &proto::IssueQuoteRequest) -> Result<HashMap<u32, Money>, Status> {
    let mut prices = HashMap::with_capacity(issue.lines.len());
    for (place, line) in issue.lines.iter().enumerate() {
        let field = |name: &str| format!("lines[{place}].{name}");
        let id = match wire::item_parts(&line.item) {
            Some((cart, Some(id))) if cart == issue.cart => id,
            _ => return Err(status::invalid_argument(field("item"), format!("is no line of {}", issue.cart))),
        };
        let price = line.unit_price.as_ref().map(Money::try_from);
        let price = match price {
            Some(Ok(price)) if price.minor >= 0 => price,
            Some(Ok(_)) => return Err(status::invalid_argument(field("unit_price"), "must not be negative")),
            Some(Err(error)) => return Err(status::invalid_argument(field("unit_price"), error.to_string())),
            None => return Err(status::invalid_argument(field("unit_price"), "is missing")),
        };
        if prices.insert(id, price).is_some() {
            return Err(status::invalid_argument(field("item"), "is priced twice"));
        }
    }
    Ok(prices)
}

fn is_customer(name: &str) -> bool {
    let id = name.strip_prefix("users/").or_else(|| name.strip_prefix("guests/"));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    id.is_some_and(|id| !id.is_empty() && id.len() <= 64 && id.bytes().all(fits))
}

#[tonic::async_trait]
impl CartService for Rpc {
    async fn get_or_create_cart(
        &self,
        request: Request<proto::GetOrCreateCartRequest>,
    ) -> Result<Response<proto::GetOrCreateCartResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        if (!ask.customer.is_empty() || ask.separate) && !call.is_privileged() {
            let message = "only operators open carts for others, or several";
            return Err(status::permission_denied("OPERATOR_NEEDED", message));
        }
        if ask.separate && ask.request_id.is_empty() {
            return Err(status::invalid_argument("request_id", "is needed for a separate cart"));
        }
        let actor = call.subject().map(|subject| subject.id.clone()).unwrap_or_default();
        let customer = if ask.customer.is_empty() { actor.clone() } else { ask.customer.clone() };
        if !is_customer(&customer) {
            return Err(status::invalid_argument("customer", "must be users/{user} or guests/{guest}"));
        }
        let actor = if actor == customer { String::new() } else { actor };
        let currency = match ask.currency_code.as_str() {
            "" => self.currency,
            code => code
                .parse()
                .map_err(|error: contract::MoneyError| status::invalid_argument("currency_code", error.to_string()))?,
        };
        if ask.request_id.is_empty() {
            // Most callers have a cart already: no transaction of the writer is spent on them.
            let customer = customer.clone();
            let found = self.log.store().read(async move |tx: &mut Tx| {
                let name = rows::find_open(tx, &customer, currency.code()).await?;
                let Some(name) = name else { return Ok::<_, Error>(None) };
                let stored = rows::load(tx, &name).await?;
                Ok(stored.map(|stored| wire::cart(&name, &stored)))
            });
            if let Some(cart) = found.await? {
                return Ok(Response::new(proto::GetOrCreateCartResponse { cart: Some(cart) }));
            }
        }
        let key = call.request(&ask, &ask.request_id);
        let (log, meta) = (self.log.clone(), call.meta());
        let (separate, limited) = (ask.separate, !call.is_privileged());
        let fresh = format!("carts/{}", Uuid::now_v7());
        let reply = call
            .detached(async move {
                let reply = log
                    .clone()
                    .once(site!("cart.get_or_create_cart"), key, async move |tx: &mut Tx| {
                        let known =
                            if separate { None } else { rows::find_open(tx, &customer, currency.code()).await? };
                        if let Some(name) = known {
                            let stored = rows::load(tx, &name).await?.ok_or_else(|| Error::Missing(name.clone()))?;
                            return Ok(proto::GetOrCreateCartResponse { cart: Some(wire::cart(&name, &stored)) });
                        }
                        if limited && rows::count_open(tx, &customer).await? >= MOST_OPEN_CARTS {
                            return Err(Error::TooManyCarts { customer: customer.clone(), most: MOST_OPEN_CARTS });
                        }
                        let command = Command::Create { customer: customer.clone(), currency, actor: actor.clone() };
                        let missing = Stored::missing(tx.now());
                        let (stored, _) = decide(&log, tx, &fresh, &meta, missing, &command).await?;
                        Ok::<_, Error>(proto::GetOrCreateCartResponse { cart: Some(wire::cart(&fresh, &stored)) })
                    })
                    .await?;
                Ok(reply)
            })
            .await?;
        Ok(Response::new(reply))
    }

    async fn get_cart(&self, request: Request<proto::GetCartRequest>) -> Result<Response<proto::Cart>, Status> {
        let call = Call::of(&request)?;
        let name = request.into_inner().name;
        let stored = self.read(&call, &name).await?;
        Ok(Response::new(wire::cart(&name, &stored)))
    }

    async fn add_item(
        &self,
        request: Request<proto::AddItemRequest>,
    ) -> Result<Response<proto::AddItemResponse>, Status> {
        let call = Call::of(&request)?;
        let add = request.into_inner();
        let item = proto::NewItem { sku: add.sku.clone(), quantity: add.quantity, separate_line: add.separate_line };
        let lines = self.new_lines(&call, &[item]).await;
        let request = call.request(&add, &add.request_id);
        let name = add.cart.clone();
        let asked = Asked { call, cart: add.cart, etag: add.etag, request };
        let make = move || Ok(Command::Add(lines.clone()?));
        let answer = move |stored: &Stored, events: &[Event]| proto::AddItemResponse {
            cart: Some(wire::cart(&name, stored)),
            item: added_items(&name, events).pop().unwrap_or_default(),
        };
        self.change(site!("cart.add_item"), asked, make, answer).await
    }

    async fn batch_add_items(
        &self,
        request: Request<proto::BatchAddItemsRequest>,
    ) -> Result<Response<proto::BatchAddItemsResponse>, Status> {
        let call = Call::of(&request)?;
        let add = request.into_inner();
        let lines = self.new_lines(&call, &add.items).await;
        let request = call.request(&add, &add.request_id);
        let name = add.cart.clone();
        let asked = Asked { call, cart: add.cart, etag: add.etag, request };
        let make = move || Ok(Command::Add(lines.clone()?));
        let answer = move |stored: &Stored, events: &[Event]| proto::BatchAddItemsResponse {
            cart: Some(wire::cart(&name, stored)),
            items: added_items(&name, events),
        };
        self.change(site!("cart.batch_add_items"), asked, make, answer).await
    }

    async fn update_item(
        &self,
        request: Request<proto::UpdateItemRequest>,
    ) -> Result<Response<proto::CartItem>, Status> {
        let call = Call::of(&request)?;
        let update = request.into_inner();
        let other = |path: &&String| path.as_str() != "quantity" && path.as_str() != "*";
        if let Some(path) = update.update_mask.iter().flat_map(|mask| &mask.paths).find(other) {
            return Err(status::invalid_argument("update_mask", format!("names {path:?}; only quantity can change")));
        }
        let item = update.item.clone().unwrap_or_default();
        let (cart, line) = wire::item_parts(&item.name)
            .ok_or_else(|| status::invalid_argument("item.name", "must be carts/{cart}/items/{item}"))?;
        let request = call.request(&update, &update.request_id);
        let (name, cart) = (cart.to_owned(), cart.to_owned());
        let asked = Asked { call, cart, etag: update.etag, request };
        let (missing, quantity) = (item.name.clone(), i64::from(item.quantity));
        let make = move || {
            let line = line.ok_or_else(|| Error::Missing(missing.clone()))?;
            Ok(Command::SetQuantity { line, quantity })
        };
        let answer = move |stored: &Stored, _: &[Event]| {
            let item = line.and_then(|line| stored.cart.line(line)).map(|line| wire::item(&name, line));
            proto::CartItem { cart_etag: wire::etag(stored), ..item.unwrap_or_default() }
        };
        self.change(site!("cart.update_item"), asked, make, answer).await
    }

    async fn remove_item(
        &self,
        request: Request<proto::RemoveItemRequest>,
    ) -> Result<Response<proto::RemoveItemResponse>, Status> {
        let call = Call::of(&request)?;
        let remove = request.into_inner();
        let (cart, line) = wire::item_parts(&remove.name)
            .ok_or_else(|| status::invalid_argument("name", "must be carts/{cart}/items/{item}"))?;
        let request = call.request(&remove, &remove.request_id);
        let (name, cart) = (cart.to_owned(), cart.to_owned());
        let asked = Asked { call, cart, etag: remove.etag, request };
        // Ids begin at 1: one that no line can have is a line that is gone.
        let make = move || Ok(Command::Remove { line: line.unwrap_or(0) });
        let answer =
            move |stored: &Stored, _: &[Event]| proto::RemoveItemResponse { cart: Some(wire::cart(&name, stored)) };
        self.change(site!("cart.remove_item"), asked, make, answer).await
    }

    async fn price_cart(
        &self,
        request: Request<proto::PriceCartRequest>,
    ) -> Result<Response<proto::PriceCartResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let stored = self.read(&call, &ask.cart).await?;
        let quote = self.price(&call, &ask.cart, &stored, &ask.country_code, &ask.shipping_service).await?;
        Ok(Response::new(proto::PriceCartResponse { quote: Some(quote) }))
    }

    async fn issue_quote(
        &self,
        request: Request<proto::IssueQuoteRequest>,
    ) -> Result<Response<proto::IssueQuoteResponse>, Status> {
        let call = Call::of(&request)?;
        let issue = request.into_inner();
        let prices = prices_of(&issue)?;
        let key = call.request(&issue, &issue.request_id);
        let (rpc, meta, calling) = (self.clone(), call.meta(), call.clone());
        let reply: proto::IssueQuoteResponse = call
            .detached(async move {
                let log = rpc.log.clone();
                let reply = log
                    .once(site!("cart.issue_quote"), key, async move |tx: &mut Tx| {
                        let quote = rpc.issue(tx, &calling, &meta, &issue, &prices).await?;
                        Ok::<_, Error>(proto::IssueQuoteResponse { quote: Some(quote) })
                    })
                    .await?;
                Ok(reply)
            })
            .await?;
        if let Some(quote) = &reply.quote {
            let total = quote.total.as_ref().and_then(|total| Money::try_from(total).ok());
            tracing::info!(
                target: "audit",
                quote = %quote.quote_id,
                cart = %quote.cart,
                total = %total.map(|total| total.to_string()).unwrap_or_default(),
                operator = %quote.issued_by,
                reason = ?quote.reason,
                "prices set by an operator"
            );
        }
        Ok(Response::new(reply))
    }

    async fn resolve_quote(
        &self,
        request: Request<proto::ResolveQuoteRequest>,
    ) -> Result<Response<proto::ResolveQuoteResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let cart = ask.cart.as_str();
        let stored = self.read(&call, cart).await?;
        let forged = || Error::Forged(cart.to_owned());
        let terms = self.keys.open(&ask.quote_token).map_err(|_| forged())?;
        if terms.cart != ask.cart {
            return Err(forged().into());
        }
        let holds = self.log.store().clock().now() < terms.expire_time;
        if holds && terms.etag == stored.lines_version && ask.cart_etag == wire::etag(&stored) {
            // Also for a cart that became an order since: it was for these lines, and the buyer's second tab is to be
            // answered with that order.
            let currency = stored.cart.currency.unwrap_or(self.currency);
            let quote = quote::quote(terms, &stored.cart.lines, currency)
                .map_err(|rejection| Error::Unpriced { cart: cart.to_owned(), rejection })?;
            let reply = proto::ResolveQuoteResponse {
                quote: Some(wire::quote(&quote, ask.quote_token)),
                customer: stored.cart.customer,
            };
            return Ok(Response::new(reply));
        }
        priceable(cart, &stored)?;
        let mut fresh = self.price(&call, cart, &stored, &terms.country, &terms.service).await;
        if fresh.is_err() && !terms.service.is_empty() {
            fresh = self.price(&call, cart, &stored, &terms.country, "").await;
        }
        if let Err(error) = &fresh {
            tracing::info!(cart, %error, "a quote does not hold any more, and there is no new one");
        }
        Err(Error::QuoteChanged { cart: ask.cart, quote: fresh.ok().map(Box::new) }.into())
    }

    async fn close_cart(
        &self,
        request: Request<proto::CloseCartRequest>,
    ) -> Result<Response<proto::CloseCartResponse>, Status> {
        let call = Call::of(&request)?;
        let close = request.into_inner();
        let etag = close.cart_etag.parse::<u64>();
        let etag = etag.map_err(|_| status::invalid_argument("cart_etag", "is no version of a cart"))?;
        let key = call.request(&close, &close.request_id);
        let (log, meta) = (self.log.clone(), call.meta());
        let reply = call
            .detached(async move {
                let reply = log
                    .clone()
                    .once(site!("cart.close_cart"), key, async move |tx: &mut Tx| {
                        let (stored, ordered) = fold(&log, tx, &close.name, etag).await?;
                        let command = Command::Close { order: close.order.clone(), ordered };
                        let (stored, _) = decide(&log, tx, &close.name, &meta, stored, &command).await?;
                        Ok::<_, Error>(proto::CloseCartResponse { cart: Some(wire::cart(&close.name, &stored)) })
                    })
                    .await?;
                Ok(reply)
            })
            .await?;
        Ok(Response::new(reply))
    }
}
