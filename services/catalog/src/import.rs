//! Imports: a stream of products, written batch by batch.
//!
//! Each batch is one transaction where the engine has any, so an import that breaks off has stored whole batches there, and
//! whole products elsewhere; the same stream again changes nothing of them. A product that is refused is counted and stops
//! no other.

use std::sync::Arc;

use contracts::catalog::v1 as proto;
use server::{Call, status};
use tonic::{Status, Streaming};

use crate::error::Error;
use crate::product::{self, Command, Draft, Event, Problem, Rejection};
use crate::products::{Products, Shelf};
use crate::store::Stored;
use crate::{rpc, wire};

/// Refusals that an answer lists.
const MOST_FAILURES: usize = 1000;

/// One product of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its place in the stream, from 1.
    pub(crate) number: i64,
    /// The name it came with, or nothing.
    pub(crate) name: String,
    pub(crate) draft: Result<Draft, Vec<Problem>>,
}

/// Writes what comes until the stream ends.
pub(crate) async fn run(
    products: &Arc<dyn Products>,
    call: &Call,
    mut stream: Streaming<proto::ImportProductsRequest>,
    batch_size: usize,
) -> Result<proto::ImportProductsResponse, Status> {
    let mut reply = proto::ImportProductsResponse::default();
    let mut batch = Vec::with_capacity(batch_size);
    loop {
        let next = stream.message().await;
        if let Ok(Some(request)) = &next {
            reply.received_count += 1;
            batch.push(line(reply.received_count, request.product.as_ref())?);
        }
        let ends = !matches!(next, Ok(Some(_)));
        if batch.len() >= batch_size || (ends && !batch.is_empty()) {
            let lines = std::mem::replace(&mut batch, Vec::with_capacity(batch_size));
            add(&mut reply, write(products, call, lines).await?);
        }
        match next {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(reply),
            // What came before is stored; whoever sends it again finds it unchanged.
            Err(broken) => return Err(broken),
        }
    }
}

fn line(number: i64, product: Option<&proto::Product>) -> Result<Line, Status> {
    let product = product.ok_or_else(|| status::invalid_argument("product", "must be set"))?;
    let named = product.name.is_empty() || wire::is_product_name(&product.name);
    let draft = if named {
        wire::draft(product)
    } else {
        Err(vec![Problem { field: "name".to_owned(), text: "is no name of a product".to_owned() }])
    };
    Ok(Line { number, name: product.name.clone(), draft })
}

async fn write(
    products: &Arc<dyn Products>,
    call: &Call,
    lines: Vec<Line>,
) -> Result<proto::ImportProductsResponse, Status> {
    let (products, author) = (Arc::clone(products), rpc::author(call));
    call.detached(async move { Ok(products.import(author, lines).await?) }).await
}

/// Creates or replaces one product. Everything is decided before anything is written, so a refusal leaves no trace.
pub(crate) async fn replace(shelf: &mut impl Shelf, line: &Line) -> Result<Option<Event>, Error> {
    let reject = |rejection| Error::Rejected { name: line.name.clone(), rejection };
    let draft = line.draft.as_ref().map_err(|problems| reject(Rejection::Invalid(problems.clone())))?;
    let (name, current) = target(shelf, &line.name, draft).await?;
    let command = Command::Replace(draft.clone());
    let skus: Vec<&str> = command.skus().collect();
    let taken = shelf.taken(&name, &skus).await?;
    let decided = product::decide(current.as_ref().map(|stored| &stored.product), &command, &taken).map_err(reject)?;
    if let Some(event) = &decided {
        shelf.put(&name, current.map_or(0, |stored| stored.version), event).await?;
    }
    Ok(decided)
}

/// Which product a line is about: the one it names, the one that has its first SKU, or a new one.
async fn target(shelf: &mut impl Shelf, name: &str, draft: &Draft) -> Result<(String, Option<Stored>), Error> {
    if !name.is_empty() {
        return Ok((name.to_owned(), shelf.get(name).await?));
    }
    let sku = draft.variants.first().map(|variant| variant.sku.as_str()).unwrap_or_default();
    if let Some(stored) = shelf.get_by_sku(sku).await? {
        return Ok((stored.name.clone(), Some(stored)));
    }
    // The SKU makes the better name; it is only taken when that product has given the SKU up.
    let readable = format!("products/{}", product::id_of_sku(sku));
    if shelf.get(&readable).await?.is_none() {
        return Ok((readable, None));
    }
    Ok((format!("products/{}", uuid::Uuid::now_v7()), None))
}

/// Counts what became of a line; a fault is the whole batch's.
pub(crate) fn count(
    reply: &mut proto::ImportProductsResponse,
    line: &Line,
    outcome: Result<Option<Event>, Error>,
) -> Result<(), Error> {
    match outcome {
        Ok(Some(Event::Created(_))) => reply.created_count += 1,
        Ok(Some(Event::Updated { .. })) => reply.updated_count += 1,
        Ok(None) => reply.unchanged_count += 1,
        Err(Error::Rejected { rejection, .. }) => refuse(reply, line.number, &rejection),
        Err(fault) => return Err(fault),
    }
    Ok(())
}

fn refuse(reply: &mut proto::ImportProductsResponse, line: i64, rejection: &Rejection) {
    let reason = match rejection {
        Rejection::SkuTaken { .. } => "SKU_TAKEN",
        Rejection::Invalid(_) => "INVALID_FIELD",
        Rejection::Exists => "PRODUCT_EXISTS",
        Rejection::Missing => "NOT_FOUND",
    };
    reply.failed_count += 1;
    if reply.failures.len() < MOST_FAILURES {
        let (reason, message) = (reason.to_owned(), rejection.to_string());
        reply.failures.push(proto::ImportFailure { line, reason, message });
    }
}

fn add(reply: &mut proto::ImportProductsResponse, batch: proto::ImportProductsResponse) {
    reply.created_count += batch.created_count;
    reply.updated_count += batch.updated_count;
    reply.unchanged_count += batch.unchanged_count;
    reply.failed_count += batch.failed_count;
    let room = MOST_FAILURES.saturating_sub(reply.failures.len());
    reply.failures.extend(batch.failures.into_iter().take(room));
}
