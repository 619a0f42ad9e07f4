//! The handlers: who is meant, whether it may be done, what came of it.

use std::sync::Arc;
use std::time::Instant;

use bus::Consumer;
use contracts::operations::v1::operations_service_server::OperationsService;
use contracts::operations::v1::{self as proto, SagaPhase};
use contracts::wkt;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use log::Rebuilt;
use log::trail::Wanted;
use saga::History;
use server::{Call, status};
use store::Tx;
use tonic::{Request, Response, Status};

use crate::letters::{self, Place};
use crate::sagas::{Sagas, Seen};
use crate::{Derived, Desk, kept, reading, wire};

/// The handlers. A cheap handle.
#[derive(Clone)]
pub(crate) struct Rpc {
    desk: Arc<Desk>,
}

const DEFAULT_PAGE: i32 = 50;

impl Rpc {
    pub(crate) fn new(desk: Desk) -> Self {
        Self { desk: Arc::new(desk) }
    }

    /// What it answers from.
    pub(crate) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// What a name says behind `services/{service}/{collection}/`; another service's things do not exist here.
    fn id<'a>(&self, name: &'a str, collection: &str) -> Result<&'a str, Status> {
        let mut parts = name.splitn(4, '/');
        let here = parts.next() == Some("services")
            && parts.next() == Some(self.desk.service)
            && parts.next() == Some(collection);
        parts.next().filter(|_| here).ok_or_else(|| status::not_found(name))
    }

    fn check_parent(&self, parent: &str) -> Result<(), Status> {
        match parent.strip_prefix("services/") {
            Some(service) if service == self.desk.service => Ok(()),
            _ => Err(status::not_found(parent)),
        }
    }

    async fn saga(&self, name: &str) -> Result<(Arc<dyn Sagas>, Seen, Vec<History>), Status> {
        let id = self.id(name, "sagas")?;
        let sagas = self.desk.sagas.clone().ok_or_else(|| status::not_found(name))?;
        let found = sagas.get(id.to_owned()).await.map_err(|error| status::of_store(&error))?;
        let (seen, history) = found.ok_or_else(|| status::not_found(name))?;
        Ok((sagas, seen, history))
    }

    fn shown(&self, (seen, history): (Seen, Vec<History>)) -> proto::Saga {
        wire::saga(self.desk.service, seen, history)
    }

    /// A change to a saga: looked at, claimed, made, told.
    async fn move_saga(&self, asked: Move) -> Result<proto::Saga, Status> {
        let (sagas, seen, history) = self.saga(&asked.name).await?;
        let id = seen.row.id.clone();
        let allowed = match &asked.to {
            To::Retry => seen.row.phase.is_open() || seen.row.phase == saga::Phase::Stuck,
            To::Undo(_) => seen.can_turn || seen.row.phase == saga::Phase::Compensating,
        };
        if !allowed {
            let message = format!("{} is {}: it cannot be moved that way", asked.name, seen.row.phase.as_str());
            return Err(status::failed_precondition("WRONG_STATE", message, [("resource", asked.name)]));
        }
        if asked.validate_only {
            return Ok(self.shown((seen, history)));
        }
        self.claim(asked.request).await?;
        let (moved, reason) = match asked.to {
            To::Retry => (sagas.nudge(id).await, String::new()),
            To::Undo(reason) => (sagas.turn(id, reason.clone()).await, reason),
        };
        let moved = moved.map_err(|error| status::of_store(&error))?;
        asked.call.changed(&asked.name, &reason, if moved { "moved" } else { "already moving" }).await;
        let (_, seen, history) = self.saga(&asked.name).await?;
        Ok(self.shown((seen, history)))
    }

    async fn claim(&self, request: Option<log::Request>) -> Result<(), Status> {
        self.desk.kept.claim(request).await.map_err(|error| status::of_log(&error))
    }

    /// The consumer of that name, or all of them.
    fn consumers(&self, name: &str) -> Result<Vec<&Consumer>, Status> {
        let found: Vec<&Consumer> =
            self.desk.consumers.iter().filter(|it| name.is_empty() || it.name() == name).collect();
        if found.is_empty() && !name.is_empty() {
            return Err(status::not_found(&format!("services/{}/consumers/{name}", self.desk.service)));
        }
        Ok(found)
    }

    /// The derived tables of that name, or all of them for `-`.
    fn derived(&self, name: &str) -> Result<Vec<Arc<dyn Derived>>, Status> {
        let id = self.id(name, "projections")?;
        let found: Vec<_> = self.desk.derived.iter().filter(|it| id == "-" || it.name() == id).cloned().collect();
        if found.is_empty() && id != "-" {
            return Err(status::not_found(name));
        }
        Ok(found)
    }

    async fn projection(&self, derived: &Arc<dyn Derived>) -> Result<proto::Projection, Status> {
        let heads = self.desk.source.heads().await.map_err(|error| status::fault("operations", &error))?;
        let positions = (0..).zip(heads).map(|(shard, head)| proto::ShardPosition {
            shard,
            position: wire::signed(head),
            head: wire::signed(head),
        });
        Ok(proto::Projection {
            name: format!("services/{}/projections/{}", self.desk.service, derived.name()),
            tables: derived.tables().iter().map(|&table| table.to_owned()).collect(),
            positions: positions.collect(),
            row_count: wire::signed(self.rows(&**derived).await?),
        })
    }

    async fn rows(&self, derived: &dyn Derived) -> Result<u64, Status> {
        let tables = derived.tables();
        let counted = derived.elsewhere().unwrap_or(&self.desk.store).read(async move |tx: &mut Tx| {
            let mut rows = 0;
            for table in tables {
                let row = tx.query_opt(&format!("SELECT count(*) AS n FROM {table}"), &[]).await?;
                rows += row.map(|row| row.get::<u64>("n")).transpose()?.unwrap_or(0);
            }
            Ok::<_, store::Error>(rows)
        });
        counted.await.map_err(|error| status::of_store(&error))
    }

    async fn events(&self) -> Result<u64, Status> {
        let heads = self.desk.source.heads().await.map_err(|error| status::fault("operations", &error))?;
        Ok(heads.iter().sum())
    }
}

/// A change to a saga that an operator asks for.
struct Move {
    call: Call,
    request: Option<log::Request>,
    name: String,
    to: To,
    validate_only: bool,
}

enum To {
    Retry,
    Undo(String),
}

#[tonic::async_trait]
impl OperationsService for Rpc {
    async fn list_sagas(
        &self,
        request: Request<proto::ListSagasRequest>,
    ) -> Result<Response<proto::ListSagasResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let Some(sagas) = &self.desk.sagas else {
            return Ok(Response::new(proto::ListSagasResponse::default()));
        };
        let phase = SagaPhase::try_from(asked.phase).unwrap_or(SagaPhase::Unspecified);
        let filter = format!("{}/{}/{}", asked.parent, asked.phase, asked.open_only);
        let after = call.cursor(&filter, &asked.page_token)?;
        let after = after.as_deref().and_then(|cursor| {
            let (moment, id) = cursor.split_once('/')?;
            Some((Timestamp::from_microsecond(moment.parse().ok()?).ok()?, id.to_owned()))
        });
        let size = page(asked.page_size);
        let phases = wire::phases(phase, asked.open_only);
        let found = sagas.list(phases, after, u32::try_from(size + 1).unwrap_or(u32::MAX)).await;
        let mut found = found.map_err(|error| status::of_store(&error))?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more).map(|it| format!("{}/{}", it.row.created.as_microsecond(), it.row.id));
        Ok(Response::new(proto::ListSagasResponse {
            sagas: found.into_iter().map(|seen| self.shown((seen, Vec::new()))).collect(),
            next_page_token: call.page_token(&filter, last.as_deref()),
        }))
    }

    async fn get_saga(&self, request: Request<proto::GetSagaRequest>) -> Result<Response<proto::Saga>, Status> {
        let (_, seen, history) = self.saga(&request.into_inner().name).await?;
        Ok(Response::new(self.shown((seen, history))))
    }

    async fn retry_saga_step(
        &self,
        request: Request<proto::RetrySagaStepRequest>,
    ) -> Result<Response<proto::RetrySagaStepResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        let to = Move {
            request: call.request(&asked, &asked.request_id),
            call: call.clone(),
            name: asked.name,
            to: To::Retry,
            validate_only: asked.validate_only,
        };
        let rpc = self.clone();
        let saga = call.detached(async move { rpc.move_saga(to).await }).await?;
        Ok(Response::new(proto::RetrySagaStepResponse { saga: Some(saga) }))
    }

    async fn force_compensate(
        &self,
        request: Request<proto::ForceCompensateRequest>,
    ) -> Result<Response<proto::ForceCompensateResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        let to = Move {
            request: call.request(&asked, &asked.request_id),
            call: call.clone(),
            name: asked.name,
            to: To::Undo(asked.reason),
            validate_only: asked.validate_only,
        };
        let rpc = self.clone();
        let saga = call.detached(async move { rpc.move_saga(to).await }).await?;
        Ok(Response::new(proto::ForceCompensateResponse { saga: Some(saga) }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<proto::ListDeadLettersRequest>,
    ) -> Result<Response<proto::ListDeadLettersResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let consumers = self.consumers(&asked.consumer)?;
        let filter = format!("{}/{}", asked.parent, asked.consumer);
        let after = call.cursor(&filter, &asked.page_token)?;
        let after = after.as_deref().and_then(Place::decode);
        let size = page(asked.page_size);
        let found = letters::list(&consumers, after.as_ref(), size + 1).await;
        let mut found = found.map_err(|error| status::fault("operations.list_dead_letters", &error))?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more).map(|(consumer, letter)| Place::of(consumer, letter).encode());
        let shown = found.into_iter().map(|(it, letter)| wire::dead_letter(self.desk.service, it.name(), letter));
        Ok(Response::new(proto::ListDeadLettersResponse {
            dead_letters: shown.collect(),
            next_page_token: call.page_token(&filter, last.as_deref()),
        }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<proto::RedriveDeadLettersRequest>,
    ) -> Result<Response<proto::RedriveDeadLettersResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        self.consumers(&asked.consumer)?;
        let (rpc, caller) = (self.clone(), call.clone());
        let reply = caller.detached(async move {
            let failed = |error: bus::Error| status::fault("operations.redrive", &error);
            let mut applied = 0;
            if !asked.validate_only {
                rpc.claim(call.request(&asked, &asked.request_id)).await?;
                for consumer in rpc.consumers(&asked.consumer)? {
                    applied += letters::redrive(consumer, &asked.stream).await.map_err(failed)?.applied;
                }
            }
            let mut parked = 0;
            for consumer in rpc.consumers(&asked.consumer)? {
                parked += letters::count(consumer, &asked.stream).await.map_err(failed)?;
            }
            if !asked.validate_only {
                let outcome = format!("{applied} applied, {parked} parked");
                call.changed(&format!("{}/deadLetters", asked.parent), "", &outcome).await;
            }
            Ok(proto::RedriveDeadLettersResponse { applied_count: count(applied), parked_count: count(parked) })
        });
        Ok(Response::new(reply.await?))
    }

    async fn list_projections(
        &self,
        request: Request<proto::ListProjectionsRequest>,
    ) -> Result<Response<proto::ListProjectionsResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let (slice, next_page_token) =
            slice(&call, &asked.parent, &asked.page_token, asked.page_size, &self.desk.derived)?;
        let mut projections = Vec::new();
        for derived in slice {
            projections.push(self.projection(derived).await?);
        }
        Ok(Response::new(proto::ListProjectionsResponse { projections, next_page_token }))
    }

    async fn rebuild_projection(
        &self,
        request: Request<proto::RebuildProjectionRequest>,
    ) -> Result<Response<proto::RebuildProjectionResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        let derived = self.derived(&asked.name)?;
        let (rpc, caller) = (self.clone(), call.clone());
        let reply = caller.detached(async move {
            let mut reply = proto::RebuildProjectionResponse::default();
            for it in &derived {
                reply.difference_count += wire::signed(it.verify().await?.len() as u64);
            }
            if !asked.validate_only {
                rpc.claim(call.request(&asked, &asked.request_id)).await?;
                let begun = Instant::now();
                for it in &derived {
                    let Rebuilt { events, rows } = it.rebuild(&call.principal()).await?;
                    reply.event_count += wire::signed(events);
                    reply.row_count += wire::signed(rows);
                }
                reply.duration = Some(wkt::Duration::from(begun.elapsed()));
                let outcome = format!("{} rows, {} were other", reply.row_count, reply.difference_count);
                call.changed(&asked.name, "", &outcome).await;
            }
            for it in &derived {
                reply.projections.push(rpc.projection(it).await?);
            }
            Ok(reply)
        });
        Ok(Response::new(reply.await?))
    }

    async fn verify_projection(
        &self,
        request: Request<proto::VerifyProjectionRequest>,
    ) -> Result<Response<proto::VerifyProjectionResponse>, Status> {
        let asked = request.into_inner();
        let mut reply = proto::VerifyProjectionResponse::default();
        for derived in self.derived(&asked.name)? {
            let found = derived.verify().await?;
            reply.difference_count += wire::signed(found.len() as u64);
            reply.differences.extend(found.into_iter().map(wire::difference));
            reply.event_count += wire::signed(self.events().await?);
            reply.row_count += wire::signed(self.rows(&*derived).await?);
        }
        reply.differences.truncate(log::MAX_DIFFERENCES);
        Ok(Response::new(reply))
    }

    async fn list_consumers(
        &self,
        request: Request<proto::ListConsumersRequest>,
    ) -> Result<Response<proto::ListConsumersResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let (slice, next_page_token) =
            slice(&call, &asked.parent, &asked.page_token, asked.page_size, &self.desk.consumers)?;
        let mut consumers = Vec::new();
        for consumer in slice {
            let failed = |error: bus::Error| status::fault("operations.list_consumers", &error);
            let progress = consumer.progress().await.map_err(failed)?;
            let parked = letters::count(consumer, "").await.map_err(failed)?;
            for producer in consumer.producers() {
                let own = || progress.iter().filter(|shard| shard.producer == *producer);
                consumers.push(proto::Consumer {
                    name: format!("services/{}/consumers/{}", self.desk.service, consumer.name()),
                    producer: producer.clone(),
                    positions: own()
                        .map(|at| proto::ShardPosition {
                            shard: at.shard,
                            position: wire::signed(at.position),
                            head: wire::signed(at.head),
                        })
                        .collect(),
                    lag: own().map(|at| wire::signed(at.head.saturating_sub(at.position))).sum(),
                    parked_count: count(parked),
                });
            }
        }
        Ok(Response::new(proto::ListConsumersResponse { consumers, next_page_token }))
    }

    type ReadLogStream = reading::Answers<proto::ReadLogResponse>;

    async fn read_log(&self, request: Request<proto::ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        let ended = Call::of(&request)?.shutdown().clone().cancelled_owned();
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let answers = reading::log(self.desk.source.clone(), &asked);
        if !asked.follow {
            return Ok(Response::new(answers));
        }
        Ok(Response::new(Box::pin(answers.take_until(ended))))
    }

    type ReadStreamStream = reading::Answers<proto::ReadStreamResponse>;

    async fn read_stream(
        &self,
        request: Request<proto::ReadStreamRequest>,
    ) -> Result<Response<Self::ReadStreamStream>, Status> {
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        Ok(Response::new(reading::stream(self.desk.source.clone(), asked)))
    }

    async fn list_answers(
        &self,
        request: Request<proto::ListAnswersRequest>,
    ) -> Result<Response<proto::ListAnswersResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let after = call.cursor(&asked.parent, &asked.page_token)?;
        let after = after.as_deref().and_then(kept::behind_answer).unwrap_or_default();
        let read = kept::answers(self.desk.kept.as_ref(), after, page(asked.page_size)).await;
        let (told, more) = read.map_err(|error| status::of_log(&error))?;
        let last = told.last().filter(|_| more).map(|told| kept::place_of(&told.answer));
        Ok(Response::new(proto::ListAnswersResponse {
            answers: told.into_iter().map(wire::answer).collect(),
            next_page_token: call.page_token(&asked.parent, last.as_deref()),
        }))
    }

    async fn list_inbox(
        &self,
        request: Request<proto::ListInboxRequest>,
    ) -> Result<Response<proto::ListInboxResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let after = call.cursor(&asked.parent, &asked.page_token)?;
        let after = after.as_deref().and_then(kept::behind_row).unwrap_or_default();
        let size = page(asked.page_size);
        let read = self.desk.kept.inbox(after, u32::try_from(size).unwrap_or(u32::MAX)).await;
        let rows = read.map_err(|error| status::of_log(&error))?;
        let last = rows.last().filter(|_| rows.len() == size).map(kept::place_in);
        Ok(Response::new(proto::ListInboxResponse {
            entries: rows.into_iter().map(wire::inbox_entry).collect(),
            next_page_token: call.page_token(&asked.parent, last.as_deref()),
        }))
    }

    async fn list_audit_records(
        &self,
        request: Request<proto::ListAuditRecordsRequest>,
    ) -> Result<Response<proto::ListAuditRecordsResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        self.check_parent(&asked.parent)?;
        let filter = [&asked.parent, &asked.principal, &asked.method, &asked.resource].map(String::as_str).join("\n");
        let filter = format!("{filter}\n{}", asked.verdict);
        let before = call.cursor(&filter, &asked.page_token)?.unwrap_or_default();
        let wanted = Wanted {
            verdict: wire::verdict(asked.verdict()),
            principal: asked.principal,
            method: asked.method,
            resource: asked.resource,
        };
        let size = page(asked.page_size);
        let read = self.desk.kept.trail(wanted, before, u32::try_from(size + 1).unwrap_or(u32::MAX)).await;
        let mut records = read.map_err(|error| status::of_log(&error))?;
        let more = records.len() > size;
        records.truncate(size);
        let last = records.last().filter(|_| more).map(|record| record.id.clone());
        let shown = records.into_iter().map(|record| wire::audit_record(self.desk.service, record));
        Ok(Response::new(proto::ListAuditRecordsResponse {
            audit_records: shown.collect(),
            next_page_token: call.page_token(&filter, last.as_deref()),
        }))
    }
}

/// A page of a list that is short and does not change: the cursor is how many were seen.
fn slice<'a, T>(
    call: &Call,
    filter: &str,
    token: &str,
    page_size: i32,
    all: &'a [T],
) -> Result<(&'a [T], String), Status> {
    let seen: usize = call.cursor(filter, token)?.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let rest = all.get(seen..).unwrap_or_default();
    let shown = rest.get(..page(page_size)).unwrap_or(rest);
    let next = (shown.len() < rest.len()).then(|| (seen + shown.len()).to_string());
    Ok((shown, call.page_token(filter, next.as_deref())))
}

fn page(size: i32) -> usize {
    usize::try_from(if size == 0 { DEFAULT_PAGE } else { size }).unwrap_or(0)
}

fn count(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
