//! The sample catalogue: our own goods, the same on every machine, and as many as asked for.
//!
//! The first 40 products with their 150 variants are written by hand; a larger catalogue repeats them as
//! further editions. Nothing here asks the system for chance or time, so two runs yield equal bytes.

mod templates;

use crate::goods::{Price, Product, Stock, Variant, slug};
use templates::{TEMPLATES, Template};

/// Variants of the catalogue when no number is asked for.
pub const DEFAULT_SKUS: usize = 150;

/// Currencies of every price, the shop's own first.
pub const CURRENCIES: [&str; 3] = ["EUR", "USD", "GBP"];

/// A place that keeps stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warehouse {
    /// Last part of its name.
    pub id: &'static str,
    /// What people call it.
    pub title: &'static str,
}

/// The warehouses.
pub const WAREHOUSES: [Warehouse; 3] = [
    Warehouse { id: "berlin", title: "Berlin, Westhafen" },
    Warehouse { id: "rotterdam", title: "Rotterdam, Waalhaven" },
    Warehouse { id: "leeds", title: "Leeds, Hunslet" },
];

/// A category of the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Category {
    /// Last part of its name.
    pub id: &'static str,
    /// What people call it.
    pub title: &'static str,
}

/// The categories, in the order of a menu.
pub const CATEGORIES: [Category; 8] = [
    Category { id: "kitchen", title: "Kitchen" },
    Category { id: "home", title: "Home" },
    Category { id: "garden", title: "Garden" },
    Category { id: "stationery", title: "Paper and pens" },
    Category { id: "clothing", title: "Clothing" },
    Category { id: "bags", title: "Bags" },
    Category { id: "pantry", title: "Pantry" },
    Category { id: "services", title: "Gifts and services" },
];

/// The products of a catalogue with exactly `skus` variants, in order.
pub fn products(skus: usize) -> Products {
    Products { left: skus, edition: 1, template: 0 }
}

/// The iterator of [`products`]; it holds a position, not a catalogue.
#[derive(Debug, Clone)]
pub struct Products {
    left: usize,
    edition: u32,
    template: usize,
}

impl Iterator for Products {
    type Item = Product;

    fn next(&mut self) -> Option<Product> {
        if self.left == 0 {
            return None;
        }
        let template = &TEMPLATES[self.template];
        let mut product = product(template, self.edition);
        // The last product gives up what would be too many.
        product.variants.truncate(self.left);
        self.left -= product.variants.len();
        self.template += 1;
        if self.template == TEMPLATES.len() {
            self.template = 0;
            self.edition += 1;
        }
        Some(product)
    }
}

fn product(template: &Template, edition: u32) -> Product {
    let (id, title, code) = if edition == 1 {
        (slug(template.title), template.title.to_owned(), template.code.to_owned())
    } else {
        (
            format!("{}-{edition}", slug(template.title)),
            format!("{}, No. {edition}", template.title),
            format!("{}{edition}", template.code),
        )
    };
    let mut chance = Chance::of(&code);
    // Editions differ in price too, by up to a fifth, so that a filter by price has something to do.
    let factor = if edition == 1 { 100 } else { 90 + chance.below(31) };
    let variants = combinations(template)
        .into_iter()
        .map(|choice| variant(template, &code, &choice, factor, &mut chance))
        .collect();
    Product {
        id,
        title,
        description: template.description.to_owned(),
        brand: template.brand.to_owned(),
        categories: vec![template.category.to_owned()],
        stocked: template.stocked,
        external_id: String::new(),
        variants,
    }
}

/// Every choice of one value an axis, as indices, the last axis fastest.
fn combinations(template: &Template) -> Vec<Vec<usize>> {
    let mut choices = vec![Vec::new()];
    for axis in template.axes {
        choices = choices
            .into_iter()
            .flat_map(|choice: Vec<usize>| {
                (0..axis.values.len()).map(move |index| [choice.as_slice(), &[index]].concat())
            })
            .collect();
    }
    choices
}

fn variant(template: &Template, code: &str, choice: &[usize], factor: i64, chance: &mut Chance) -> Variant {
    let chosen: Vec<_> =
        template.axes.iter().zip(choice).map(|(axis, index)| (axis.name, axis.values[*index])).collect();
    let mut sku = code.to_owned();
    for (_, (short, _)) in &chosen {
        sku.push('-');
        sku.push_str(short);
    }
    let titles: Vec<_> = chosen.iter().map(|(_, (_, label))| *label).collect();
    let steps = choice.last().map_or(0, |index| i64::try_from(*index).unwrap_or(0));
    let euro = (template.euro_minor + steps * template.step_minor) * factor / 100;
    Variant {
        sku,
        title: titles.join(", "),
        options: chosen.iter().map(|(name, (_, label))| ((*name).to_owned(), (*label).to_owned())).collect(),
        prices: prices(template, euro),
        weight_grams: template.weight_grams,
        tax_basis_points: template.tax_basis_points,
        stock: stock(template, chance),
    }
}

/// The same price in each currency; what is worth its face value keeps it.
fn prices(template: &Template, euro: i64) -> Vec<Price> {
    let worth = |percent: i64| {
        if template.face_value {
            euro
        } else {
            // To the next five cents, and never nothing.
            ((euro * percent / 100 + 2) / 5 * 5).max(5)
        }
    };
    [worth(100), worth(109), worth(86)]
        .into_iter()
        .zip(CURRENCIES)
        .map(|(minor, currency)| Price { currency: currency.to_owned(), minor })
        .collect()
}

fn stock(template: &Template, chance: &mut Chance) -> Vec<Stock> {
    if !template.stocked {
        return Vec::new();
    }
    WAREHOUSES
        .iter()
        .zip([40, 25, 15])
        .map(|(warehouse, least)| Stock { warehouse: warehouse.id.to_owned(), quantity: least + chance.below(60) })
        .collect()
}

/// Numbers that look like chance and are the same every time (splitmix64 of Steele, Lea and Flood).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by a text (FNV-1a), so that a product's numbers do not depend on what comes before it.
    pub(crate) fn of(text: &str) -> Self {
        Self(
            text.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)),
        )
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound` - 1; 0 for a bound below 1.
    pub(crate) fn below(&mut self, bound: i64) -> i64 {
        let bound = u64::try_from(bound).unwrap_or(0).max(1);
        i64::try_from(self.next() % bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::goods::is_sku;

    #[test]
    fn the_catalogue_has_forty_products_and_a_hundred_and_fifty_variants() {
        let all: Vec<_> = products(DEFAULT_SKUS).collect();
        assert_eq!(all.len(), 40);
        let whole: usize = TEMPLATES.iter().map(|template| combinations(template).len()).sum();
        assert_eq!(whole, DEFAULT_SKUS);
        let used: HashSet<_> = all.iter().flat_map(|product| product.categories.iter().map(String::as_str)).collect();
        assert_eq!(used, CATEGORIES.iter().map(|category| category.id).collect());
        let brands: HashSet<_> = all.iter().map(|product| product.brand.as_str()).collect();
        assert!(brands.len() >= 6, "{brands:?}");
    }

    #[test]
    fn two_runs_yield_the_same() {
        assert!(products(5_000).eq(products(5_000)));
    }

    #[test]
    fn a_larger_catalogue_begins_with_the_smaller_one() {
        assert!(products(10_000).take(40).eq(products(DEFAULT_SKUS)));
    }

    #[test]
    fn any_number_of_skus_is_met_exactly_and_each_is_unique() {
        for wanted in [0, 1, 149, 150, 151, 1_000, 100_000] {
            let mut ids = HashSet::new();
            let mut skus = HashSet::new();
            let mut count = 0;
            for product in products(wanted) {
                for variant in product.variants {
                    assert!(is_sku(&variant.sku), "{}", variant.sku);
                    skus.insert(variant.sku);
                    count += 1;
                }
                assert!(ids.insert(product.id));
            }
            assert_eq!((count, skus.len()), (wanted, wanted));
        }
    }

    #[test]
    fn every_variant_has_a_price_in_each_currency_and_stock_where_it_is_stocked() {
        for product in products(1_000) {
            assert!(product.id.len() <= 64 && !product.title.is_empty());
            assert!(product.description.len() > 80, "{}", product.id);
            for variant in &product.variants {
                let currencies: Vec<_> = variant.prices.iter().map(|price| price.currency.as_str()).collect();
                assert_eq!(currencies, CURRENCIES);
                assert!(variant.prices.iter().all(|price| price.minor > 0));
                let places = if product.stocked { WAREHOUSES.len() } else { 0 };
                assert_eq!(variant.stock.len(), places);
                assert!(variant.stock.iter().all(|stock| stock.quantity > 0));
            }
        }
    }
}
