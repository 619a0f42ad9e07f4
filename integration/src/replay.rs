//! A year of a real shop, played again through the public gRPC API.
//!
//! The catalogue is imported, stock received, every sale placed as an order of its customer at its
//! historical prices (IssueQuote), its number and time kept; every cancellation becomes a return of what
//! was bought, where it can be matched: same customer, code and price, and enough left of it. Every
//! request id follows from the invoice, so that a call which was not answered is simply made again, over
//! a server that is killed in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::calls::Calls;
use crate::grpc::Client;
use crate::retail::{Invoice, Invoices, Kind, Line, is_goods};
use crate::server::OPERATOR;

/// Invoices in progress at the same time.
const SIDE_BY_SIDE: usize = 64;

/// How long one call to a single process is repeated.
const PATIENCE: Duration = Duration::from_secs(60);

/// An operator's token is renewed before it expires.
const TOKEN_AGE: Duration = Duration::from_secs(150);

/// Most entries of one call.
const BATCH: usize = 1000;

/// What came of a replay; sums are pence.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Sale invoices with at least one usable line.
    pub sales: u64,
    /// Orders that were confirmed.
    pub confirmed: u64,
    /// Orders that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Usable sale lines, their sum.
    pub imported_pence: i64,
    /// The totals of confirmed orders.
    pub confirmed_pence: i64,
    /// The sums of refused orders.
    pub refused_pence: i64,
    /// Cancelled lines, their sum (positive).
    pub cancelled_pence: i64,
    /// Cancelled lines that were returned to an order.
    pub returned_lines: u64,
    /// What the orders say was refunded or voided for them.
    pub returned_pence: i64,
    /// Cancelled lines that match nothing that was bought.
    pub unmatched_lines: u64,
    /// Their sum.
    pub unmatched_pence: i64,
    /// From the first sale to the last return.
    pub time: Duration,
}

impl Report {
    /// Whether the books agree to the penny.
    pub fn balances(&self) -> Result<()> {
        ensure!(
            self.imported_pence == self.confirmed_pence + self.refused_pence,
            "imported is not confirmed and refused: {self:#?}"
        );
        ensure!(
            self.cancelled_pence == self.returned_pence + self.unmatched_pence,
            "cancelled is not returned and unmatched: {self:#?}"
        );
        Ok(())
    }
}

/// Plays the invoices; `progress` is told how many sales are done.
pub async fn play(
    address: SocketAddr,
    invoices: &Invoices,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
) -> Result<Report> {
    let (_, allowed) = watch::channel(usize::MAX);
    let pace = Pace { patience: PATIENCE, allowed, calls: Calls::default() };
    play_at(&[address], &pace, invoices, progress).await
}

/// How invoices are played where somebody else has a say in it.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How long each call is repeated.
    pub patience: Duration,
    /// How many sales may have been begun.
    pub allowed: watch::Receiver<usize>,
    /// Where calls are counted.
    pub calls: Calls,
}

/// As [`play`], at all doors of a shop in turn.
pub async fn play_at(
    doors: &[SocketAddr],
    pace: &Pace,
    invoices: &Invoices,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
) -> Result<Report> {
    let caller = Caller::connect(doors, pace).await?;
    let mut report = Report::default();
    let sales: Vec<Invoice> = invoices.invoices.iter().filter_map(|invoice| only(invoice, Kind::Sale)).collect();
    let cancellations: Vec<Invoice> =
        invoices.invoices.iter().filter_map(|invoice| only(invoice, Kind::Cancellation)).collect();
    catalogue(&caller, &sales).await?;
    let customers = customers(&caller, &sales).await?;

    let start = Instant::now();
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let done = Arc::new(AtomicU64::new(0));
    let mut placing = JoinSet::new();
    for (number, sale) in sales.into_iter().enumerate() {
        let customer = customers.get(&customer_of(&sale)).context("a customer is missing")?.clone();
        let (caller, places, done, progress) =
            (caller.clone(), Arc::clone(&places), Arc::clone(&done), Arc::clone(&progress));
        let mut allowed = pace.allowed.clone();
        placing.spawn(async move {
            // In this order: whoever may not begin yet takes no place from whoever may.
            allowed.wait_for(|allowed| *allowed > number).await?;
            let _place = places.acquire_owned().await?;
            let placed = place(&caller, &sale, &customer).await;
            let placed = placed.with_context(|| format!("invoice {}", sale.number))?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            anyhow::Ok((sale, placed))
        });
    }
    let mut bought = Bought::default();
    for outcome in placing.join_all().await {
        let (sale, placed) = outcome?;
        let sum = sale.lines.iter().map(|line| line.pieces * line.pence).sum::<i64>();
        report.sales += 1;
        report.imported_pence += sum;
        match placed {
            Placed::Confirmed(order) => {
                report.confirmed += 1;
                report.confirmed_pence += minor(&order["total"])?;
                bought.add(&sale, &order)?;
            }
            Placed::Refused(reason) => {
                *report.refused.entry(reason).or_default() += 1;
                report.refused_pence += sum;
            }
        }
    }
    returns(&caller, cancellations, bought, &mut report).await?;
    report.time = start.elapsed();
    Ok(report)
}

/// The invoice with its lines of one kind, if it has any.
fn only(invoice: &Invoice, kind: Kind) -> Option<Invoice> {
    let lines: Vec<Line> = invoice.lines.iter().filter(|line| line.kind == kind).cloned().collect();
    (!lines.is_empty()).then(|| Invoice { lines, ..invoice.clone() })
}

/// The customer's number, or one of its own for each guest's invoice.
fn customer_of(invoice: &Invoice) -> String {
    if invoice.customer.is_empty() { format!("guest-{}", invoice.number) } else { invoice.customer.clone() }
}

/// Products for every code, and as much stock of the goods as will be sold.
async fn catalogue(caller: &Caller, sales: &[Invoice]) -> Result<()> {
    let mut codes: BTreeMap<&str, (&Line, i64)> = BTreeMap::new();
    for line in sales.iter().flat_map(|sale| &sale.lines) {
        codes.entry(&line.code).or_insert((line, 0)).1 += line.pieces;
    }
    let products = codes.values().map(|(line, _)| {
        let title = if line.description.trim().is_empty() { &line.code } else { &line.description };
        json!({
            "product": {
                "title": title.trim(),
                "stocked": is_goods(&line.code),
                "variants": [{ "sku": line.code, "prices": [money(line.pence)] }],
            }
        })
    });
    let products: Vec<Value> = products.collect();
    for batch in products.chunks(BATCH) {
        let answer = caller.stream("stoa.catalog.v1.CatalogService/ImportProducts", batch).await?;
        let failed = answer["failedCount"].as_str().unwrap_or("0");
        ensure!(failed == "0", "products refused: {answer}");
    }
    let list = caller
        .call("stoa.inventory.v1.InventoryService/ListStockItems", json!({ "parent": "warehouses/-", "pageSize": 1 }))
        .await?;
    // A shop without the sample has none until the first piece arrives.
    let item = list["stockItems"][0]["name"].as_str().unwrap_or("warehouses/main");
    let warehouse: Vec<&str> = item.split('/').take(2).collect();
    let stock: Vec<Value> = codes
        .values()
        .filter(|(line, _)| is_goods(&line.code))
        .map(|(line, pieces)| json!({ "sku": line.code, "delta": pieces.to_string() }))
        .collect();
    for (number, batch) in stock.chunks(BATCH).enumerate() {
        let body = json!({
            "parent": warehouse.join("/"),
            "adjustments": batch,
            "requestId": id(&["stock", &number.to_string()]),
        });
        caller.call("stoa.inventory.v1.InventoryService/BatchAdjustStock", body).await?;
    }
    Ok(())
}

/// Users for every customer and every guest, by number.
async fn customers(caller: &Caller, sales: &[Invoice]) -> Result<BTreeMap<String, String>> {
    let numbers: BTreeSet<String> = sales.iter().map(customer_of).collect();
    let numbers: Vec<String> = numbers.into_iter().collect();
    let mut users = BTreeMap::new();
    for (index, batch) in numbers.chunks(BATCH).enumerate() {
        let list: Vec<Value> = batch.iter().map(|number| json!({ "externalId": number })).collect();
        let body = json!({ "users": list, "requestId": id(&["users", &index.to_string()]) });
        let answer = caller.call("stoa.identity.v1.IdentityService/ImportUsers", body).await?;
        for user in answer["users"].as_array().context("no users")? {
            let number = user["externalId"].as_str().context("no number")?;
            let name = user["name"].as_str().context("no name")?;
            users.insert(number.to_owned(), name.to_owned());
        }
    }
    Ok(users)
}

enum Placed {
    Confirmed(Value),
    Refused(String),
}

/// One sale: cart, lines, prices, order.
async fn place(caller: &Caller, sale: &Invoice, customer: &str) -> Result<Placed> {
    let request = |step: &str| id(&[step, &sale.number]);
    let cart = caller
        .call(
            "stoa.cart.v1.CartService/GetOrCreateCart",
            json!({
                "currencyCode": "GBP",
                "customer": customer,
                "separate": true,
                "requestId": request("cart"),
            }),
        )
        .await?;
    let cart = cart["cart"]["name"].as_str().context("no cart")?.to_owned();
    let items: Vec<Value> = sale
        .lines
        .iter()
        .map(|line| json!({ "sku": line.code, "quantity": line.pieces, "separateLine": true }))
        .collect();
    let added = caller
        .try_call(
            "stoa.cart.v1.CartService/BatchAddItems",
            json!({ "cart": cart, "items": items, "requestId": request("items") }),
        )
        .await?;
    let added = match added {
        Ok(added) => added,
        Err(status) => return Ok(Placed::Refused(reason(&status))),
    };
    let names = added["items"].as_array().context("no items")?;
    ensure!(names.len() == sale.lines.len(), "{} lines became {}", sale.lines.len(), names.len());
    let prices: Vec<Value> = names
        .iter()
        .zip(&sale.lines)
        .map(|(item, line)| json!({ "item": item, "unitPrice": money(line.pence) }))
        .collect();
    let quote = caller
        .try_call(
            "stoa.cart.v1.CartService/IssueQuote",
            json!({
                "cart": cart,
                "lines": prices,
                "reason": format!("replay of invoice {}", sale.number),
                "requestId": request("quote"),
            }),
        )
        .await?;
    let quote = match quote {
        Ok(quote) => quote,
        Err(status) => return Ok(Placed::Refused(reason(&status))),
    };
    let order = caller
        .try_call(
            "stoa.ordering.v1.OrderingService/PlaceOrder",
            json!({
                "cart": cart,
                "cartEtag": quote["quote"]["cartEtag"],
                "quoteToken": quote["quote"]["quoteToken"],
                "paymentMethod": { "token": "tok_ok" },
                "shippingAddress": {
                    "recipient": format!("Customer {}", customer_of(sale)),
                    "street": "as agreed",
                    "city": sale.country,
                    "countryCode": "GB",
                },
                "requestId": request("order"),
                "waitTimeout": "20s",
                "externalReference": sale.number,
                "placedTime": sale.time,
            }),
        )
        .await?;
    let mut order = match order {
        Ok(order) => order,
        Err(status) => return Ok(Placed::Refused(reason(&status))),
    };
    let deadline = Instant::now() + caller.patience;
    loop {
        let name = order["name"].as_str().context("no order")?.to_owned();
        match order["state"].as_str() {
            Some("ORDER_STATE_CONFIRMED") => return Ok(Placed::Confirmed(order)),
            Some("ORDER_STATE_REJECTED") => {
                return Ok(Placed::Refused(order["rejectReason"].as_str().unwrap_or("?").to_owned()));
            }
            _ if Instant::now() > deadline => bail!("{name} stays {}", order["state"]),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        order = caller.call("stoa.ordering.v1.OrderingService/GetOrder", json!({ "name": name })).await?;
    }
}

/// What customers bought and did not bring back yet.
#[derive(Default)]
struct Bought(BTreeMap<(String, String, i64), Vec<Piece>>);

/// Some pieces of one line of one order.
struct Piece {
    order: String,
    line: String,
    left: i64,
}

impl Bought {
    fn add(&mut self, sale: &Invoice, order: &Value) -> Result<()> {
        let name = order["name"].as_str().context("no name")?;
        for line in order["lines"].as_array().context("no lines")? {
            let code = line["sku"].as_str().context("no sku")?;
            let left = line["quantity"].as_i64().context("no quantity")?;
            let key = (sale.customer.clone(), code.to_owned(), minor(&line["unitPrice"])?);
            let line = line["line"].as_str().context("no line")?;
            let piece = Piece { order: name.to_owned(), line: line.to_owned(), left };
            self.0.entry(key).or_default().push(piece);
        }
        Ok(())
    }

    /// Takes so many pieces, the latest first; nothing if there are not enough, or for a guest.
    fn take(&mut self, cancelled: &Invoice, line: &Line) -> Option<Vec<(String, String, i64)>> {
        let key = (cancelled.customer.clone(), line.code.clone(), line.pence);
        let pieces = self.0.get_mut(&key).filter(|_| !cancelled.customer.is_empty())?;
        let mut wanted = -line.pieces;
        if pieces.iter().map(|piece| piece.left).sum::<i64>() < wanted {
            return None;
        }
        let mut taken = Vec::new();
        for piece in pieces.iter_mut().rev() {
            let some = piece.left.min(wanted);
            if some > 0 {
                piece.left -= some;
                wanted -= some;
                taken.push((piece.order.clone(), piece.line.clone(), some));
            }
        }
        Some(taken)
    }
}

/// Every cancelled line that matches goes back to its order.
async fn returns(caller: &Caller, cancellations: Vec<Invoice>, mut bought: Bought, report: &mut Report) -> Result<()> {
    // One return for each cancelling invoice and order; of one order they go one after the other.
    let mut by_order: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for cancelled in &cancellations {
        let mut returned: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
        for line in &cancelled.lines {
            let sum = -line.pieces * line.pence;
            report.cancelled_pence += sum;
            match bought.take(cancelled, line) {
                Some(taken) => {
                    report.returned_lines += 1;
                    for (order, line, pieces) in taken {
                        *returned.entry(order).or_default().entry(line).or_default() += pieces;
                    }
                }
                None => {
                    report.unmatched_lines += 1;
                    report.unmatched_pence += sum;
                }
            }
        }
        for (order, lines) in returned {
            let lines: Vec<Value> =
                lines.into_iter().map(|(line, pieces)| json!({ "line": line, "quantity": pieces })).collect();
            let body = json!({
                "order": order,
                "lines": lines,
                "restock": true,
                "reason": format!("replay of invoice {}", cancelled.number),
                "requestId": id(&["return", &cancelled.number, &order]),
                "externalReference": cancelled.number,
                "returnedTime": cancelled.time,
                "waitTimeout": "0s",
            });
            by_order.entry(order).or_default().push(body);
        }
    }
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut returning = JoinSet::new();
    for bodies in by_order.into_values() {
        let (caller, places) = (caller.clone(), Arc::clone(&places));
        returning.spawn(async move {
            let _place = places.acquire_owned().await?;
            let mut sum = 0;
            for body in bodies {
                let answer = caller.call("stoa.ordering.v1.OrderingService/ReturnLines", body).await?;
                sum += minor(&answer["orderReturn"]["refund"])?;
            }
            anyhow::Ok(sum)
        });
    }
    for outcome in returning.join_all().await {
        report.returned_pence += outcome?;
    }
    Ok(())
}

/// An operator's connections, one at each door, that insist and keep their token fresh.
#[derive(Clone)]
struct Caller {
    doors: Arc<Vec<Client>>,
    calls: Arc<AtomicUsize>,
    patience: Duration,
    token: Arc<Mutex<(String, Instant)>>,
}

impl Caller {
    async fn connect(doors: &[SocketAddr], pace: &Pace) -> Result<Self> {
        let mut clients = vec![];
        for door in doors {
            clients.push(Client::connect(*door).await?.counted_by(&pace.calls));
        }
        let (doors, calls) = (Arc::new(clients), Arc::new(AtomicUsize::new(0)));
        let token = Arc::new(Mutex::new((String::new(), Instant::now())));
        let caller = Self { doors, calls, patience: pace.patience, token };
        caller.sign_in().await?;
        Ok(caller)
    }

    /// The next door, without a token.
    fn door(&self) -> Result<&Client> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.doors.get(call % self.doors.len()).context("no door")
    }

    async fn client(&self) -> Result<Client> {
        let (token, since) = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if since.elapsed() < TOKEN_AGE {
            return Ok(self.door()?.with_token(token));
        }
        let token = self.sign_in().await?;
        Ok(self.door()?.with_token(token))
    }

    async fn sign_in(&self) -> Result<String> {
        let body = json!({ "email": OPERATOR.0, "password": OPERATOR.1 });
        let deadline = Instant::now() + self.patience;
        loop {
            match self.door()?.call("stoa.identity.v1.IdentityService/SignIn", &body).await? {
                Ok(session) => {
                    let token = session["accessToken"].as_str().context("no token")?.to_owned();
                    *self.token.lock().unwrap_or_else(PoisonError::into_inner) = (token.clone(), Instant::now());
                    return Ok(token);
                }
                Err(status) if is_transient(&status) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => bail!("sign-in: {status:?}"),
            }
        }
    }

    /// A call that must succeed.
    async fn call(&self, method: &str, body: Value) -> Result<Value> {
        let answer = self.try_call(method, body).await?;
        answer.map_err(|status| anyhow::anyhow!("{method}: {status:?}"))
    }

    /// A call that may be refused; what says "not now" is repeated.
    async fn try_call(&self, method: &str, body: Value) -> Result<Result<Value, Status>> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.client().await?.call(method, &body).await? {
                Err(status) if is_transient(&status) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                outcome => return Ok(outcome),
            }
        }
    }

    /// A call with a stream of messages; the same messages again change nothing.
    async fn stream(&self, method: &str, bodies: &[Value]) -> Result<Value> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.client().await?.call_with_stream(method, bodies).await? {
                Ok(answer) => return Ok(answer),
                Err(status) if is_transient(&status) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => bail!("{method}: {status:?}"),
            }
        }
    }
}

/// Refused for now, or cut off: a broken connection shows as UNKNOWN or CANCELLED.
fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted | Code::DeadlineExceeded
    )
}

fn reason(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// A request id that follows from what is asked.
fn id(parts: &[&str]) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, parts.join("/").as_bytes()).to_string()
}

fn money(pence: i64) -> Value {
    json!({
        "currencyCode": "GBP",
        "units": (pence / 100).to_string(),
        "nanos": (pence % 100) * 10_000_000,
    })
}

fn minor(money: &Value) -> Result<i64> {
    let units = match &money["units"] {
        Value::Null => 0,
        Value::String(units) => units.parse()?,
        other => other.as_i64().context("no units")?,
    };
    let nanos = money["nanos"].as_i64().unwrap_or(0);
    ensure!(nanos % 10_000_000 == 0, "half a penny: {money}");
    Ok(units * 100 + nanos / 10_000_000)
}
