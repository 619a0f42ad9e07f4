//! From wire to rows and back. Nothing is decided here but who may look.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bus::Consumer;
use contracts::orderview::v1 as proto;
use contracts::orderview::v1::orderview_service_server::OrderviewService;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use jiff::Timestamp;
use server::{Call, status};
use store::{Store, Tx};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::explain::Desk;
use crate::store::{self as rows, Stored, Wanted};
use crate::view::State;
use crate::watchers::Watchers;
use crate::{filter, wire};

const DEFAULT_PAGE: u32 = 50;
/// What is kept of a call's time to say that the view is behind, before the call is cut off without a word.
const LAST_WORD: Duration = Duration::from_millis(50);

/// The handlers. A cheap handle.
#[derive(Clone)]
pub(crate) struct Rpc {
    pub(crate) store: Store,
    pub(crate) consumer: Consumer,
    pub(crate) watchers: Watchers,
    /// One for each order that may still be watched.
    pub(crate) seats: Arc<Semaphore>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) shutdown: CancellationToken,
}

/// A view the caller may see, with what a watcher is told besides.
struct Seen {
    view: proto::OrderView,
    version: u64,
    state: State,
    last_event: String,
}

impl Rpc {
    /// The view of an order as it is, unless it is missing or another's.
    async fn seen(&self, call: &Call, name: &str) -> Result<Option<Seen>, Error> {
        let (call, name) = (call.clone(), name.to_owned());
        self.store
            .read(async move |tx: &mut Tx| {
                let stored = rows::get(tx, &name).await?;
                match stored.filter(|stored| call.owns(&stored.customer)) {
                    Some(stored) => show(tx, stored).await.map(Some),
                    None => Ok(None),
                }
            })
            .await
    }
}

async fn show(tx: &mut Tx, stored: Stored) -> Result<Seen, Error> {
    let lines = rows::lines(tx, &stored.name).await?;
    let contact = rows::contact(tx, &stored.name).await?;
    let state = wire::progress(&stored)?.state;
    let view = wire::view(&stored, &lines, contact)?;
    Ok(Seen { view, version: stored.version, state, last_event: stored.last_event })
}

#[tonic::async_trait]
impl OrderviewService for Rpc {
    async fn get_order_view(
        &self,
        request: Request<proto::GetOrderViewRequest>,
    ) -> Result<Response<proto::OrderView>, Status> {
        let call = Call::of(&request)?;
        let get = request.into_inner();
        let wanted = u64::try_from(get.min_version).unwrap_or(0);
        let mut changed = self.watchers_of(wanted, &get.name);
        let mut caught_up = pin!(self.consumer.caught_up());
        let mut is_caught_up = false;
        let end = call.deadline.checked_sub(LAST_WORD).unwrap_or(call.deadline);
        loop {
            // What is missing or another's is told apart by nothing: both wait until all that was known is folded.
            let version = match self.seen(&call, &get.name).await? {
                Some(seen) if seen.version >= wanted => return Ok(Response::new(seen.view)),
                Some(seen) => seen.version,
                None if is_caught_up => return Err(Error::Missing(get.name).into()),
                None => 0,
            };
            let Some(changed) = changed.as_mut() else { return Err(Error::Missing(get.name).into()) };
            let moved = call.aside(async {
                tokio::select! {
                    moved = changed.changed() => moved.map_err(|_| Error::Missing(get.name.clone()).into()),
                    caught = caught_up.as_mut(), if !is_caught_up => {
                        is_caught_up = true;
                        caught.map_err(|error| Error::from(error).into())
                    }
                    () = self.shutdown.cancelled() => {
                        Err(status::unavailable("the service is stopping", Duration::from_secs(1)))
                    }
                    () = tokio::time::sleep_until(end) => {
                        let name = get.name.clone();
                        Err(if version == 0 { Error::Missing(name) } else { Error::Behind { name, version } }.into())
                    }
                }
            });
            moved.await?;
        }
    }

    async fn list_orders(
        &self,
        request: Request<proto::ListOrdersRequest>,
    ) -> Result<Response<proto::ListOrdersResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let filter = filter::parse(&list.filter).map_err(|problem| status::invalid_argument("filter", problem))?;
        let state = match &filter.state {
            None => None,
            Some(name) => Some(
                wire::state_text_of(name)
                    .ok_or_else(|| status::invalid_argument("filter", format!("has no state {name:?}")))?,
            ),
        };
        let bound = format!("{filter:?}");
        let after = call.cursor(&bound, &list.page_token)?.and_then(|cursor| place(&cursor));
        let own = if call.is_privileged() { None } else { Some(call.require_subject()?.id.clone()) };
        // Asking for another's orders is asking for nothing.
        if let (Some(own), Some(asked)) = (&own, &filter.customer)
            && own != asked
        {
            return Ok(Response::new(proto::ListOrdersResponse::default()));
        }
        let wanted = Wanted {
            customer: own.or(filter.customer),
            state,
            needs_attention: filter.needs_attention,
            external_reference: filter.external_reference,
        };
        let limit = u32::try_from(list.page_size).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE);
        let mut found = self
            .store
            .read(async move |tx: &mut Tx| {
                let after = after.as_ref().map(|(time, name)| (*time, name.as_str()));
                let mut found = vec![];
                for stored in rows::list(tx, &wanted, after, limit + 1).await? {
                    let cursor = format!("{}\n{}", stored.create_time.as_microsecond(), stored.name);
                    found.push((cursor, show(tx, stored).await?.view));
                }
                Ok::<_, Error>(found)
            })
            .await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let cursor = found.last().filter(|_| more).map(|(cursor, _)| cursor.clone());
        Ok(Response::new(proto::ListOrdersResponse {
            orders: found.into_iter().map(|(_, view)| view).collect(),
            next_page_token: call.page_token(&bound, cursor.as_deref()),
        }))
    }

    type WatchOrderStream = Pin<Box<dyn Stream<Item = Result<proto::WatchOrderResponse, Status>> + Send>>;

    async fn watch_order(
        &self,
        request: Request<proto::WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let call = Call::of(&request)?;
        let watch = request.into_inner();
        let seat = Arc::clone(&self.seats).try_acquire_owned().map_err(|_| Error::TooManyWatchers)?;
        let changed = self.watchers.subscribe(&watch.name);
        let first = self.seen(&call, &watch.name).await?.ok_or_else(|| Error::Missing(watch.name.clone()))?;
        let watching = Watching {
            rpc: self.clone(),
            call,
            name: watch.name,
            after: u64::try_from(watch.after_version).unwrap_or(0),
            first: Some(first),
            told: false,
            ended: false,
            changed,
            _seat: seat,
        };
        Ok(Response::new(Box::pin(try_unfold(watching, Watching::next))))
    }

    async fn explain_order(
        &self,
        request: Request<proto::ExplainOrderRequest>,
    ) -> Result<Response<proto::ExplainOrderResponse>, Status> {
        let call = Call::of(&request)?;
        let name = request.into_inner().name;
        let seen = self.seen(&call, &name).await?.ok_or_else(|| Error::Missing(name))?;
        let explained = Box::pin(self.desk.explain(&call, seen.view)).await;
        Ok(Response::new(explained))
    }
}

impl Rpc {
    /// What wakes a call that waits for a version; nothing for one that takes what there is.
    fn watchers_of(&self, wanted: u64, name: &str) -> Option<watch::Receiver<u64>> {
        (wanted > 0).then(|| self.watchers.subscribe(name))
    }
}

/// One caller watching one order. Changes that come faster than the caller takes them are told as one.
struct Watching {
    rpc: Rpc,
    call: Call,
    name: String,
    /// The version the caller has seen.
    after: u64,
    /// The view as it was found, until it is told.
    first: Option<Seen>,
    told: bool,
    ended: bool,
    changed: watch::Receiver<u64>,
    _seat: OwnedSemaphorePermit,
}

impl Watching {
    async fn next(mut self) -> Result<Option<(proto::WatchOrderResponse, Self)>, Status> {
        while !self.ended {
            let seen = match self.first.take() {
                Some(first) => Some(first),
                None => self.rpc.seen(&self.call, &self.name).await?,
            };
            let Some(seen) = seen else { return Ok(None) };
            self.ended = seen.state.is_final();
            if seen.version > self.after {
                self.after = seen.version;
                let event_type = if self.told { seen.last_event } else { String::new() };
                self.told = true;
                return Ok(Some((proto::WatchOrderResponse { order: Some(seen.view), event_type }, self)));
            }
            if self.ended {
                break;
            }
            let shutdown = self.rpc.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => break,
                moved = self.changed.changed() => if moved.is_err() { break },
            }
        }
        Ok(None)
    }
}

/// Where a list continues: (time, name).
fn place(cursor: &str) -> Option<(Timestamp, String)> {
    let (micros, name) = cursor.split_once('\n')?;
    Some((Timestamp::from_microsecond(micros.parse().ok()?).ok()?, name.to_owned()))
}
