//! `stoa.mobile.v1`: the same parts as the pages', cut down to what a phone shows, at most 8 KiB of gzip a screen.
//!
//! The bounds below keep it so: each text and each list has one, and what is left out is counted where a person would miss it.

use contracts::{
    cart::v1::{Cart, Quote},
    catalog::v1::{Facet, Product, Variant},
    google::r#type::Money,
    inventory::v1::Availability,
    mobile::v1::{
        CheckoutLine, CheckoutScreen, Choice, GetCheckoutScreenRequest, GetHomeScreenRequest, GetProductScreenRequest,
        HomeScreen, NavigationEntry, ProductCard, ProductScreen, ShippingChoice, StockLevel,
        mobile_service_server::MobileService,
    },
    shipping::v1::ShippingRate,
    storefront::v1::{GetCheckoutPageRequest, PartMark, PartStatus},
};
use server::Call;
use tonic::{Request, Response, Status};

use super::part::Answered;
use super::{Storefront, is_stocked};

/// Characters of texts.
const TITLE: usize = 80;
const LABEL: usize = 60;
const SHORT: usize = 40;
const DESCRIPTION: usize = 600;

/// Entries of lists.
const NAVIGATION: usize = 12;
const CHOICES: usize = 30;
const RELATED: usize = 6;
const LINES: usize = 50;
const RATES: usize = 6;

/// Fewer left than this is told.
const LOW: i64 = 5;

/// Where a screen leads on to, by the facets it has.
const LEADING: [&str; 2] = ["category", "brand"];

#[tonic::async_trait]
impl MobileService for Storefront {
    async fn get_home_screen(&self, request: Request<GetHomeScreenRequest>) -> Result<Response<HomeScreen>, Status> {
        let call = Call::of(&request)?;
        let currency = request.into_inner().currency_code;
        let (featured, navigation) = tokio::join!(self.featured(&call, &currency), self.navigation(&call, &currency));
        Ok(Response::new(HomeScreen {
            not_live: not_live([&featured.mark, &navigation.mark]),
            featured: cards(featured, &currency),
            navigation: entries(navigation.value.unwrap_or_default()),
        }))
    }

    async fn get_product_screen(
        &self,
        request: Request<GetProductScreenRequest>,
    ) -> Result<Response<ProductScreen>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        let currency = asked.currency_code;
        let (product, availability, related) = self.product_with(&call, &asked.product, &currency).await?;
        let marks = not_live([&product.mark, &availability.mark, &related.mark]);
        let product = product.value.unwrap_or_default();
        let mut related = cards(related, &currency);
        related.truncate(RELATED);
        let variants = product.variants.iter().take(CHOICES);
        Ok(Response::new(ProductScreen {
            choices: variants.map(|variant| choice(&product, variant, &currency, &availability)).collect(),
            choice_count: count(product.variants.len()),
            product: asked.product,
            title: cut(&product.title, TITLE),
            brand: cut(&product.brand, SHORT),
            description: cut(&product.description, DESCRIPTION),
            image_uri: product.image_uri,
            related,
            not_live: marks,
        }))
    }

    async fn get_checkout_screen(
        &self,
        request: Request<GetCheckoutScreenRequest>,
    ) -> Result<Response<CheckoutScreen>, Status> {
        let call = Call::of(&request)?;
        let GetCheckoutScreenRequest { cart, country_code, shipping_service } = request.into_inner();
        let asked = GetCheckoutPageRequest { cart, country_code, shipping_service };
        let ((cart, availability), (quote, rates)) =
            tokio::join!(self.cart_and_stock(&call, &asked), self.quote_and_rates(&call, &asked));
        let cart = cart?;
        let marks = not_live([&cart.mark, &availability.mark, &quote.mark, &rates.mark]);
        let (cart, quote) = (cart.value.unwrap_or_default(), quote.value.unwrap_or_default());
        let rates = rates.value.unwrap_or_default();
        Ok(Response::new(CheckoutScreen {
            lines: lines(&cart, &quote, &availability),
            line_count: count(cart.items.len()),
            subtotal: quote.subtotal,
            tax: quote.tax,
            shipping: quote.shipping,
            total: quote.total,
            shipping_choices: rates.into_iter().take(RATES).map(shipping_choice).collect(),
            shipping_service: quote.shipping_service,
            quote_token: quote.quote_token,
            cart_etag: if quote.cart_etag.is_empty() { cart.etag } else { quote.cart_etag },
            expire_time: quote.expire_time,
            not_live: marks,
        }))
    }
}

fn not_live<'a>(marks: impl IntoIterator<Item = &'a PartMark>) -> Vec<PartMark> {
    marks.into_iter().filter(|mark| mark.status() != PartStatus::Live).cloned().collect()
}

fn cards(products: Answered<Vec<Product>>, currency: &str) -> Vec<ProductCard> {
    let card = |product: Product| {
        let prices = product.variants.iter().filter_map(|variant| price_of(variant, currency));
        ProductCard {
            from_price: prices.min_by_key(|price| (price.units, price.nanos)).cloned(),
            product: product.name,
            title: cut(&product.title, TITLE),
            image_uri: product.image_uri,
        }
    };
    products.value.unwrap_or_default().into_iter().map(card).collect()
}

/// Categories first, then brands, the most frequent of each.
fn entries(facets: Vec<Facet>) -> Vec<NavigationEntry> {
    let entry = |field: &str, value: &str, title: &str| NavigationEntry {
        title: cut(if title.is_empty() { value } else { title }, SHORT),
        filter: format!("{field}=\"{value}\""),
    };
    let of = |field: &'static str| {
        let values = facets.iter().filter(move |facet| facet.field == field).flat_map(|facet| &facet.values);
        let quotable = values.filter(|value| !value.value.contains(['"', '\\']));
        quotable.map(move |value| entry(field, &value.value, &value.title)).take(NAVIGATION / LEADING.len())
    };
    LEADING.into_iter().flat_map(of).collect()
}

fn choice(product: &Product, variant: &Variant, currency: &str, availability: &Answered<Vec<Availability>>) -> Choice {
    let options = || variant.options.iter().map(|option| option.value.as_str()).collect::<Vec<_>>().join(", ");
    let title = if variant.title.is_empty() { options() } else { variant.title.clone() };
    Choice {
        sku: variant.sku.clone(),
        title: cut(&title, LABEL),
        price: price_of(variant, currency).cloned(),
        stock: level(is_stocked(product, variant), &variant.sku, 1, availability).into(),
    }
}

/// The price in that currency, or in the shop's own where none is said.
fn price_of<'a>(variant: &'a Variant, currency: &str) -> Option<&'a Money> {
    if currency.is_empty() {
        return variant.price.as_ref();
    }
    variant.prices.iter().find(|price| price.currency_code == currency)
}

fn lines(cart: &Cart, quote: &Quote, availability: &Answered<Vec<Availability>>) -> Vec<CheckoutLine> {
    let price = |item: &str| -> Option<Money> {
        quote.lines.iter().find(|line| line.item == item).and_then(|line| line.subtotal.clone())
    };
    let items = cart.items.iter().take(LINES);
    let line = |item: &contracts::cart::v1::CartItem| CheckoutLine {
        price: price(&item.name),
        item: item.name.clone(),
        sku: item.sku.clone(),
        title: cut(&item.title, TITLE),
        quantity: item.quantity,
        stock: level(item.stocked, &item.sku, item.quantity.into(), availability).into(),
    };
    items.map(line).collect()
}

fn shipping_choice(rate: ShippingRate) -> ShippingChoice {
    ShippingChoice {
        shipping_service: rate.shipping_service,
        title: cut(&rate.title, SHORT),
        price: rate.price,
        max_days: rate.max_days,
    }
}

/// Whether `wanted` units can be had.
fn level(stocked: bool, sku: &str, wanted: i64, known: &Answered<Vec<Availability>>) -> StockLevel {
    if !stocked {
        return StockLevel::Available;
    }
    let Some(known) = &known.value else { return StockLevel::Unspecified };
    match known.iter().find(|it| it.sku == sku).map_or(0, |it| it.available) {
        left if left < wanted => StockLevel::Out,
        left if left < wanted.saturating_add(LOW) => StockLevel::Low,
        _ => StockLevel::Available,
    }
}

/// At most so many characters, the last of them a sign that more was there.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

fn count(many: usize) -> i32 {
    i32::try_from(many).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("größe", 5), "größe");
        assert_eq!(cut("größer", 5), "größ…");
        assert_eq!(cut("", 5), "");
    }

    #[test]
    fn few_are_low_too_few_are_out_and_what_is_not_known_is_not_said() {
        let now: super::super::part::Now = Box::new(|| jiff::Timestamp::UNIX_EPOCH);
        let there = Availability { sku: "A".to_owned(), available: 7 };
        let known = Answered::live("inventory", &now, vec![there]);
        let levels = [1, 3, 7, 8].map(|wanted| level(true, "A", wanted, &known));
        assert_eq!(levels, [StockLevel::Available, StockLevel::Low, StockLevel::Low, StockLevel::Out]);
        assert_eq!(level(true, "B", 1, &known), StockLevel::Out);
        assert_eq!(level(false, "B", 1, &known), StockLevel::Available);
        let missing = Answered::missing("inventory", "UNAVAILABLE");
        assert_eq!(level(true, "A", 1, &missing), StockLevel::Unspecified);
    }
}
