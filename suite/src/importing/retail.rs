//! The "Online Retail" year of sales: what the shop sold becomes its catalogue, and what it sold in all becomes its stock.
//!
//! Codes that stand for no goods become products without stock. The price of a product is the last one it was sold at.

use std::collections::BTreeMap;

use anyhow::bail;

use super::Job;
use crate::goods::{Price, Product, Stock, Variant, is_sku, slug};
use crate::import::Record;
use crate::import::retail::{CURRENCY, InvoiceKind, LineKind, Reader};
use crate::shop::Shop;
use crate::stocking;
use crate::work::Voice;

/// Invoices read between two looks at whether somebody still waits.
const LOOK: u64 = 512;

#[derive(Default)]
struct Sold {
    description: String,
    price_minor: i64,
    pieces: i64,
    goods: bool,
}

/// Reads the year from where it was read before, which is its end or its beginning, and puts its goods into the shop.
pub(super) async fn import(job: &mut Job, shop: &Shop, warehouse: &str, voice: &Voice) -> anyhow::Result<()> {
    let mut reader = Reader::resume(job.text()?, job.position)?;
    let mut codes: BTreeMap<String, Sold> = BTreeMap::new();
    let mut invoices = 0_u64;
    while let Some(record) = reader.next() {
        match record? {
            Record::Good(invoice) => {
                for reject in &invoice.rejected {
                    job.reject(reject)?;
                }
                for line in invoice.lines.iter().filter(|_| invoice.kind == InvoiceKind::Sale) {
                    if line.kind == LineKind::Sale {
                        note(&mut codes, line);
                    }
                }
            }
            Record::Rejected(reject) => job.reject(&reject)?,
        }
        invoices += 1;
        if invoices.is_multiple_of(LOOK) {
            let read = reader.position();
            job.tell_at(read, voice, "; reading").await;
            if voice.unheard() {
                bail!("nobody waits for it any more");
            }
        }
    }
    let products: Vec<Product> = codes.into_iter().map(|(code, sold)| product(code, sold, warehouse)).collect();
    for batch in products.chunks(stocking::BATCH) {
        let stocked = stocking::put(shop, batch, voice).await?;
        job.taken += (batch.len() - stocked.failures.len()) as u64;
        job.created += stocked.created;
        job.updated += stocked.updated;
        job.unchanged += stocked.unchanged;
        for (place, reason, detail) in stocked.failures {
            let sku = batch.get(place).and_then(|it| it.variants.first()).map(|it| it.sku.as_str()).unwrap_or_default();
            job.refuse(0, &reason, &detail, sku)?;
        }
        job.tell(voice, "; stocking").await;
    }
    job.advance(reader.position())?;
    Ok(())
}

fn note(codes: &mut BTreeMap<String, Sold>, line: &crate::import::retail::Line) {
    if !is_sku(&line.code) {
        return;
    }
    let sold = match codes.get_mut(&line.code) {
        Some(sold) => sold,
        None => codes.entry(line.code.clone()).or_default(),
    };
    if !line.description.trim().is_empty() {
        line.description.trim().clone_into(&mut sold.description);
    }
    sold.price_minor = line.price_minor;
    sold.pieces += line.quantity;
    sold.goods = line.goods;
}

fn product(code: String, sold: Sold, warehouse: &str) -> Product {
    let stock = Stock { warehouse: warehouse.to_owned(), quantity: sold.pieces };
    Product {
        id: String::new(),
        title: if sold.description.is_empty() { code.clone() } else { sold.description },
        description: String::new(),
        brand: String::new(),
        categories: Vec::new(),
        stocked: sold.goods,
        external_id: slug(&code),
        variants: vec![Variant {
            sku: code,
            title: String::new(),
            options: Vec::new(),
            prices: vec![Price { currency: CURRENCY.to_owned(), minor: sold.price_minor }],
            weight_grams: 0,
            tax_basis_points: 0,
            stock: if sold.goods { vec![stock] } else { Vec::new() },
        }],
    }
}
