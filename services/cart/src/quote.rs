//! What a cart costs: pure arithmetic over minor units.
//!
//! Invariants: `total = subtotal + tax + shipping`; the subtotal is the sum of the lines; the tax is the sum of the lines'
//! taxes and the tax on shipping. Tax is rounded half up once for each rate over everything taxed at it, and handed down to
//! the lines without losing or making a minor unit.

use std::collections::HashMap;

use contract::{Currency, Money};
use jiff::Timestamp;

use crate::cart::Line;

/// What the catalogue asks for a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Price of one in minor units, without tax.
    pub price: i64,
    /// Tax in hundredths of a per cent.
    pub basis_points: u32,
    /// Weight of one in grams.
    pub weight: i32,
    /// False for what has no stock.
    pub stocked: bool,
}

/// What sending costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carriage {
    /// Price in minor units, without tax.
    pub price: i64,
    /// Tax in hundredths of a per cent.
    pub basis_points: u32,
    /// Service priced; empty where nothing is sent.
    pub service: String,
    /// Where to; empty for anywhere.
    pub country: String,
}

/// What is promised: with the lines of the cart at that version it makes the whole quote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Id of the quote.
    pub id: String,
    /// `carts/{cart}`.
    pub cart: String,
    /// The version of its lines.
    pub etag: u64,
    /// When it was promised.
    pub issue_time: Timestamp,
    /// Until when it holds.
    pub expire_time: Timestamp,
    /// What is promised of each line, in the order of the cart.
    pub lines: Vec<LineTerms>,
    /// Shipping in minor units, without tax.
    pub shipping: i64,
    /// Tax on shipping.
    pub shipping_tax: i64,
    /// Where it may go.
    pub country: String,
    /// Shipping service priced.
    pub service: String,
    /// Operator who set the prices.
    pub issued_by: String,
    /// Why.
    pub reason: String,
}

/// What is promised of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineTerms {
    /// Price of one in minor units, without tax.
    pub price: i64,
    /// Tax of the line.
    pub tax: i64,
    /// Weight of one in grams.
    pub weight: i32,
    /// False for what has no stock.
    pub stocked: bool,
}

/// A whole quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// What was promised.
    pub terms: Terms,
    /// The lines.
    pub lines: Vec<QuotedLine>,
    /// Sum of the lines, without tax.
    pub subtotal: Money,
    /// Tax on lines and shipping.
    pub tax: Money,
    /// Shipping, without tax.
    pub shipping: Money,
    /// What is to be paid.
    pub total: Money,
}

/// A line of a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedLine {
    /// The line of the cart.
    pub line: Line,
    /// Price of one.
    pub unit_price: Money,
    /// Price of the line, without tax.
    pub subtotal: Money,
    /// Tax of the line.
    pub tax: Money,
    /// Weight of one in grams.
    pub weight: i32,
}

/// Why a cart cannot be priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is nothing in it.
    #[error("the cart is empty")]
    Empty,
    /// It costs more than can be counted.
    #[error("the amount is too large")]
    TooLarge,
    /// A price is below nothing.
    #[error("a price is negative")]
    Negative,
    /// The terms are of other lines.
    #[error("the terms do not fit the lines of the cart")]
    Unfit,
}

/// Sum of the lines without tax, for whoever prices shipping.
pub fn subtotal(lines: &[Line], offers: &[Offer]) -> Result<i64, Rejection> {
    let mut sum = 0_i64;
    for (line, offer) in lines.iter().zip(offers) {
        sum = sum.checked_add(net(offer.price, line.quantity)?).ok_or(Rejection::TooLarge)?;
    }
    Ok(sum)
}

/// Weight of what is sent, in grams.
pub fn weight(lines: &[Line], offers: &[Offer]) -> i64 {
    let each = lines.iter().zip(offers).filter(|(_, offer)| offer.stocked);
    each.map(|(line, offer)| i64::from(offer.weight).saturating_mul(line.quantity)).fold(0, i64::saturating_add)
}

/// Puts the prices of the catalogue and of carriage into terms.
pub fn price(terms: Terms, lines: &[Line], offers: &[Offer], carriage: &Carriage) -> Result<Terms, Rejection> {
    if lines.is_empty() {
        return Err(Rejection::Empty);
    }
    if lines.len() != offers.len() {
        return Err(Rejection::Unfit);
    }
    let mut taxed = Vec::with_capacity(lines.len() + 1);
    for (line, offer) in lines.iter().zip(offers) {
        taxed.push((net(offer.price, line.quantity)?, offer.basis_points));
    }
    taxed.push((net(carriage.price, 1)?, carriage.basis_points));
    let mut taxes = taxes(&taxed)?;
    let shipping_tax = taxes.pop().unwrap_or(0);
    let lines = offers.iter().zip(taxes).map(|(offer, tax)| LineTerms {
        price: offer.price,
        tax,
        weight: offer.weight,
        stocked: offer.stocked,
    });
    Ok(Terms {
        lines: lines.collect(),
        shipping: carriage.price,
        shipping_tax,
        country: carriage.country.clone(),
        service: carriage.service.clone(),
        ..terms
    })
}

/// Puts negotiated prices into terms: no tax, no shipping.
pub fn negotiate(terms: Terms, lines: &[Line], prices: &[i64]) -> Result<Terms, Rejection> {
    if lines.is_empty() {
        return Err(Rejection::Empty);
    }
    if lines.len() != prices.len() {
        return Err(Rejection::Unfit);
    }
    let priced = lines.iter().zip(prices);
    let lines = priced.map(|(line, &price)| LineTerms { price, tax: 0, weight: 0, stocked: line.stocked });
    Ok(Terms { lines: lines.collect(), ..terms })
}

/// The whole quote of terms and the lines they were made for.
pub fn quote(terms: Terms, lines: &[Line], currency: Currency) -> Result<Quote, Rejection> {
    if terms.lines.len() != lines.len() {
        return Err(Rejection::Unfit);
    }
    let money = |minor| Money::new(currency, minor);
    let (mut sum, mut tax) = (0_i64, terms.shipping_tax);
    let mut quoted = Vec::with_capacity(lines.len());
    for (line, promised) in lines.iter().zip(&terms.lines) {
        let net = net(promised.price, line.quantity)?;
        sum = sum.checked_add(net).ok_or(Rejection::TooLarge)?;
        tax = tax.checked_add(promised.tax).ok_or(Rejection::TooLarge)?;
        quoted.push(QuotedLine {
            line: Line { stocked: promised.stocked, ..line.clone() },
            unit_price: money(promised.price),
            subtotal: money(net),
            tax: money(promised.tax),
            weight: promised.weight,
        });
    }
    let total = sum.checked_add(tax).and_then(|total| total.checked_add(terms.shipping)).ok_or(Rejection::TooLarge)?;
    let (subtotal, tax, shipping, total) = (money(sum), money(tax), money(terms.shipping), money(total));
    Ok(Quote { terms, lines: quoted, subtotal, tax, shipping, total })
}

fn net(price: i64, quantity: i64) -> Result<i64, Rejection> {
    if price < 0 || quantity < 0 {
        return Err(Rejection::Negative);
    }
    price.checked_mul(quantity).ok_or(Rejection::TooLarge)
}

/// The tax of each (net amount, rate). Each amount takes the difference between the rounded tax on everything up to and with
/// it and on everything before it, at its rate: the parts add up to the rounded whole, and none is off by a minor unit or more.
fn taxes(amounts: &[(i64, u32)]) -> Result<Vec<i64>, Rejection> {
    let mut so_far: HashMap<u32, i128> = HashMap::new();
    let mut taxes = Vec::with_capacity(amounts.len());
    for &(net, rate) in amounts {
        let sum = so_far.entry(rate).or_default();
        let before = half_up(*sum, rate);
        *sum += i128::from(net);
        taxes.push(i64::try_from(half_up(*sum, rate) - before).map_err(|_| Rejection::TooLarge)?);
    }
    Ok(taxes)
}

/// A share in hundredths of a per cent of an amount that is not negative, rounded half up.
fn half_up(amount: i128, basis_points: u32) -> i128 {
    (amount * i128::from(basis_points) + 5_000) / 10_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(id: u32, quantity: i64) -> Line {
        let (sku, variant, title) = (format!("S-{id}"), format!("products/{id}/variants/1"), format!("Thing {id}"));
        Line { id, sku, variant, title, stocked: true, quantity }
    }

    fn offer(price: i64, basis_points: u32) -> Offer {
        Offer { price, basis_points, weight: 100, stocked: true }
    }

    fn priced(lines: &[Line], offers: &[Offer], carriage: &Carriage) -> Result<Quote, Rejection> {
        quote(price(Terms::default(), lines, offers, carriage)?, lines, Currency::EUR)
    }

    #[test]
    fn tax_is_rounded_half_up_over_lines_and_shipping() {
        let carriage = Carriage { price: 499, basis_points: 2_000, ..Carriage::default() };
        let quote = priced(&[line(1, 3), line(2, 1)], &[offer(333, 2_000), offer(1, 2_000)], &carriage).unwrap();
        // 20 % of 999 + 1 + 499 = 299.8.
        assert_eq!(
            (quote.subtotal.minor, quote.shipping.minor, quote.tax.minor, quote.total.minor),
            (1000, 499, 300, 1799)
        );
        let quote = priced(&[line(1, 1)], &[offer(50, 100)], &Carriage::default()).unwrap();
        assert_eq!(quote.tax.minor, 1, "0.5 is rounded up");
        let quote = priced(&[line(1, 1)], &[offer(49, 100)], &Carriage::default()).unwrap();
        assert_eq!(quote.tax.minor, 0, "0.49 is rounded down");
    }

    #[test]
    fn many_small_lines_pay_the_tax_of_their_sum() {
        let lines: Vec<Line> = (1..=10).map(|id| line(id, 1)).collect();
        let offers = vec![offer(2, 2_000); 10];
        let quote = priced(&lines, &offers, &Carriage::default()).unwrap();
        assert_eq!(quote.tax.minor, 4, "each line alone would pay none");
    }

    #[test]
    fn amounts_beyond_counting_are_refused() {
        let huge = [offer(i64::MAX, 0)];
        assert_eq!(priced(&[line(1, 2)], &huge, &Carriage::default()), Err(Rejection::TooLarge));
        let both = [offer(i64::MAX, 0), offer(1, 0)];
        assert_eq!(priced(&[line(1, 1), line(2, 1)], &both, &Carriage::default()), Err(Rejection::TooLarge));
        assert_eq!(priced(&[line(1, 1)], &[offer(i64::MAX, 10_000)], &Carriage::default()), Err(Rejection::TooLarge));
        assert_eq!(priced(&[line(1, 1)], &[offer(-1, 0)], &Carriage::default()), Err(Rejection::Negative));
        assert_eq!(priced(&[], &[], &Carriage::default()), Err(Rejection::Empty));
    }

    #[test]
    fn negotiated_prices_have_no_tax_and_no_shipping() {
        let lines = [line(1, 6), line(2, 6)];
        let terms = negotiate(Terms::default(), &lines, &[255, 339]).unwrap();
        let quote = quote(terms, &lines, Currency::GBP).unwrap();
        assert_eq!((quote.subtotal.minor, quote.tax.minor, quote.shipping.minor), (3564, 0, 0));
        assert_eq!(quote.total, quote.subtotal);
    }

    proptest! {
        #[test]
        fn no_minor_unit_is_lost_or_made(
            items in prop::collection::vec((0_i64..10_000_000, 1_i64..1_000, prop::sample::select(vec![0_u32, 500, 1_900, 2_000, 777])), 1..60),
            shipping in 0_i64..100_000,
            shipping_rate in prop::sample::select(vec![0_u32, 500, 2_000]),
        ) {
            let lines: Vec<Line> = (1..).zip(&items).map(|(id, item)| line(id, item.1)).collect();
            let offers: Vec<Offer> = items.iter().map(|item| offer(item.0, item.2)).collect();
            let carriage = Carriage { price: shipping, basis_points: shipping_rate, ..Carriage::default() };
            let quote = priced(&lines, &offers, &carriage).unwrap();

            prop_assert_eq!(quote.total.minor, quote.subtotal.minor + quote.tax.minor + quote.shipping.minor);
            prop_assert_eq!(quote.subtotal.minor, quote.lines.iter().map(|line| line.subtotal.minor).sum::<i64>());
            let taxes = quote.lines.iter().map(|line| line.tax.minor).sum::<i64>();
            prop_assert_eq!(quote.tax.minor, taxes + quote.terms.shipping_tax);
            for (quoted, offer) in quote.lines.iter().zip(&offers) {
                let exact = i128::from(quoted.subtotal.minor) * i128::from(offer.basis_points);
                let off = (i128::from(quoted.tax.minor) * 10_000 - exact).abs();
                prop_assert!(off < 10_000 && quoted.tax.minor >= 0, "{} is off by {}", quoted.tax, off);
            }
            for rate in [0_u32, 500, 1_900, 2_000, 777] {
                let at = |wanted: u32| offers.iter().zip(&quote.lines).filter(move |(offer, _)| offer.basis_points == wanted);
                let mut net: i128 = at(rate).map(|(_, line)| i128::from(line.subtotal.minor)).sum();
                let mut tax: i64 = at(rate).map(|(_, line)| line.tax.minor).sum();
                if rate == shipping_rate {
                    net += i128::from(shipping);
                    tax += quote.terms.shipping_tax;
                }
                prop_assert_eq!(i128::from(tax), half_up(net, rate));
            }
        }
    }
}
