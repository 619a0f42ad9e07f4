//! Between contract messages and the domain: the only file that sees both.

use contract::Money;
use contracts::catalog::v1 as proto;
use contracts::google::r#type::Money as WireMoney;
use prost::Message as _;
use store::Error;

use crate::product::{Choice, Command, Draft, Event, Field, Problem, Product, State, Variant, VariantDraft, price_in};
use crate::store::Stored;

/// What a caller says about a product, or what of it means nothing.
pub(crate) fn draft(product: &proto::Product) -> Result<Draft, Vec<Problem>> {
    let mut problems = vec![];
    let mut variants = Vec::with_capacity(product.variants.len());
    for (index, variant) in product.variants.iter().enumerate() {
        variants.push(variant_draft(product, variant, &format!("variants[{index}]"), &mut problems));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Draft {
        title: product.title.clone(),
        description: product.description.clone(),
        brand: product.brand.clone(),
        categories: product.categories.clone(),
        variants,
        stocked: product.stocked,
        state: match product.state() {
            proto::ProductState::Unspecified => None,
            proto::ProductState::Active => Some(State::Active),
            proto::ProductState::Archived => Some(State::Archived),
        },
        image_uri: product.image_uri.clone(),
        attributes: product.attributes.clone(),
        external_id: product.external_id.clone(),
    })
}

fn variant_draft(
    product: &proto::Product,
    variant: &proto::Variant,
    path: &str,
    problems: &mut Vec<Problem>,
) -> VariantDraft {
    let mut moneys = |field: &str, from: &[WireMoney]| {
        let mut moneys = Vec::with_capacity(from.len());
        for (index, money) in from.iter().enumerate() {
            match Money::try_from(money) {
                Ok(money) => moneys.push(money),
                Err(error) => {
                    problems.push(Problem { field: format!("{path}.{field}[{index}]"), text: error.to_string() });
                }
            }
        }
        moneys
    };
    let (prices, list_prices) = (moneys("prices", &variant.prices), moneys("list_prices", &variant.list_prices));
    let mut id = String::new();
    if !variant.name.is_empty() {
        match variant_parts(&variant.name) {
            Some((owner, said)) if product.name.is_empty() || owner == product.name => said.clone_into(&mut id),
            Some(_) | None => {
                let text = "must be the product's name, /variants/ and an id".to_owned();
                problems.push(Problem { field: format!("{path}.name"), text });
            }
        }
    }
    let choice = |option: &proto::VariantOption| Choice { name: option.name.clone(), value: option.value.clone() };
    VariantDraft {
        id,
        sku: variant.sku.clone(),
        title: variant.title.clone(),
        options: variant.options.iter().map(choice).collect(),
        prices,
        list_prices,
        stocked: variant.stocked,
        weight_grams: variant.weight_grams,
        tax_basis_points: variant.tax_basis_points,
        image_uri: variant.image_uri.clone(),
    }
}

/// The command of an update, or the mask's path that is no field.
pub(crate) fn update(draft: Draft, mask: &[String]) -> Result<Command, String> {
    let mut fields = vec![];
    for path in mask {
        match path.as_str() {
            "*" => fields.extend(Field::ALL),
            // Output only, or what says which product: naming them changes nothing.
            "name" | "id" | "etag" | "create_time" | "update_time" => {}
            path => fields.push(Field::named(path).ok_or_else(|| path.to_owned())?),
        }
    }
    if mask.is_empty() {
        fields.extend(Field::ALL.into_iter().filter(|field| field.is_set(&draft)));
    }
    Ok(Command::Update { draft, fields })
}

/// An event as it is stored.
pub(crate) fn to_stored(name: &str, actor: &str, event: &Event) -> proto::Event {
    let (product, actor, record) = (name.to_owned(), actor.to_owned(), Some(to_record(event.product())));
    match event {
        Event::Created(_) => proto::Event::ProductCreated(proto::ProductCreated { product, record, actor }),
        Event::Updated { changed, .. } => proto::Event::ProductUpdated(proto::ProductUpdated {
            product,
            record,
            changed_fields: changed.iter().map(|field| field.name().to_owned()).collect(),
            actor,
        }),
    }
}

/// The product after a stored event.
pub(crate) fn from_stored(event: &proto::Event) -> Option<(&proto::ProductRecord, Product)> {
    let record = match event {
        proto::Event::ProductCreated(created) => created.record.as_ref(),
        proto::Event::ProductUpdated(updated) => updated.record.as_ref(),
    }?;
    Some((record, from_record(record.clone())?))
}

/// The product of a stored record's bytes.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<Product, Error> {
    let unsound = |found: String| Error::Mismatch { column: "record".to_owned(), expected: "a product", found };
    let record = proto::ProductRecord::decode(bytes).map_err(|error| unsound(error.to_string()))?;
    from_record(record).ok_or_else(|| unsound("a currency or state that is not known".to_owned()))
}

fn to_record(product: &Product) -> proto::ProductRecord {
    let state = match product.state {
        State::Active => proto::ProductState::Active,
        State::Archived => proto::ProductState::Archived,
    };
    proto::ProductRecord {
        title: product.title.clone(),
        description: product.description.clone(),
        brand: product.brand.clone(),
        categories: product.categories.clone(),
        variants: product.variants.iter().map(to_variant_record).collect(),
        stocked: product.stocked,
        state: state.into(),
        image_uri: product.image_uri.clone(),
        attributes: product.attributes.clone(),
        external_id: product.external_id.clone(),
    }
}

fn to_variant_record(variant: &Variant) -> proto::VariantRecord {
    let option = |choice: &Choice| proto::OptionRecord { name: choice.name.clone(), value: choice.value.clone() };
    let prices = |prices: &[Money]| {
        let record = |price: &Money| proto::PriceRecord {
            currency_code: price.currency.code().to_owned(),
            amount_minor: price.minor,
        };
        prices.iter().map(record).collect()
    };
    proto::VariantRecord {
        variant_id: variant.id.clone(),
        sku: variant.sku.clone(),
        title: variant.title.clone(),
        options: variant.options.iter().map(option).collect(),
        prices: prices(&variant.prices),
        list_prices: prices(&variant.list_prices),
        stocked: variant.stocked,
        weight_grams: variant.weight_grams,
        tax_basis_points: variant.tax_basis_points,
        image_uri: variant.image_uri.clone(),
    }
}

fn from_record(record: proto::ProductRecord) -> Option<Product> {
    let state = match record.state() {
        proto::ProductState::Active => State::Active,
        proto::ProductState::Archived => State::Archived,
        proto::ProductState::Unspecified => return None,
    };
    Some(Product {
        title: record.title,
        description: record.description,
        brand: record.brand,
        categories: record.categories,
        variants: record.variants.into_iter().map(from_variant_record).collect::<Option<_>>()?,
        stocked: record.stocked,
        state,
        image_uri: record.image_uri,
        attributes: record.attributes,
        external_id: record.external_id,
    })
}

fn from_variant_record(record: proto::VariantRecord) -> Option<Variant> {
    let choice = |option: proto::OptionRecord| Choice { name: option.name, value: option.value };
    let prices = |prices: Vec<proto::PriceRecord>| -> Option<Vec<Money>> {
        let money = |price: proto::PriceRecord| Some(Money::new(price.currency_code.parse().ok()?, price.amount_minor));
        prices.into_iter().map(money).collect()
    };
    Some(Variant {
        id: record.variant_id,
        sku: record.sku,
        title: record.title,
        options: record.options.into_iter().map(choice).collect(),
        prices: prices(record.prices)?,
        list_prices: prices(record.list_prices)?,
        stocked: record.stocked,
        weight_grams: record.weight_grams,
        tax_basis_points: record.tax_basis_points,
        image_uri: record.image_uri,
    })
}

/// A product as callers see it, with its prices in one currency besides all of them.
pub(crate) fn product(stored: &Stored, currency: contract::Currency) -> proto::Product {
    let product = &stored.product;
    let state = match product.state {
        State::Active => proto::ProductState::Active,
        State::Archived => proto::ProductState::Archived,
    };
    proto::Product {
        name: stored.name.clone(),
        id: stored.name.strip_prefix("products/").unwrap_or_default().to_owned(),
        title: product.title.clone(),
        description: product.description.clone(),
        brand: product.brand.clone(),
        categories: product.categories.clone(),
        variants: product.variants.iter().map(|each| variant(stored, each, currency)).collect(),
        stocked: Some(product.stocked),
        state: state.into(),
        image_uri: product.image_uri.clone(),
        attributes: product.attributes.clone(),
        etag: stored.version.to_string(),
        create_time: Some(stored.create_time.into()),
        update_time: Some(stored.update_time.into()),
        external_id: product.external_id.clone(),
    }
}

/// A variant as callers see it inside of its product.
pub(crate) fn variant(stored: &Stored, variant: &Variant, currency: contract::Currency) -> proto::Variant {
    let option = |choice: &Choice| proto::VariantOption { name: choice.name.clone(), value: choice.value.clone() };
    proto::Variant {
        name: variant_name(&stored.name, &variant.id),
        sku: variant.sku.clone(),
        title: variant.title.clone(),
        options: variant.options.iter().map(option).collect(),
        prices: variant.prices.iter().map(|price| (*price).into()).collect(),
        stocked: Some(variant.stocked),
        weight_grams: variant.weight_grams,
        tax_basis_points: variant.tax_basis_points,
        list_prices: variant.list_prices.iter().map(|price| (*price).into()).collect(),
        image_uri: variant.image_uri.clone(),
        price: price_in(&variant.prices, currency).map(Into::into),
        product: stored.name.clone(),
        product_title: String::new(),
    }
}

/// A variant as callers see it by itself.
pub(crate) fn lone_variant(stored: &Stored, each: &Variant, currency: contract::Currency) -> proto::Variant {
    proto::Variant { product_title: stored.product.title.clone(), ..variant(stored, each, currency) }
}

/// What a cart must know of a variant that costs this.
pub(crate) fn resolved(stored: &Stored, variant: &Variant, price: Money) -> proto::ResolvedPrice {
    proto::ResolvedPrice {
        sku: variant.sku.clone(),
        variant: variant_name(&stored.name, &variant.id),
        title: stored.product.line_title(variant),
        unit_price: Some(price.into()),
        stocked: variant.stocked,
        tax_basis_points: variant.tax_basis_points,
        weight_grams: variant.weight_grams,
        list_price: price_in(&variant.list_prices, price.currency).map(Into::into),
    }
}

/// The stored text of a state.
pub(crate) fn state_text(state: State) -> &'static str {
    match state {
        State::Active => "ACTIVE",
        State::Archived => "ARCHIVED",
    }
}

/// `products/{product}/variants/{variant}`.
pub(crate) fn variant_name(product: &str, id: &str) -> String {
    format!("{product}/variants/{id}")
}

/// (`products/{product}`, variant id) of a variant's name.
pub(crate) fn variant_parts(name: &str) -> Option<(&str, &str)> {
    let (product, id) = name.split_once("/variants/")?;
    let sound = is_product_name(product) && is_id(id);
    sound.then_some((product, id))
}

/// Whether this is `products/{product}` with an id that may stand in a name.
pub(crate) fn is_product_name(name: &str) -> bool {
    name.strip_prefix("products/").is_some_and(is_id)
}

/// Whether this may be the last part of a name.
pub(crate) fn is_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(allowed)
}
