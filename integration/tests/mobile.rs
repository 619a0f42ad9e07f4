//! Screens of a phone: one call each, at most 8 KiB of gzip, and enough to buy by

use std::io::Read as _;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use integration::http::Client;
use integration::shopper::{Priced, Shopper, text};
use integration::{Setup, Stoa};
use serde_json::Value;

/// What a screen may weigh.
const MOST: usize = 8 << 10;

/// Lines of a large cart.
const LINES: usize = 30;

/// What one call answers, and how many bytes it took.
async fn screen(client: &mut Client, path: &str) -> Result<(Value, usize)> {
    let wanted = [("accept-encoding", "gzip")];
    let answer = client.send_bytes(Method::GET, path, None, &wanted, Bytes::new()).await?;
    ensure!(answer.status == 200, "{path}: {}", answer.describe());
    if !answer.headers.contains_key("content-encoding") {
        // Too little to be worth it.
        ensure!(answer.body.len() < 1 << 10, "{} bytes, and not packed", answer.body.len());
        return Ok((answer.json(), answer.body.len()));
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut plain)?;
    Ok((serde_json::from_slice(&plain)?, answer.body.len()))
}

#[tokio::test]
async fn somebody_with_a_phone_buys_by_three_screens() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let (home, weight) = screen(&mut shopper.http, "/v1/mobile/home?currencyCode=EUR").await?;
    ensure!(weight <= MOST, "the first screen weighs {weight} bytes");
    let cards = home["featured"].as_array().context("nothing is shown")?;
    ensure!(!cards.is_empty() && cards.len() <= 12 && home.get("notLive").is_none(), "{home}");
    let mut skus = Vec::new();
    for card in cards {
        let product = text(card, "product")?;
        let path = format!("/v1/mobile/{product}?currencyCode=EUR");
        let (product, weight) = screen(&mut shopper.http, &path).await?;
        ensure!(weight <= MOST, "{path} weighs {weight} bytes");
        ensure!(product["title"] == card["title"] && product.get("notLive").is_none(), "{product}");
        for choice in product["choices"].as_array().context("no choices")? {
            if choice["stock"] == "STOCK_LEVEL_AVAILABLE" && choice["price"].is_object() {
                skus.push(text(choice, "sku")?);
            }
        }
    }
    skus.truncate(LINES);
    ensure!(skus.len() >= 12, "only {skus:?} can be had");
    let cart = text(&shopper.cart("EUR").await?, "name")?;
    for sku in &skus {
        shopper.add(&cart, sku, 1).await?;
    }

    let (checkout, weight) = screen(&mut shopper.http, &format!("/v1/mobile/{cart}/checkout")).await?;
    ensure!(weight <= MOST, "the screen to order {} lines from weighs {weight} bytes", skus.len());
    ensure!(checkout.get("notLive").is_none() && checkout["lineCount"] == skus.len(), "{checkout}");
    for line in checkout["lines"].as_array().context("no lines")? {
        ensure!(line["price"].is_object() && line["stock"] != "STOCK_LEVEL_OUT", "{line}");
    }
    let token = text(&checkout, "quoteToken")?;
    let priced = Priced { cart, etag: text(&checkout, "cartEtag")?, token, total: checkout["total"].clone() };
    let order = shopper.order(&priced, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED" && order["total"] == priced.total, "{order}");
    Ok(())
}
