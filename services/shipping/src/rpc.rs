//! From wire to command to log and back. Nothing is decided here.

use std::sync::Arc;

use contract::{Currency, Money};
use contracts::shipping::v1 as proto;
use contracts::shipping::v1::shipping_service_server::ShippingService;
use jiff::Timestamp;
use log::Log;
use server::{Call, status};
use store::{Site, Tx, site};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::rates::Table;
use crate::shipment::{Command, Rejection, Shipment};
use crate::{filter, store as rows, wire};

const DEFAULT_PAGE: u32 = 50;

/// The handlers. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) log: Log<proto::Event>,
    pub(crate) rates: Arc<Table>,
}

/// A change of one shipment: which, as seen at which version (any if empty), and what is asked of it as it stands.
struct Change<M> {
    site: &'static Site,
    request: Option<log::Request>,
    name: String,
    etag: String,
    make: M,
}

impl Rpc {
    /// One command to one shipment, answered with the shipment as it then is.
    async fn change<M>(&self, call: &Call, change: Change<M>) -> Result<Option<proto::Shipment>, Status>
    where
        M: Fn(&Shipment) -> Command + Send + Sync + 'static,
    {
        let (log, meta) = (self.log.clone(), call.meta());
        call.detached(async move {
            let Change { site, request, name, etag, make } = change;
            let (opened, shipment) = (log.clone(), name.clone());
            let mut reply: proto::Shipment = log
                .clone()
                .once(site, request, async move |tx: &mut Tx| {
                    let reject = |rejection| Error::Rejected { name: name.clone(), rejection };
                    let Loaded { mut state, mut version } = load(&log, tx, &name).await?;
                    if version > 0 && !etag.is_empty() && etag != version.to_string() {
                        return Err(Error::Stale(name.clone()));
                    }
                    let events = state.decide(&make(&state)).map_err(reject)?;
                    if !events.is_empty() {
                        state = events.iter().fold(state, Shipment::evolve);
                        let stored =
                            events.iter().map(|event| wire::to_stored(&name, &state.plan.order, event)).collect();
                        let customer = Some(state.plan.customer.as_str()).filter(|customer| !customer.is_empty());
                        version = log.append(tx, &name, version, &meta, customer, stored).await?;
                    }
                    let stored = rows::get(tx, &name).await?.ok_or_else(|| reject(Rejection::Missing))?;
                    // An answer is kept as it is, and an address must not outlive its receiver's key in it.
                    Ok::<_, Error>(proto::Shipment { address: None, ..wire::shipment(version, &state, &stored) })
                })
                .await?;
            // A parcel goes to one address from its first event on, so a repeated answer is the same.
            let store = opened.store().clone();
            let loaded = store.read(async move |tx: &mut Tx| load(&opened, tx, &shipment).await).await?;
            reply.address = wire::address_of(&loaded.state);
            Ok(Some(reply))
        })
        .await
    }
}

/// A shipment and its stream's version.
struct Loaded {
    state: Shipment,
    version: u64,
}

/// Folds a shipment's stream.
async fn load(log: &Log<proto::Event>, tx: &mut Tx, name: &str) -> Result<Loaded, Error> {
    tx.take_stream(name).await?;
    let entries = log.load(tx, name).await?;
    let version = entries.last().map_or(0, |entry| entry.at.version);
    let events = entries.iter().filter_map(|entry| wire::from_stored(&entry.event));
    let state = events.fold(Shipment::default(), |state, event| state.evolve(&event));
    Ok(Loaded { state, version })
}

#[tonic::async_trait]
impl ShippingService for Rpc {
    async fn quote_rates(
        &self,
        request: Request<proto::QuoteRatesRequest>,
    ) -> Result<Response<proto::QuoteRatesResponse>, Status> {
        let quote = request.into_inner();
        let field = "currency_code";
        let currency: Currency =
            quote.currency_code.parse().map_err(|_| status::invalid_argument(field, "is no currency"))?;
        let worth = match &quote.subtotal {
            None => None,
            Some(subtotal) => {
                let worth = Money::try_from(subtotal)
                    .map_err(|error| status::invalid_argument("subtotal", error.to_string()))?;
                if worth.currency != currency {
                    return Err(status::invalid_argument("subtotal.currency_code", "differs from currency_code"));
                }
                Some(worth.minor)
            }
        };
        let rates = self
            .rates
            .quote(&quote.country_code, quote.weight_grams, currency, worth)
            .map_err(|error| status::invalid_argument(field, error.to_string()))?;
        let tax = self.rates.tax_basis_points;
        let rates = rates.iter().map(|rate| wire::rate(rate, tax)).collect();
        Ok(Response::new(proto::QuoteRatesResponse { rates }))
    }

    async fn create_shipment(
        &self,
        request: Request<proto::CreateShipmentRequest>,
    ) -> Result<Response<proto::Shipment>, Status> {
        let call = Call::of(&request)?;
        let create = request.into_inner();
        let key = call.request(&create, &create.request_id);
        let shipment = create.shipment.unwrap_or_default();
        for (field, value) in [
            ("shipment.name", &shipment.name),
            ("shipment.order", &shipment.order),
            ("shipment.customer", &shipment.customer),
        ] {
            if value.is_empty() {
                return Err(status::invalid_argument(field, "is required"));
            }
        }
        let plan = wire::plan(&shipment);
        let change = Change {
            site: site!("shipping.create_shipment"),
            request: key,
            name: shipment.name,
            etag: String::new(),
            make: move |_: &Shipment| Command::Create(Box::new(plan.clone())),
        };
        let created = self.change(&call, change).await?;
        Ok(Response::new(created.unwrap_or_default()))
    }

    async fn get_shipment(
        &self,
        request: Request<proto::GetShipmentRequest>,
    ) -> Result<Response<proto::Shipment>, Status> {
        let call = Call::of(&request)?;
        let name = request.into_inner().name;
        let log = self.log.clone();
        let found = self
            .log
            .store()
            .read({
                let name = name.clone();
                async move |tx: &mut Tx| {
                    let Some(stored) = rows::get(tx, &name).await? else { return Ok(None) };
                    if !call.owns(&stored.customer) {
                        return Ok(None);
                    }
                    let Loaded { state, version } = load(&log, tx, &name).await?;
                    Ok::<_, Error>(Some(wire::shipment(version, &state, &stored)))
                }
            })
            .await?;
        found.map(Response::new).ok_or_else(|| status::not_found(&name))
    }

    async fn list_shipments(
        &self,
        request: Request<proto::ListShipmentsRequest>,
    ) -> Result<Response<proto::ListShipmentsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let filter = filter::parse(&list.filter).map_err(|problem| status::invalid_argument("filter", problem))?;
        let state = if filter.state.is_empty() { Some("") } else { wire::state_text_of(&filter.state) };
        let state =
            state.ok_or_else(|| status::invalid_argument("filter", format!("has no state {:?}", filter.state)))?;
        let customer = if call.is_privileged() { String::new() } else { call.require_subject()?.id.clone() };
        let wanted = rows::Wanted { order: filter.order, state, customer };
        let bound = format!("{}\n{}", wanted.order, wanted.state);
        let after = call.cursor(&bound, &list.page_token)?.and_then(|cursor| place(&cursor));
        let limit = page_size(list.page_size);
        let log = self.log.clone();
        let mut found = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                let after = after.as_ref().map(|(time, name)| (*time, name.as_str()));
                let mut found = vec![];
                for stored in rows::list(tx, &wanted, after, limit + 1).await? {
                    let Loaded { state, version } = load(&log, tx, &stored.name).await?;
                    let cursor = format!("{}\n{}", stored.create_time.as_microsecond(), stored.name);
                    found.push((cursor, wire::shipment(version, &state, &stored)));
                }
                Ok::<_, Error>(found)
            })
            .await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let cursor = found.last().filter(|_| more).map(|(cursor, _)| cursor.clone());
        Ok(Response::new(proto::ListShipmentsResponse {
            shipments: found.into_iter().map(|(_, shipment)| shipment).collect(),
            next_page_token: call.page_token(&bound, cursor.as_deref()),
        }))
    }

    async fn pack_shipment(
        &self,
        request: Request<proto::PackShipmentRequest>,
    ) -> Result<Response<proto::PackShipmentResponse>, Status> {
        let call = Call::of(&request)?;
        let pack = request.into_inner();
        let actor = actor(&call);
        let change = Change {
            site: site!("shipping.pack_shipment"),
            request: call.request(&pack, &pack.request_id),
            name: pack.name,
            etag: pack.etag,
            make: move |_: &Shipment| Command::Pack { actor: actor.clone() },
        };
        let shipment = self.change(&call, change).await?;
        Ok(Response::new(proto::PackShipmentResponse { shipment }))
    }

    async fn release_shipment(
        &self,
        request: Request<proto::ReleaseShipmentRequest>,
    ) -> Result<Response<proto::ReleaseShipmentResponse>, Status> {
        let call = Call::of(&request)?;
        let release = request.into_inner();
        let change = Change {
            site: site!("shipping.release_shipment"),
            request: call.request(&release, &release.request_id),
            name: release.name,
            etag: String::new(),
            make: |_: &Shipment| Command::Release,
        };
        let shipment = self.change(&call, change).await?;
        Ok(Response::new(proto::ReleaseShipmentResponse { shipment }))
    }

    async fn dispatch_shipment(
        &self,
        request: Request<proto::DispatchShipmentRequest>,
    ) -> Result<Response<proto::DispatchShipmentResponse>, Status> {
        let call = Call::of(&request)?;
        let dispatch = request.into_inner();
        let key = call.request(&dispatch, &dispatch.request_id);
        let (actor, rates) = (actor(&call), Arc::clone(&self.rates));
        let proto::DispatchShipmentRequest { name, carrier, tracking_number, etag, .. } = dispatch;
        let make = move |shipment: &Shipment| {
            let planned = || rates.carrier(&shipment.plan.shipping_service).to_owned();
            Command::Dispatch {
                carrier: if carrier.is_empty() { planned() } else { carrier.clone() },
                tracking_number: tracking_number.clone(),
                actor: actor.clone(),
            }
        };
        let change = Change { site: site!("shipping.dispatch_shipment"), request: key, name, etag, make };
        let shipment = self.change(&call, change).await?;
        Ok(Response::new(proto::DispatchShipmentResponse { shipment }))
    }

    async fn record_tracking(
        &self,
        request: Request<proto::RecordTrackingRequest>,
    ) -> Result<Response<proto::RecordTrackingResponse>, Status> {
        let call = Call::of(&request)?;
        let said = request.into_inner();
        let status = wire::tracking(said.status());
        let status = status.ok_or_else(|| status::invalid_argument("status", "is not known"))?;
        let actor = actor(&call);
        let change = Change {
            site: site!("shipping.record_tracking"),
            request: call.request(&said, &said.request_id),
            name: said.name,
            etag: String::new(),
            make: move |_: &Shipment| Command::Track { status, note: said.note.clone(), actor: actor.clone() },
        };
        let shipment = self.change(&call, change).await?;
        Ok(Response::new(proto::RecordTrackingResponse { shipment }))
    }

    async fn cancel_shipment(
        &self,
        request: Request<proto::CancelShipmentRequest>,
    ) -> Result<Response<proto::CancelShipmentResponse>, Status> {
        let call = Call::of(&request)?;
        let cancel = request.into_inner();
        let change = Change {
            site: site!("shipping.cancel_shipment"),
            request: call.request(&cancel, &cancel.request_id),
            name: cancel.name,
            etag: String::new(),
            make: move |_: &Shipment| Command::Cancel { order: cancel.order.clone(), reason: cancel.reason.clone() },
        };
        let shipment = self.change(&call, change).await?;
        Ok(Response::new(proto::CancelShipmentResponse { shipment }))
    }
}

/// Who says so: the person a call is made for.
fn actor(call: &Call) -> String {
    call.subject().map(|subject| subject.id.clone()).unwrap_or_default()
}

fn page_size(asked: i32) -> u32 {
    u32::try_from(asked).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE)
}

/// Where a list continues: (time, name).
fn place(cursor: &str) -> Option<(Timestamp, String)> {
    let (micros, name) = cursor.split_once('\n')?;
    Some((Timestamp::from_microsecond(micros.parse().ok()?).ok()?, name.to_owned()))
}
