//! A year of sales played again: every sale an order of its customer at its own prices, every cancelled line that matches
//! something bought a return of it.
//!
//! Each step's request id follows from the invoice, so an import that is begun again finds what it did. What was bought is
//! kept by (customer, code, price), because a cancellation names no invoice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use client::Channel;
use contracts::address::v1::PostalAddress;
use contracts::cart::v1::cart_service_client::CartServiceClient;
use contracts::cart::v1::{BatchAddItemsRequest, GetOrCreateCartRequest, IssueQuoteRequest, NewItem, QuotedPrice};
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use contracts::identity::v1::{ImportUsersRequest, ImportedUser};
use contracts::ordering::v1::ordering_service_client::OrderingServiceClient;
use contracts::ordering::v1::{
    GetOrderRequest, Order, OrderState, PaymentMethod, PlaceOrderRequest, ReturnLine, ReturnLinesRequest,
};
use contracts::wkt;
use jiff::civil::DateTime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::Job;
use crate::import::Record;
use crate::import::retail::{CURRENCY, Invoice, InvoiceKind, Line, LineKind, Reader};
use crate::shop::Shop;
use crate::stocking::{money, request_id};
use crate::work::Voice;

/// Invoices under way at the same time.
const SIDE_BY_SIDE: usize = 64;
/// Users of one call.
const USERS: usize = 1000;
/// How long an order may take to be settled.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What came of the year; sums are minor units.
#[derive(Debug, Default)]
struct Report {
    sales: u64,
    confirmed: u64,
    refused: BTreeMap<String, u64>,
    imported: i64,
    confirmed_minor: i64,
    refused_minor: i64,
    cancelled: i64,
    returned: i64,
    unmatched: i64,
    unmatched_lines: u64,
}

/// Reads the year again and plays its sales, then its cancellations.
pub(super) async fn play(job: &mut Job, shop: &Shop, voice: &Voice) -> anyhow::Result<()> {
    let (mut sales, mut cancellations) = (Vec::new(), Vec::new());
    for record in Reader::new(job.text()?) {
        if let Record::Good(mut invoice) = record? {
            match invoice.kind {
                InvoiceKind::Sale => {
                    invoice.lines.retain(|line| line.kind == LineKind::Sale);
                    sales.push(invoice);
                }
                InvoiceKind::Cancellation => {
                    invoice.lines.retain(|line| line.kind == LineKind::Cancellation);
                    cancellations.push(invoice);
                }
                InvoiceKind::Adjustment => {}
            }
        }
    }
    sales.retain(|sale| !sale.lines.is_empty());
    let till = Till {
        cart: CartServiceClient::new(shop.channel("cart")),
        ordering: OrderingServiceClient::new(shop.channel("ordering")),
    };
    let customers = Arc::new(customers(shop, &sales).await?);
    let mut report = Report::default();
    let bought = sell(job, &till, sales, customers, &mut report, voice).await?;
    take_back(&till, cancellations, bought, &mut report).await?;
    for line in report.lines() {
        voice.line(line).await;
    }
    Ok(())
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let shown = |minor| contract::Money { currency: contract::Currency::GBP, minor }.to_string();
        let mut lines = vec![
            format!("{} sales, {} confirmed", self.sales, self.confirmed),
            format!(
                "imported {} = confirmed {} + refused {}",
                shown(self.imported),
                shown(self.confirmed_minor),
                shown(self.refused_minor)
            ),
            format!(
                "cancelled {} = given back {} + matching nothing bought {} ({} lines)",
                shown(self.cancelled),
                shown(self.returned),
                shown(self.unmatched),
                self.unmatched_lines
            ),
        ];
        lines.extend(self.refused.iter().map(|(reason, count)| format!("{count} sales refused: {reason}")));
        lines
    }
}

/// The clients a sale needs. Clones share their channels.
#[derive(Clone)]
struct Till {
    cart: CartServiceClient<Channel>,
    ordering: OrderingServiceClient<Channel>,
}

/// The number of the customer, or one of its own for each guest's invoice.
fn number(invoice: &Invoice) -> String {
    invoice.customer.clone().unwrap_or_else(|| format!("guest-{}", invoice.number))
}

async fn customers(shop: &Shop, sales: &[Invoice]) -> anyhow::Result<HashMap<String, String>> {
    let mut identity = IdentityServiceClient::new(shop.channel("identity"));
    let numbers: BTreeSet<String> = sales.iter().map(number).collect();
    let numbers: Vec<String> = numbers.into_iter().collect();
    let mut users = HashMap::new();
    for chunk in numbers.chunks(USERS) {
        let request = ImportUsersRequest {
            users: chunk.iter().map(|it| ImportedUser { external_id: it.clone(), ..Default::default() }).collect(),
            request_id: request_id(&format!("users {}", chunk.join(" "))),
        };
        for user in identity.import_users(Shop::by_operator(request)).await?.into_inner().users {
            users.insert(user.external_id, user.name);
        }
    }
    Ok(users)
}

async fn sell(
    job: &mut Job,
    till: &Till,
    sales: Vec<Invoice>,
    customers: Arc<HashMap<String, String>>,
    report: &mut Report,
    voice: &Voice,
) -> anyhow::Result<Bought> {
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let total = sales.len() as u64;
    let mut placing = JoinSet::new();
    for sale in sales {
        let (till, places, customers) = (till.clone(), Arc::clone(&places), Arc::clone(&customers));
        placing.spawn(async move {
            let _place = places.acquire_owned().await?;
            let customer = customers.get(&number(&sale)).context("a customer is missing")?;
            let placed = till.place(&sale, customer).await.with_context(|| format!("invoice {}", sale.number))?;
            anyhow::Ok((sale, placed))
        });
    }
    let mut bought = Bought::default();
    while let Some(outcome) = placing.join_next().await {
        let (sale, placed) = outcome??;
        let sum: i64 = sale.lines.iter().map(|line| line.quantity * line.price_minor).sum();
        report.sales += 1;
        report.imported += sum;
        match placed {
            Ok(order) => {
                report.confirmed += 1;
                report.confirmed_minor += minor(order.total.as_ref())?;
                bought.add(&sale, &order)?;
            }
            Err(reason) => {
                let line = sale.lines.first().map_or(0, |line| line.line);
                job.refuse(line, "order_refused", &reason, &sale.number)?;
                report.refused_minor += sum;
                *report.refused.entry(reason).or_default() += 1;
            }
        }
        if report.sales.is_multiple_of(64) {
            voice.progress(report.sales, total, format!("{} sales of {total}", report.sales)).await;
            if voice.unheard() {
                bail!("nobody waits for it any more");
            }
        }
    }
    Ok(bought)
}

impl Till {
    /// One sale: cart, lines, prices, order. A refusal is an answer, anything else ends the import.
    async fn place(mut self, sale: &Invoice, customer: &str) -> anyhow::Result<Result<Order, String>> {
        let id = |step: &str| request_id(&format!("{step} {}", sale.number));
        let request = GetOrCreateCartRequest {
            currency_code: CURRENCY.to_owned(),
            customer: customer.to_owned(),
            request_id: id("cart"),
            separate: true,
        };
        let cart = self.cart.get_or_create_cart(Shop::by_operator(request)).await?.into_inner().cart;
        let cart = cart.context("no cart")?.name;
        let mut items = Vec::new();
        for line in &sale.lines {
            let Ok(quantity) = i32::try_from(line.quantity) else { return Ok(Err("too many pieces".to_owned())) };
            items.push(NewItem { sku: line.code.clone(), quantity, separate_line: true });
        }
        let request = BatchAddItemsRequest { cart: cart.clone(), items, request_id: id("items"), etag: String::new() };
        let added = match self.cart.batch_add_items(Shop::by_operator(request)).await {
            Ok(added) => added.into_inner().items,
            Err(status) => return refusal(status),
        };
        let lines = added
            .into_iter()
            .zip(&sale.lines)
            .map(|(item, line)| QuotedPrice { item, unit_price: Some(money(CURRENCY, line.price_minor)) });
        let request = IssueQuoteRequest {
            cart: cart.clone(),
            lines: lines.collect(),
            reason: format!("invoice {}", sale.number),
            request_id: id("quote"),
            ..Default::default()
        };
        let quote = match self.cart.issue_quote(Shop::by_operator(request)).await {
            Ok(quote) => quote.into_inner().quote.context("no quote")?,
            Err(status) => return refusal(status),
        };
        let request = PlaceOrderRequest {
            cart,
            cart_etag: quote.cart_etag,
            quote_token: quote.quote_token,
            payment_method: Some(PaymentMethod { token: "tok_ok".to_owned() }),
            shipping_address: Some(PostalAddress {
                recipient: format!("Customer {}", number(sale)),
                street: "as agreed".to_owned(),
                city: sale.country.clone(),
                country_code: "GB".to_owned(),
                ..Default::default()
            }),
            request_id: id("order"),
            external_reference: sale.number.clone(),
            placed_time: Some(wall_clock(sale.time)?),
            ..Default::default()
        };
        let mut order = match self.ordering.place_order(Shop::by_operator(request)).await {
            Ok(order) => order.into_inner(),
            Err(status) => return refusal(status),
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match order.state() {
                OrderState::Rejected => return Ok(Err(order.reject_reason().as_str_name().to_owned())),
                OrderState::Unspecified | OrderState::Pending | OrderState::AwaitingPaymentAction => {}
                OrderState::Confirmed
                | OrderState::PartiallyShipped
                | OrderState::Shipped
                | OrderState::Delivered
                | OrderState::Closed
                | OrderState::Cancelling
                | OrderState::Cancelled
                | OrderState::PartiallyCancelled => return Ok(Ok(order)),
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{} is not settled", order.name);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let request = GetOrderRequest { name: order.name, ..Default::default() };
            order = self.ordering.get_order(Shop::by_operator(request)).await?.into_inner();
        }
    }
}

/// A definite no is an answer about the sale; anything else is a fault.
fn refusal(status: Status) -> anyhow::Result<Result<Order, String>> {
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::OutOfRange => {
            Ok(Err(server::status::reason(&status).unwrap_or_else(|| status.message().to_owned())))
        }
        _ => Err(status.into()),
    }
}

/// What customers bought and did not bring back yet.
#[derive(Default)]
struct Bought(HashMap<(String, String, i64), Vec<Pieces>>);

struct Pieces {
    order: String,
    line: String,
    left: i64,
}

impl Bought {
    fn add(&mut self, sale: &Invoice, order: &Order) -> anyhow::Result<()> {
        let Some(customer) = &sale.customer else { return Ok(()) };
        for line in &order.lines {
            let key = (customer.clone(), line.sku.clone(), minor(line.unit_price.as_ref())?);
            let left = i64::from(line.quantity);
            let pieces = Pieces { order: order.name.clone(), line: line.line.clone(), left };
            self.0.entry(key).or_default().push(pieces);
        }
        Ok(())
    }

    /// Takes so many pieces, nothing if there are not enough.
    fn take(&mut self, customer: &str, line: &Line) -> Option<Vec<(String, String, i64)>> {
        let pieces = self.0.get_mut(&(customer.to_owned(), line.code.clone(), line.price_minor))?;
        let mut wanted = -line.quantity;
        if pieces.iter().map(|it| it.left).sum::<i64>() < wanted {
            return None;
        }
        let mut taken = Vec::new();
        for it in pieces.iter_mut().rev() {
            let some = it.left.min(wanted);
            if some > 0 {
                it.left -= some;
                wanted -= some;
                taken.push((it.order.clone(), it.line.clone(), some));
            }
        }
        Some(taken)
    }
}

/// Every cancelled line that matches goes back; of one order one return after the other.
async fn take_back(
    till: &Till,
    cancellations: Vec<Invoice>,
    mut bought: Bought,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut by_order: BTreeMap<String, Vec<ReturnLinesRequest>> = BTreeMap::new();
    for cancelled in &cancellations {
        let mut returned: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
        for line in &cancelled.lines {
            let sum = -line.quantity * line.price_minor;
            report.cancelled += sum;
            let taken = cancelled.customer.as_deref().and_then(|customer| bought.take(customer, line));
            match taken {
                Some(taken) => {
                    for (order, line, pieces) in taken {
                        *returned.entry(order).or_default().entry(line).or_default() += pieces;
                    }
                }
                None => {
                    report.unmatched += sum;
                    report.unmatched_lines += 1;
                }
            }
        }
        for (order, lines) in returned {
            let lines = lines.into_iter().map(|(line, pieces)| {
                Ok(ReturnLine { line, quantity: i32::try_from(pieces).context("too many pieces")? })
            });
            let request = ReturnLinesRequest {
                lines: lines.collect::<anyhow::Result<_>>()?,
                restock: true,
                reason: format!("invoice {}", cancelled.number),
                request_id: request_id(&format!("return {} {order}", cancelled.number)),
                external_reference: cancelled.number.clone(),
                returned_time: Some(wall_clock(cancelled.time)?),
                order: order.clone(),
                ..Default::default()
            };
            by_order.entry(order).or_default().push(request);
        }
    }
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut returning = JoinSet::new();
    for requests in by_order.into_values() {
        let (mut till, places) = (till.clone(), Arc::clone(&places));
        returning.spawn(async move {
            let _place = places.acquire_owned().await?;
            let mut sum = 0;
            for request in requests {
                let reply = till.ordering.return_lines(Shop::by_operator(request)).await?.into_inner();
                sum += minor(reply.order_return.and_then(|it| it.refund).as_ref())?;
            }
            anyhow::Ok(sum)
        });
    }
    while let Some(outcome) = returning.join_next().await {
        report.returned += outcome??;
    }
    Ok(())
}

/// The file names no zone: its times are taken as UTC.
fn wall_clock(time: DateTime) -> anyhow::Result<wkt::Timestamp> {
    Ok(wkt::Timestamp::from(jiff::tz::TimeZone::UTC.to_timestamp(time)?))
}

fn minor(amount: Option<&contracts::google::r#type::Money>) -> anyhow::Result<i64> {
    match amount {
        Some(amount) => Ok(contract::Money::try_from(amount)?.minor),
        None => Ok(0),
    }
}
