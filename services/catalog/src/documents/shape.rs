//! What a product looks like as a document.
//!
//! A document carries everything that its last writes have not yet told others: events and answers. So one write of one
//! document is a whole transaction: the product, what happened to it, and what the caller was told.

use std::collections::BTreeMap;

use contract::{Currency, EventSet as _, Money, Table};
use contracts::catalog::v1 as proto;
use jiff::Timestamp;
use log::{Meta, Refusal, Request};
use mongodb::bson::{Binary, spec::BinarySubtype};
use serde::{Deserialize, Serialize};
use store::Error;

use crate::product::{Choice, Product, State, Variant};
use crate::store::Stored;
use crate::wire;

/// A product, or the place of one that never was: somebody asked for it in vain, or it was kept from being created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Document {
    /// `products/{product}`.
    #[serde(rename = "_id")]
    pub(super) name: String,
    /// The version of its stream; 0 for a product that never was.
    pub(super) version: i64,
    /// Another one after every write of the document, whatever it writes: what a write is guarded by.
    pub(super) guard: String,
    /// Microseconds since 1970.
    pub(super) create_time: i64,
    /// Microseconds since 1970; never less than it was.
    pub(super) update_time: i64,
    pub(super) product: Option<Shape>,
    /// Whether there is something unsent.
    pub(super) unsent: bool,
    pub(super) events: Vec<Unsent>,
    pub(super) answers: Vec<Answered>,
}

/// An event that the log does not have yet, or whose document does not know that it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Unsent {
    pub(super) version: i64,
    name: String,
    schema: u32,
    payload: Binary,
    causation: String,
    correlation: String,
    traceparent: String,
    pub(super) time: i64,
}

/// An answer that is not yet where all of them are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answered {
    principal: String,
    method: String,
    key: String,
    fingerprint: Binary,
    pub(super) time: i64,
    /// The status of a refusal; 0 for a reply.
    code: i32,
    message: String,
    body: Binary,
}

/// See [`Product`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Shape {
    title: String,
    description: String,
    brand: String,
    categories: Vec<String>,
    variants: Vec<VariantShape>,
    stocked: bool,
    state: String,
    image_uri: String,
    /// A list, for a name may have characters that the name of a field may not.
    attributes: Vec<Fact>,
    external_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct VariantShape {
    id: String,
    sku: String,
    title: String,
    options: Vec<Fact>,
    prices: Vec<Price>,
    list_prices: Vec<Price>,
    stocked: bool,
    weight_grams: i32,
    tax_basis_points: i32,
    image_uri: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Fact {
    name: String,
    value: String,
}

/// Amounts are whole minor units: no decimal type is involved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    currency: String,
    amount_minor: i64,
}

impl Document {
    /// The place of a product that does not exist.
    pub(super) fn vacant(name: &str, now: Timestamp) -> Self {
        let time = now.as_microsecond();
        Self {
            name: name.to_owned(),
            version: 0,
            guard: fresh_guard(),
            create_time: time,
            update_time: time,
            product: None,
            unsent: false,
            events: vec![],
            answers: vec![],
        }
    }

    /// The same document to be written over the one that is there.
    pub(super) fn successor(current: Option<&Self>, name: &str, now: Timestamp) -> Self {
        match current {
            None => Self::vacant(name, now),
            Some(current) => Self {
                guard: fresh_guard(),
                update_time: current.update_time.max(now.as_microsecond()),
                ..current.clone()
            },
        }
    }

    /// Makes it the product after an event.
    pub(super) fn advance(&mut self, event: &proto::Event, product: &Product, meta: &Meta) {
        if self.version == 0 {
            self.create_time = self.update_time;
        }
        self.version += 1;
        self.product = Some(Shape::of(product));
        self.events.push(Unsent {
            version: self.version,
            name: event.name().to_owned(),
            schema: event.schema(),
            payload: binary(event.encode()),
            causation: meta.causation.clone(),
            correlation: meta.correlation.clone(),
            traceparent: meta.traceparent.clone(),
            time: self.update_time,
        });
        self.unsent = true;
    }

    /// Adds what a request is answered with.
    pub(super) fn answer(&mut self, request: &Request, answer: Result<Vec<u8>, Refusal>) {
        let (code, message, body) = match answer {
            Ok(reply) => (0, String::new(), reply),
            Err(refusal) => (refusal.code, refusal.message, refusal.details),
        };
        self.answers.push(Answered {
            principal: request.principal.clone(),
            method: request.method.to_owned(),
            key: request.key.clone(),
            fingerprint: binary(request.fingerprint.to_vec()),
            time: self.update_time,
            code,
            message,
            body: binary(body),
        });
        self.unsent = true;
    }

    /// What a request was answered with, as far as this document still says so.
    pub(super) fn answered(&self, request: &Request) -> Option<Result<Vec<u8>, Refusal>> {
        let same = |answer: &&Answered| {
            answer.principal == request.principal && answer.method == request.method && answer.key == request.key
        };
        self.answers.iter().find(same).map(Answered::answer)
    }

    /// Whether a variant has this SKU.
    pub(super) fn has(&self, sku: &str) -> bool {
        self.product.iter().flat_map(|product| &product.variants).any(|variant| variant.sku == sku)
    }

    /// The product; nothing if it never was.
    pub(super) fn stored(&self) -> Result<Option<Stored>, Error> {
        let Some(shape) = &self.product else { return Ok(None) };
        let unsound = || Error::Mismatch {
            column: "product".to_owned(),
            expected: "a product",
            found: format!("something else in {}", self.name),
        };
        Ok(Some(Stored {
            name: self.name.clone(),
            version: u64::try_from(self.version).map_err(|_| unsound())?,
            create_time: time(self.create_time)?,
            update_time: time(self.update_time)?,
            product: shape.product().ok_or_else(unsound)?,
        }))
    }
}

impl Unsent {
    /// The event.
    pub(super) fn event(&self, stream: &str) -> Result<proto::Event, log::Error> {
        proto::Event::decode(&self.name, self.schema, &self.payload.bytes).map_err(|source| log::Error::Decode {
            stream: stream.to_owned(),
            version: self.version.unsigned_abs(),
            source,
        })
    }

    /// Its circumstances.
    pub(super) fn meta(&self) -> Meta {
        Meta {
            causation: self.causation.clone(),
            correlation: self.correlation.clone(),
            traceparent: self.traceparent.clone(),
        }
    }
}

impl Answered {
    /// The request. A method that this binary does not know is one of a newer binary, which will take care of its answer.
    pub(super) fn request(&self) -> Result<Request, Error> {
        let unknown = || Error::Mismatch {
            column: "answers".to_owned(),
            expected: "a request to this service",
            found: format!("one to {}", self.method),
        };
        let method = Table(proto::METHODS).by_path(&self.method).ok_or_else(unknown)?;
        Ok(Request {
            principal: self.principal.clone(),
            method: method.path,
            key: self.key.clone(),
            fingerprint: self.fingerprint.bytes.as_slice().try_into().map_err(|_| unknown())?,
        })
    }

    pub(super) fn answer(&self) -> Result<Vec<u8>, Refusal> {
        let body = self.body.bytes.clone();
        if self.code == 0 {
            return Ok(body);
        }
        Err(Refusal { code: self.code, message: self.message.clone(), details: body })
    }
}

impl Shape {
    fn of(product: &Product) -> Self {
        let facts = product.attributes.iter();
        Self {
            title: product.title.clone(),
            description: product.description.clone(),
            brand: product.brand.clone(),
            categories: product.categories.clone(),
            variants: product.variants.iter().map(VariantShape::of).collect(),
            stocked: product.stocked,
            state: wire::state_text(product.state).to_owned(),
            image_uri: product.image_uri.clone(),
            attributes: facts.map(|(name, value)| Fact { name: name.clone(), value: value.clone() }).collect(),
            external_id: product.external_id.clone(),
        }
    }

    fn product(&self) -> Option<Product> {
        let state =
            [State::Active, State::Archived].into_iter().find(|state| wire::state_text(*state) == self.state)?;
        let facts: BTreeMap<_, _> =
            self.attributes.iter().map(|fact| (fact.name.clone(), fact.value.clone())).collect();
        Some(Product {
            title: self.title.clone(),
            description: self.description.clone(),
            brand: self.brand.clone(),
            categories: self.categories.clone(),
            variants: self.variants.iter().map(VariantShape::variant).collect::<Option<_>>()?,
            stocked: self.stocked,
            state,
            image_uri: self.image_uri.clone(),
            attributes: facts,
            external_id: self.external_id.clone(),
        })
    }
}

impl VariantShape {
    fn of(variant: &Variant) -> Self {
        let fact = |choice: &Choice| Fact { name: choice.name.clone(), value: choice.value.clone() };
        let prices = |prices: &[Money]| {
            let price = |price: &Money| Price { currency: price.currency.to_string(), amount_minor: price.minor };
            prices.iter().map(price).collect()
        };
        Self {
            id: variant.id.clone(),
            sku: variant.sku.clone(),
            title: variant.title.clone(),
            options: variant.options.iter().map(fact).collect(),
            prices: prices(&variant.prices),
            list_prices: prices(&variant.list_prices),
            stocked: variant.stocked,
            weight_grams: variant.weight_grams,
            tax_basis_points: variant.tax_basis_points,
            image_uri: variant.image_uri.clone(),
        }
    }

    fn variant(&self) -> Option<Variant> {
        let choice = |fact: &Fact| Choice { name: fact.name.clone(), value: fact.value.clone() };
        let prices = |prices: &[Price]| -> Option<Vec<Money>> {
            let money = |price: &Price| Some(Money::new(price.currency.parse::<Currency>().ok()?, price.amount_minor));
            prices.iter().map(money).collect()
        };
        Some(Variant {
            id: self.id.clone(),
            sku: self.sku.clone(),
            title: self.title.clone(),
            options: self.options.iter().map(choice).collect(),
            prices: prices(&self.prices)?,
            list_prices: prices(&self.list_prices)?,
            stocked: self.stocked,
            weight_grams: self.weight_grams,
            tax_basis_points: self.tax_basis_points,
            image_uri: self.image_uri.clone(),
        })
    }
}

/// What no write has used before.
pub(super) fn fresh_guard() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The time of so many microseconds.
pub(super) fn time(microseconds: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(microseconds).map_err(|error| Error::Mismatch {
        column: "time".to_owned(),
        expected: "microseconds since 1970",
        found: error.to_string(),
    })
}

fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}
