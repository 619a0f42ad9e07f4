//! From wire to command to log and back. Nothing is decided here.

use std::collections::BTreeMap;

use contracts::inventory::v1 as proto;
use contracts::inventory::v1::inventory_service_server::InventoryService;
use jiff::{SignedDuration, Timestamp};
use log::{Log, Meta};
use server::{Call, status};
use store::{Site, Tx, site};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::movements::{self, After};
use crate::reservation::{Command, Rejection, Reservation};
use crate::{store as rows, wire};

/// Overdue holds let go in one transaction that found no stock.
const INLINE_EXPIRIES: u32 = 100;
const DEFAULT_PAGE: u32 = 50;

/// The handlers. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) log: Log<proto::Event>,
    /// How long a hold may last in all, counted from now.
    pub(crate) longest_hold: std::time::Duration,
}

impl Rpc {
    /// One command to one reservation, answered with the reservation as it then is.
    async fn reserve<M>(
        &self,
        call: Call,
        site: &'static Site,
        request: Option<log::Request>,
        name: String,
        make: M,
    ) -> Result<Option<proto::Reservation>, Status>
    where
        M: AsyncFnMut(&mut Tx, &Reservation) -> Result<Command, Error> + Send + 'static,
    {
        let log = self.log.clone();
        let meta = call.meta();
        let mut make = make;
        call.detached(async move {
            let reply: proto::Reservation = log
                .clone()
                .once(site, request, async move |tx: &mut Tx| {
                    let loaded = load(&log, tx, &name).await?;
                    let command = make(tx, &loaded.state).await?;
                    let executed = decide(&log, tx, &name, &meta, loaded, command).await?;
                    let stored = rows::get_reservation(tx, &name).await?;
                    let missing = || Error::Rejected { name: name.clone(), rejection: Rejection::Missing };
                    let stored = stored.ok_or_else(missing)?;
                    Ok::<_, Error>(wire::reservation(&name, executed.version, &executed.state, &stored))
                })
                .await?;
            Ok(Some(reply))
        })
        .await
    }

    /// Adjusts items of one warehouse in one transaction.
    async fn adjust(
        &self,
        call: Call,
        site: &'static Site,
        request: Option<log::Request>,
        adjustments: Vec<proto::StockAdjusted>,
        dry_run: bool,
    ) -> Result<Vec<proto::StockItem>, Status> {
        let log = self.log.clone();
        let meta = call.meta();
        let answer = call
            .detached(async move {
                let answer: Result<proto::BatchAdjustStockResponse, Error> = log
                    .clone()
                    .once(site, request, async move |tx: &mut Tx| {
                        let mut stock_items = vec![];
                        for adjusted in &adjustments {
                            stock_items.push(adjust_one(&log, tx, &meta, adjusted).await?);
                        }
                        match stock_items.pop() {
                            Some(item) if dry_run => Err(Error::DryRun(Box::new(item))),
                            Some(item) => {
                                stock_items.push(item);
                                Ok(proto::BatchAdjustStockResponse { stock_items })
                            }
                            None => Ok(proto::BatchAdjustStockResponse { stock_items }),
                        }
                    })
                    .await;
                match answer {
                    Ok(reply) => Ok(reply.stock_items),
                    Err(Error::DryRun(item)) => Ok(vec![*item]),
                    Err(error) => Err(error.into()),
                }
            })
            .await?;
        Ok(answer)
    }
}

/// A reservation, its stream's version, and what just happened to it.
pub(crate) struct Loaded {
    pub(crate) state: Reservation,
    pub(crate) version: u64,
}

/// Folds a reservation's stream.
async fn load(log: &Log<proto::Event>, tx: &mut Tx, name: &str) -> Result<Loaded, Error> {
    tx.take_stream(name).await?;
    let entries = log.load(tx, name).await?;
    let version = entries.last().map_or(0, |entry| entry.at.version);
    let events = entries.iter().filter_map(|entry| wire::from_stored(&entry.event));
    let state = events.fold(Reservation::default(), |state, event| state.evolve(&event));
    Ok(Loaded { state, version })
}

/// Decides and appends one command to one loaded reservation inside its transaction.
async fn decide(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    name: &str,
    meta: &Meta,
    loaded: Loaded,
    command: Command,
) -> Result<Loaded, Error> {
    let reject = |rejection| Error::Rejected { name: name.to_owned(), rejection };
    let events = loaded.state.decide(&command).map_err(reject)?;
    let state = events.iter().fold(loaded.state, Reservation::evolve);
    if events.is_empty() {
        return Ok(Loaded { state, version: loaded.version });
    }
    let stored = events.iter().map(|event| wire::to_stored(name, &state.order, event)).collect();
    let version = log.append(tx, name, loaded.version, meta, None, stored).await?;
    Ok(Loaded { state, version })
}

/// Lets the holds that have ended by now go, at most `limit`; how many went.
pub(crate) async fn expire(log: &Log<proto::Event>, tx: &mut Tx, meta: &Meta, limit: u32) -> Result<usize, Error> {
    let now = tx.now();
    let overdue = rows::overdue(tx, now, limit).await?;
    for name in &overdue {
        let loaded = load(log, tx, name).await?;
        decide(log, tx, name, meta, loaded, Command::Expire { now }).await?;
    }
    Ok(overdue.len())
}

/// What can be sold of these SKUs; when that is too little, overdue holds are let go first.
async fn free(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    wanted: &BTreeMap<String, i64>,
) -> Result<Vec<crate::reservation::Units>, Error> {
    let skus: Vec<&str> = wanted.keys().map(String::as_str).collect();
    let found = rows::free(tx, &skus).await?;
    let enough = wanted.iter().all(|(sku, &quantity)| {
        found.iter().filter(|units| units.sku == *sku).map(|units| units.quantity).sum::<i64>() >= quantity
    });
    if enough {
        return Ok(found);
    }
    if expire(log, tx, meta, INLINE_EXPIRIES).await? == 0 {
        return Ok(found);
    }
    Ok(rows::free(tx, &skus).await?)
}

async fn adjust_one(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    adjusted: &proto::StockAdjusted,
) -> Result<proto::StockItem, Error> {
    let name = adjusted.stock_item.as_str();
    let (warehouse, sku) = wire::parts(name).unwrap_or_default();
    let free = rows::get_item(tx, warehouse, sku).await?.map_or(0, |item| item.on_hand - item.held - item.committed);
    if free.saturating_add(adjusted.delta) < 0 {
        return Err(Error::TooFew { item: name.to_owned(), free });
    }
    log.append_next(tx, name, meta, None, vec![proto::Event::StockAdjusted(adjusted.clone())]).await?;
    let item = rows::get_item(tx, warehouse, sku).await?;
    Ok(item.as_ref().map(wire::item).unwrap_or_default())
}

#[tonic::async_trait]
impl InventoryService for Rpc {
    async fn batch_get_availability(
        &self,
        request: Request<proto::BatchGetAvailabilityRequest>,
    ) -> Result<Response<proto::BatchGetAvailabilityResponse>, Status> {
        let skus = request.into_inner().skus;
        let availabilities = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                let mut found = vec![];
                for sku in &skus {
                    let available = rows::available(tx, sku).await?;
                    found.push(proto::Availability { sku: sku.clone(), available });
                }
                Ok::<_, Error>(found)
            })
            .await?;
        Ok(Response::new(proto::BatchGetAvailabilityResponse { availabilities }))
    }

    async fn list_stock_items(
        &self,
        request: Request<proto::ListStockItemsRequest>,
    ) -> Result<Response<proto::ListStockItemsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let after = call.cursor(&list.parent, &list.page_token)?.unwrap_or_default();
        let (sku, warehouse) = after.split_once('\n').unwrap_or_default();
        let after = (sku.to_owned(), warehouse.to_owned());
        let limit = page_size(list.page_size);
        let parent = if list.parent == "warehouses/-" { String::new() } else { list.parent.clone() };
        let mut items = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                Ok::<_, Error>(rows::list_items(tx, &parent, (&after.0, &after.1), limit + 1).await?)
            })
            .await?;
        let more = cut(&mut items, limit);
        let cursor = items.last().filter(|_| more).map(|last| format!("{}\n{}", last.sku, last.warehouse));
        Ok(Response::new(proto::ListStockItemsResponse {
            stock_items: items.iter().map(wire::item).collect(),
            next_page_token: call.page_token(&list.parent, cursor.as_deref()),
        }))
    }

    async fn adjust_stock(
        &self,
        request: Request<proto::AdjustStockRequest>,
    ) -> Result<Response<proto::AdjustStockResponse>, Status> {
        let call = Call::of(&request)?;
        let adjust = request.into_inner();
        if adjust.delta == 0 {
            return Err(status::invalid_argument("delta", "must not be 0"));
        }
        let key = call.request(&adjust, &adjust.request_id).filter(|_| !adjust.validate_only);
        let adjusted = adjusted(&call, adjust.name, adjust.delta, adjust.reason, adjust.note);
        let site = site!("inventory.adjust_stock");
        let items = self.adjust(call, site, key, vec![adjusted], adjust.validate_only).await?;
        Ok(Response::new(proto::AdjustStockResponse { stock_item: items.into_iter().next() }))
    }

    async fn batch_adjust_stock(
        &self,
        request: Request<proto::BatchAdjustStockRequest>,
    ) -> Result<Response<proto::BatchAdjustStockResponse>, Status> {
        let call = Call::of(&request)?;
        let batch = request.into_inner();
        if let Some(index) = batch.adjustments.iter().position(|adjustment| adjustment.delta == 0) {
            return Err(status::invalid_argument(format!("adjustments[{index}].delta"), "must not be 0"));
        }
        let key = call.request(&batch, &batch.request_id);
        let adjustments = batch
            .adjustments
            .iter()
            .map(|adjustment| {
                let name = wire::item_name(&batch.parent, &adjustment.sku);
                adjusted(&call, name, adjustment.delta, batch.reason, batch.note.clone())
            })
            .collect();
        let stock_items = self.adjust(call, site!("inventory.batch_adjust_stock"), key, adjustments, false).await?;
        Ok(Response::new(proto::BatchAdjustStockResponse { stock_items }))
    }

    async fn list_movements(
        &self,
        request: Request<proto::ListMovementsRequest>,
    ) -> Result<Response<proto::ListMovementsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let filter = format!("{}\n{}", list.stock_item, list.reservation);
        let after =
            call.cursor(&filter, &list.page_token)?.and_then(|cursor| movement_after(&cursor)).unwrap_or_default();
        let limit = page_size(list.page_size);
        let (item, reservation) = (list.stock_item, list.reservation);
        let log = self.log.clone();
        let mut movements = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                movements::list(&log, tx, wire::parts(&item), &reservation, &after, limit + 1).await
            })
            .await?;
        let more = cut(&mut movements, limit);
        let cursor = movements.last().filter(|_| more).map(|last| {
            let After { occur_time, stream, version, sku, warehouse } = last.place();
            format!("{}\n{stream}\n{version}\n{sku}\n{warehouse}", occur_time.as_microsecond())
        });
        Ok(Response::new(proto::ListMovementsResponse {
            movements: movements.iter().map(wire::movement).collect(),
            next_page_token: call.page_token(&filter, cursor.as_deref()),
        }))
    }

    async fn list_reservations(
        &self,
        request: Request<proto::ListReservationsRequest>,
    ) -> Result<Response<proto::ListReservationsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let state = wire::state_filter(list.state());
        let filter = format!("{state}\n{}", list.order);
        let after = call.cursor(&filter, &list.page_token)?.and_then(|cursor| reservation_after(&cursor));
        let limit = page_size(list.page_size);
        let (log, order) = (self.log.clone(), list.order);
        let mut found = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                let after = after.as_ref().map(|(time, name)| (*time, name.as_str()));
                let stored = rows::list_reservations(tx, state, &order, after, limit + 1).await?;
                let mut found = vec![];
                for row in stored {
                    let loaded = load(&log, tx, &row.name).await?;
                    let cursor = format!("{}\n{}", row.create_time.as_microsecond(), row.name);
                    found.push((cursor, wire::reservation(&row.name, loaded.version, &loaded.state, &row)));
                }
                Ok::<_, Error>(found)
            })
            .await?;
        let more = cut(&mut found, limit);
        let cursor = found.last().filter(|_| more).map(|(cursor, _)| cursor.clone());
        Ok(Response::new(proto::ListReservationsResponse {
            reservations: found.into_iter().map(|(_, reservation)| reservation).collect(),
            next_page_token: call.page_token(&filter, cursor.as_deref()),
        }))
    }

    async fn hold_stock(
        &self,
        request: Request<proto::HoldStockRequest>,
    ) -> Result<Response<proto::HoldStockResponse>, Status> {
        let call = Call::of(&request)?;
        let hold = request.into_inner();
        let ttl =
            hold.ttl.and_then(|ttl| std::time::Duration::try_from(ttl).ok()).unwrap_or_default().min(self.longest_hold);
        let key = call.request(&hold, &hold.request_id);
        let (log, meta, wanted) = (self.log.clone(), call.meta(), wire::wanted(&hold.lines));
        let reservation = self
            .reserve(call, site!("inventory.hold_stock"), key, hold.name, async move |tx: &mut Tx, current| {
                let free = if current.state.is_none() { free(&log, tx, &meta, &wanted).await? } else { vec![] };
                let expire_time = after(tx.now(), ttl);
                Ok(Command::Hold { order: hold.order.clone(), wanted: wanted.clone(), free, expire_time })
            })
            .await?;
        Ok(Response::new(proto::HoldStockResponse { reservation }))
    }

    async fn extend_reservation(
        &self,
        request: Request<proto::ExtendReservationRequest>,
    ) -> Result<Response<proto::ExtendReservationResponse>, Status> {
        let call = Call::of(&request)?;
        let extend = request.into_inner();
        let end = extend.expire_time.and_then(|end| Timestamp::try_from(end).ok());
        let end = end.ok_or_else(|| status::invalid_argument("expire_time", "is not a time"))?;
        let key = call.request(&extend, &extend.request_id);
        let longest = self.longest_hold;
        let reservation = self
            .reserve(call, site!("inventory.extend_reservation"), key, extend.name, async move |tx: &mut Tx, _| {
                Ok(Command::Extend { expire_time: end.min(after(tx.now(), longest)) })
            })
            .await?;
        Ok(Response::new(proto::ExtendReservationResponse { reservation }))
    }

    async fn commit_reservation(
        &self,
        request: Request<proto::CommitReservationRequest>,
    ) -> Result<Response<proto::CommitReservationResponse>, Status> {
        let call = Call::of(&request)?;
        let commit = request.into_inner();
        let key = call.request(&commit, &commit.request_id);
        let (log, meta) = (self.log.clone(), call.meta());
        let reservation = self
            .reserve(
                call,
                site!("inventory.commit_reservation"),
                key,
                commit.name,
                async move |tx: &mut Tx, current| {
                    let free = match current.state {
                        Some(crate::reservation::State::Expired) => free(&log, tx, &meta, &current.wanted()).await?,
                        _ => vec![],
                    };
                    Ok(Command::Commit { free })
                },
            )
            .await?;
        Ok(Response::new(proto::CommitReservationResponse { reservation }))
    }

    async fn release_reservation(
        &self,
        request: Request<proto::ReleaseReservationRequest>,
    ) -> Result<Response<proto::ReleaseReservationResponse>, Status> {
        let call = Call::of(&request)?;
        let release = request.into_inner();
        let key = call.request(&release, &release.request_id);
        let reservation = self
            .reserve(call, site!("inventory.release_reservation"), key, release.name, async move |_: &mut Tx, _| {
                Ok(Command::Release { order: release.order.clone(), reason: release.reason.clone() })
            })
            .await?;
        Ok(Response::new(proto::ReleaseReservationResponse { reservation }))
    }

    async fn fulfill_reservation(
        &self,
        request: Request<proto::FulfillReservationRequest>,
    ) -> Result<Response<proto::FulfillReservationResponse>, Status> {
        let call = Call::of(&request)?;
        let fulfill = request.into_inner();
        let key = call.request(&fulfill, &fulfill.request_id);
        let wanted = wire::wanted(&fulfill.lines);
        let reservation = self
            .reserve(call, site!("inventory.fulfill_reservation"), key, fulfill.name, async move |_: &mut Tx, _| {
                Ok(Command::Fulfill { shipment: fulfill.shipment.clone(), wanted: wanted.clone() })
            })
            .await?;
        Ok(Response::new(proto::FulfillReservationResponse { reservation }))
    }

    async fn restock_reservation(
        &self,
        request: Request<proto::RestockReservationRequest>,
    ) -> Result<Response<proto::RestockReservationResponse>, Status> {
        let call = Call::of(&request)?;
        let restock = request.into_inner();
        let key = call.request(&restock, &restock.request_id);
        let (log, meta, wanted) = (self.log.clone(), call.meta(), wire::wanted(&restock.lines));
        let reply = call
            .detached(async move {
                let reply = log
                    .clone()
                    .once(site!("inventory.restock_reservation"), key, async move |tx: &mut Tx| {
                        let command = Command::Restock { return_id: restock.return_id.clone(), wanted: wanted.clone() };
                        let loaded = load(&log, tx, &restock.name).await?;
                        decide(&log, tx, &restock.name, &meta, loaded, command).await?;
                        let entries = log.load(tx, &restock.name).await?;
                        let back = entries.iter().flat_map(movements::of);
                        let back = back.filter(|movement| movement.note == restock.return_id);
                        Ok::<_, Error>(proto::RestockReservationResponse {
                            movements: back.map(|movement| wire::movement(&movement)).collect(),
                        })
                    })
                    .await?;
                Ok(reply)
            })
            .await?;
        Ok(Response::new(reply))
    }
}

fn adjusted(call: &Call, stock_item: String, delta: i64, reason: i32, note: String) -> proto::StockAdjusted {
    let reason = match proto::AdjustReason::try_from(reason) {
        Ok(proto::AdjustReason::Unspecified) | Err(_) if delta > 0 => proto::AdjustReason::Received,
        Ok(proto::AdjustReason::Unspecified) | Err(_) => proto::AdjustReason::Correction,
        Ok(said) => said,
    };
    let actor = call.subject().map(|subject| subject.id.clone()).unwrap_or_default();
    proto::StockAdjusted { stock_item, delta, reason: reason.into(), note, actor }
}

fn page_size(asked: i32) -> u32 {
    u32::try_from(asked).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE)
}

/// Cuts a list that was read one too long; true if there was more.
fn cut<T>(items: &mut Vec<T>, limit: u32) -> bool {
    let limit = limit as usize;
    let more = items.len() > limit;
    items.truncate(limit);
    more
}

fn movement_after(cursor: &str) -> Option<After> {
    let mut parts = cursor.splitn(5, '\n');
    let mut next = || parts.next();
    Some(After {
        occur_time: Timestamp::from_microsecond(next()?.parse().ok()?).ok()?,
        stream: next()?.to_owned(),
        version: next()?.parse().ok()?,
        sku: next()?.to_owned(),
        warehouse: next()?.to_owned(),
    })
}

fn reservation_after(cursor: &str) -> Option<(Timestamp, String)> {
    let (micros, name) = cursor.split_once('\n')?;
    Some((Timestamp::from_microsecond(micros.parse().ok()?).ok()?, name.to_owned()))
}

fn after(now: Timestamp, duration: std::time::Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| now.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}
