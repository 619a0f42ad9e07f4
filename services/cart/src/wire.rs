//! Between contract messages and the domain: the only file that sees both.

use contracts::cart::v1 as proto;
use contracts::google::r#type::Money as WireMoney;

use crate::cart::{Added, Event, Line, State};
use crate::quote::Quote;
use crate::store::Stored;

/// An event of a cart as it is stored; `customer` is whose the cart was.
pub(crate) fn to_stored(cart: &str, customer: &str, event: &Event) -> proto::Event {
    let cart = cart.to_owned();
    match event {
        Event::Created { customer, currency, actor } => proto::Event::CartCreated(proto::CartCreated {
            cart,
            customer: customer.clone(),
            currency_code: currency.code().to_owned(),
            actor: actor.clone(),
        }),
        Event::Added(added) => {
            proto::Event::ItemsAdded(proto::ItemsAdded { cart, items: added.iter().map(to_added).collect() })
        }
        Event::QuantitySet { line, quantity } => proto::Event::ItemQuantitySet(proto::ItemQuantitySet {
            cart,
            item_id: line.to_string(),
            quantity: units(*quantity),
        }),
        Event::Removed { line } => proto::Event::ItemRemoved(proto::ItemRemoved { cart, item_id: line.to_string() }),
        Event::Closed { order } => proto::Event::CartClosed(proto::CartClosed { cart, order: order.clone() }),
        Event::OrderedRemoved { order, remaining } => {
            let items = remaining
                .iter()
                .map(|(line, quantity)| proto::RemainingItem { item_id: line.to_string(), quantity: units(*quantity) });
            let (order, items) = (order.clone(), items.collect());
            proto::Event::OrderedItemsRemoved(proto::OrderedItemsRemoved { cart, order, items })
        }
        Event::Erased => proto::Event::SubjectErased(proto::SubjectErased { subject: customer.to_owned() }),
    }
}

/// The domain event of a stored one; nothing for an issued quote, which is about no cart's state.
pub(crate) fn from_stored(event: &proto::Event) -> Option<Event> {
    Some(match event {
        proto::Event::QuoteIssued(_) => return None,
        proto::Event::CartCreated(created) => Event::Created {
            customer: created.customer.clone(),
            currency: created.currency_code.parse().ok()?,
            actor: created.actor.clone(),
        },
        proto::Event::ItemsAdded(added) => {
            Event::Added(added.items.iter().map(from_added).collect::<Option<Vec<_>>>()?)
        }
        proto::Event::ItemQuantitySet(set) => {
            Event::QuantitySet { line: line_id(&set.item_id)?, quantity: set.quantity.into() }
        }
        proto::Event::ItemRemoved(removed) => Event::Removed { line: line_id(&removed.item_id)? },
        proto::Event::CartClosed(closed) => Event::Closed { order: closed.order.clone() },
        proto::Event::OrderedItemsRemoved(removed) => {
            let remaining = removed.items.iter().map(|item| Some((line_id(&item.item_id)?, item.quantity.into())));
            Event::OrderedRemoved { order: removed.order.clone(), remaining: remaining.collect::<Option<Vec<_>>>()? }
        }
        proto::Event::SubjectErased(_) => Event::Erased,
    })
}

/// A cart as callers see it.
pub(crate) fn cart(name: &str, stored: &Stored) -> proto::Cart {
    let cart = &stored.cart;
    let state = match cart.state {
        State::Missing => proto::CartState::Unspecified,
        State::Open => proto::CartState::Open,
        State::Closed => proto::CartState::Closed,
    };
    proto::Cart {
        name: name.to_owned(),
        customer: cart.customer.clone(),
        state: state.into(),
        currency_code: cart.currency.map(|currency| currency.code().to_owned()).unwrap_or_default(),
        items: cart.lines.iter().map(|line| item(name, line)).collect(),
        order: cart.order.clone(),
        etag: etag(stored),
        create_time: Some(stored.create_time.into()),
        update_time: Some(stored.update_time.into()),
    }
}

/// A line of a cart as callers see it.
pub(crate) fn item(cart: &str, line: &Line) -> proto::CartItem {
    proto::CartItem {
        name: item_name(cart, line.id),
        sku: line.sku.clone(),
        quantity: units(line.quantity),
        variant: line.variant.clone(),
        title: line.title.clone(),
        stocked: line.stocked,
        cart_etag: String::new(),
    }
}

/// A signed quote as callers see it.
pub(crate) fn quote(quote: &Quote, token: String) -> proto::Quote {
    let terms = &quote.terms;
    let lines = quote.lines.iter().map(|quoted| proto::QuoteLine {
        item: item_name(&terms.cart, quoted.line.id),
        sku: quoted.line.sku.clone(),
        variant: quoted.line.variant.clone(),
        title: quoted.line.title.clone(),
        quantity: units(quoted.line.quantity),
        unit_price: Some(quoted.unit_price.into()),
        subtotal: Some(quoted.subtotal.into()),
        tax: Some(quoted.tax.into()),
        stocked: quoted.line.stocked,
        weight_grams: quoted.weight,
    });
    let money = |amount: contract::Money| -> Option<WireMoney> { Some(amount.into()) };
    proto::Quote {
        quote_token: token,
        cart: terms.cart.clone(),
        cart_etag: terms.etag.to_string(),
        lines: lines.collect(),
        subtotal: money(quote.subtotal),
        tax: money(quote.tax),
        shipping: money(quote.shipping),
        total: money(quote.total),
        currency_code: quote.total.currency.code().to_owned(),
        issue_time: Some(terms.issue_time.into()),
        expire_time: Some(terms.expire_time.into()),
        country_code: terms.country.clone(),
        shipping_service: terms.service.clone(),
        issued_by: terms.issued_by.clone(),
        reason: terms.reason.clone(),
        quote_id: terms.id.clone(),
    }
}

/// The event of a quote whose prices an operator set.
pub(crate) fn issued(quote: &Quote) -> proto::Event {
    let terms = &quote.terms;
    let lines = quote.lines.iter().map(|quoted| proto::QuotedLine {
        item_id: quoted.line.id.to_string(),
        sku: quoted.line.sku.clone(),
        variant: quoted.line.variant.clone(),
        title: quoted.line.title.clone(),
        quantity: units(quoted.line.quantity),
        unit_price_minor: quoted.unit_price.minor,
        tax_minor: quoted.tax.minor,
        stocked: quoted.line.stocked,
        weight_grams: quoted.weight,
    });
    proto::Event::QuoteIssued(proto::QuoteIssued {
        quote: quote_name(&terms.id),
        cart: terms.cart.clone(),
        cart_etag: terms.etag.to_string(),
        currency_code: quote.total.currency.code().to_owned(),
        lines: lines.collect(),
        subtotal_minor: quote.subtotal.minor,
        tax_minor: quote.tax.minor,
        shipping_minor: quote.shipping.minor,
        total_minor: quote.total.minor,
        expire_time: Some(terms.expire_time.into()),
        country_code: terms.country.clone(),
        shipping_service: terms.service.clone(),
        issued_by: terms.issued_by.clone(),
        reason: terms.reason.clone(),
        price_key_id: String::new(),
        price_signature: vec![],
    })
}

/// The version of a cart that its callers compare.
pub(crate) fn etag(stored: &Stored) -> String {
    stored.lines_version.to_string()
}

/// `quotes/{quote}`.
pub(crate) fn quote_name(id: &str) -> String {
    format!("quotes/{id}")
}

/// `carts/{cart}/items/{item}`.
pub(crate) fn item_name(cart: &str, line: u32) -> String {
    format!("{cart}/items/{line}")
}

/// The cart and the line of an item's name. The line is none where no line ever has such an id.
pub(crate) fn item_parts(name: &str) -> Option<(&str, Option<u32>)> {
    let (cart, item) = name.split_once("/items/")?;
    let id = cart.strip_prefix("carts/")?;
    let fits = |part: &str| !part.is_empty() && part.len() <= 64 && part.bytes().all(is_id_byte);
    (fits(id) && fits(item)).then(|| (cart, line_id(item)))
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~-".contains(&byte)
}

/// A line's id: decimal, and written in one way only, so that no line has two names.
fn line_id(text: &str) -> Option<u32> {
    let id: u32 = text.parse().ok()?;
    (id > 0 && id.to_string() == text).then_some(id)
}

fn to_added(added: &Added) -> proto::AddedItem {
    let line = &added.line;
    proto::AddedItem {
        item_id: line.id.to_string(),
        sku: line.sku.clone(),
        variant: line.variant.clone(),
        title: line.title.clone(),
        stocked: line.stocked,
        added: units(added.added),
        quantity: units(line.quantity),
    }
}

fn from_added(added: &proto::AddedItem) -> Option<Added> {
    let line = Line {
        id: line_id(&added.item_id)?,
        sku: added.sku.clone(),
        variant: added.variant.clone(),
        title: added.title.clone(),
        stocked: added.stocked,
        quantity: added.quantity.into(),
    };
    Some(Added { line, added: added.added.into() })
}

/// Units on the wire; the domain keeps them between 1 and 100,000.
fn units(quantity: i64) -> i32 {
    i32::try_from(quantity).unwrap_or(i32::MAX)
}
