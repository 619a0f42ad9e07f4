//! A year of sales played again: every sale an order of its customer at its own prices, every cancelled line that matches
//! something bought a return of it.
//!
//! The file is streamed, once to see who buys and what is taken back, once for the sales, once for the cancellations: only
//! the invoices under way are in memory, and what of the sales somebody takes back (see `bought`). The position moves behind
//! a sale when that and all before it are settled. Each step's request id follows from the invoice, so what is played again
//! behind the position finds what it did.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
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

use super::bought::Bought;
use super::{Job, read_position, write_position};
use crate::import::retail::{CURRENCY, Invoice, InvoiceKind, LineKind, Reader};
use crate::import::{self, Position, Record};
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

/// Reads the year again and plays its sales, then its cancellations, from where it came before.
pub(super) async fn play(job: &mut Job, shop: &Shop, voice: &Voice) -> anyhow::Result<()> {
    let place = Place::open(job)?;
    let mut bought = Bought::open(job.beside_position(".bought"), place.position, job.from_start)?;
    let outlook = Outlook::of(job, &mut bought)?;
    let till = Till {
        cart: CartServiceClient::new(shop.channel("cart")),
        ordering: OrderingServiceClient::new(shop.channel("ordering")),
    };
    let customers = Arc::new(customers(shop, outlook.numbers).await?);
    let mut report = Report::default();
    sell(job, &till, place, customers, &mut bought, &mut report, (voice, outlook.sales)).await?;
    bought.complete();
    take_back(job, &till, &mut bought, &mut report).await?;
    for line in report.lines() {
        voice.line(line).await;
    }
    Ok(bought.close()?)
}

/// How far the sales are.
struct Place {
    position: Position,
    path: PathBuf,
}

impl Place {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let path = job.beside_position(".sales");
        let position = if job.from_start { Position::START } else { read_position(&path)? };
        Ok(Self { position, path })
    }

    /// All sales before `position` are settled.
    fn advance(&mut self, position: Position, job: &Job, bought: &Bought) -> io::Result<()> {
        job.rejects.sync_data()?;
        bought.flush()?;
        self.position = position;
        write_position(&self.path, position)
    }
}

/// What must be known before the first sale.
#[derive(Default)]
struct Outlook {
    sales: u64,
    numbers: BTreeSet<String>,
}

impl Outlook {
    /// Reads what is still to be played, and tells `bought` what will be taken back.
    fn of(job: &Job, bought: &mut Bought) -> anyhow::Result<Self> {
        let mut outlook = Self::default();
        for invoice in invoices(job, bought.begins())? {
            let invoice = invoice?;
            match (invoice.kind, &invoice.customer) {
                (InvoiceKind::Sale, _) => {
                    outlook.sales += 1;
                    outlook.numbers.insert(number(&invoice));
                }
                (InvoiceKind::Cancellation, Some(customer)) => {
                    for line in invoice.lines {
                        bought.want((customer.clone(), line.code, line.price_minor));
                    }
                }
                (InvoiceKind::Cancellation | InvoiceKind::Adjustment, _) => {}
            }
        }
        Ok(outlook)
    }
}

/// The sales and cancellations of the file from a position on, each with the lines it is about, if it has any.
fn invoices(job: &Job, from: Position) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Invoice>>> {
    let reader = Reader::resume(job.text()?, from)?;
    Ok(reader.filter_map(|record| only(record).transpose()))
}

fn only(record: Result<Record<Invoice>, import::Error>) -> anyhow::Result<Option<Invoice>> {
    let Record::Good(mut invoice) = record? else { return Ok(None) };
    let kind = match invoice.kind {
        InvoiceKind::Sale => LineKind::Sale,
        InvoiceKind::Cancellation => LineKind::Cancellation,
        InvoiceKind::Adjustment => return Ok(None),
    };
    invoice.lines.retain(|line| line.kind == kind);
    Ok((!invoice.lines.is_empty()).then_some(invoice))
}

/// Sales under way in order of the file, each with the place behind it, and whether it is settled.
#[derive(Default)]
struct UnderWay {
    first: u64,
    sales: VecDeque<(Position, bool)>,
}

impl UnderWay {
    fn begin(&mut self, behind: Position) -> u64 {
        self.sales.push_back((behind, false));
        self.first + self.sales.len() as u64 - 1
    }

    /// Settles a sale; says behind which place there is none left before.
    fn settle(&mut self, sale: u64) -> Option<Position> {
        let place = usize::try_from(sale.saturating_sub(self.first)).ok();
        if let Some((_, settled)) = place.and_then(|place| self.sales.get_mut(place)) {
            *settled = true;
        }
        let mut behind = None;
        while let Some((position, _)) = self.sales.pop_front_if(|(_, settled)| *settled) {
            self.first += 1;
            behind = Some(position);
        }
        behind
    }
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

async fn customers(shop: &Shop, numbers: BTreeSet<String>) -> anyhow::Result<HashMap<String, String>> {
    let mut identity = IdentityServiceClient::new(shop.channel("identity"));
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
    mut place: Place,
    customers: Arc<HashMap<String, String>>,
    bought: &mut Bought,
    report: &mut Report,
    (voice, total): (&Voice, u64),
) -> anyhow::Result<()> {
    let mut reader = Reader::resume(job.text()?, place.position)?;
    let (mut under_way, mut settled, mut ended) = (UnderWay::default(), place.position, false);
    let mut placing = JoinSet::new();
    loop {
        while !ended && placing.len() < SIDE_BY_SIDE {
            let Some(record) = reader.next() else {
                ended = true;
                break;
            };
            let Some(sale) = only(record)?.filter(|invoice| invoice.kind == InvoiceKind::Sale) else { continue };
            let number_in_line = under_way.begin(reader.position());
            let (till, customers) = (till.clone(), Arc::clone(&customers));
            placing.spawn(async move {
                let customer = customers.get(&number(&sale)).context("a customer is missing")?;
                let placed = till.place(&sale, customer).await.with_context(|| format!("invoice {}", sale.number))?;
                anyhow::Ok((number_in_line, sale, placed))
            });
        }
        let Some(outcome) = placing.join_next().await else { break };
        let (number_in_line, sale, placed) = outcome??;
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
        settled = under_way.settle(number_in_line).unwrap_or(settled);
        if report.sales.is_multiple_of(64) {
            place.advance(settled, job, bought)?;
            voice.progress(report.sales, total, format!("{} sales of {total}", report.sales)).await;
            if voice.unheard() {
                bail!("nobody waits for it any more");
            }
        }
    }
    Ok(place.advance(reader.position(), job, bought)?)
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

/// Every cancelled line that matches goes back; of one order one return after the other.
async fn take_back(job: &Job, till: &Till, bought: &mut Bought, report: &mut Report) -> anyhow::Result<()> {
    let mut by_order: BTreeMap<String, Vec<ReturnLinesRequest>> = BTreeMap::new();
    for cancelled in invoices(job, bought.begins())? {
        let cancelled = cancelled?;
        if cancelled.kind != InvoiceKind::Cancellation {
            continue;
        }
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

pub(super) fn minor(amount: Option<&contracts::google::r#type::Money>) -> anyhow::Result<i64> {
    match amount {
        Some(amount) => Ok(contract::Money::try_from(amount)?.minor),
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_moves_behind_sales_that_are_settled_with_all_before_them() {
        let at = |line| Position { byte: line * 10, line };
        let mut under_way = UnderWay::default();
        let sales: Vec<u64> = (1..=4).map(|line| under_way.begin(at(line))).collect();
        assert_eq!(under_way.settle(sales[1]), None);
        assert_eq!(under_way.settle(sales[0]), Some(at(2)));
        assert_eq!(under_way.settle(sales[3]), None);
        let fifth = under_way.begin(at(5));
        assert_eq!(under_way.settle(sales[2]), Some(at(4)));
        assert_eq!(under_way.settle(fifth), Some(at(5)));
    }
}
