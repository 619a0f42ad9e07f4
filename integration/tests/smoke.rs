//! First sale: from browsing to a shipped order by plain JSON, and all of it still there after kill -9.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::shopper::{Shopper, request_id, text};
use integration::{Setup, Stoa, command_line, until};
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_newcomer_finds_keys_products_and_health_without_a_token() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut anyone = stoa.client();
    for path in ["/healthz", "/readyz"] {
        let answer = anyone.get(path).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.describe());
    }
    let keys = anyone.get("/.well-known/jwks.json").await?.ok()?;
    let key = &keys["keys"][0];
    ensure!(key["kty"].is_string() && key["kid"].is_string(), "no key: {keys}");
    ensure!(key.get("d").is_none(), "a private key is public");

    let list = anyone.get("/v1/products?pageSize=5").await?.ok()?;
    let products = list["products"].as_array().context("no products")?;
    ensure!(products.len() == 5, "asked for 5, got {}", products.len());
    let name = text(&products[0], "name")?;
    let product = anyone.get(&format!("/v1/{name}")).await?.ok()?;
    ensure!(product["variants"][0]["sku"].is_string(), "no sku: {product}");
    ensure!(product == products[0], "the list and the product differ");

    let next = text(&list, "nextPageToken")?;
    let more = anyone.get(&format!("/v1/products?pageSize=5&pageToken={next}")).await?.ok()?;
    ensure!(more["products"][0] != products[0], "the second page repeats the first");

    let title = text(&product, "title")?;
    let word = title.split(' ').next_back().unwrap_or_default().to_lowercase();
    let found = anyone.get(&format!("/v1/products:search?query={word}")).await?.ok()?;
    ensure!(!found["facets"].as_array().context("no facets")?.is_empty());
    let hits = found["products"].as_array().context("no hits")?;
    ensure!(hits.iter().any(|hit| hit["name"] == product["name"]), "{word} does not find {name}");
    Ok(())
}

#[tokio::test]
async fn a_sale_goes_from_cart_to_shipped_and_mailed_and_survives_a_kill() -> Result<()> {
    let mut stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let sku = shopper.something().await?;
    let order = shopper.buy("EUR", &sku, 2, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "not confirmed: {order}");
    let name = text(&order, "name")?;

    stoa.kill().await?;
    stoa.restart().await?;
    let again = shopper.http.again().get(&format!("/v1/{name}")).await?.ok()?;
    ensure!(again["total"] == order["total"], "the total changed: {again}");

    let mut operator = Shopper::operator(&stoa).await?;
    let shipment = until(SOON, "a shipment", async || {
        let http = operator.http.again();
        let mut looking = Shopper { http, user: String::new() };
        Ok(looking.shipments(&name).await?.into_iter().next())
    })
    .await?;
    let early = format!("/v1/{}:dispatch", text(&shipment, "name")?);
    let body = json!({ "carrier": "Hermes", "requestId": request_id() });
    let early = operator.http.post(&early, &body).await?;
    ensure!(early.status == 400, "dispatched before it was packed and paid: {}", early.describe());
    operator.ship(&name, SOON).await?;
    let shipped = shopper.await_order(&name, &["ORDER_STATE_SHIPPED"], SOON).await?;
    ensure!(shipped["total"] == order["total"]);

    let version = shipped["version"].as_str().unwrap_or("0");
    let view = shopper.http.get(&format!("/v1/{name}/view?minVersion={version}")).await?.ok()?;
    ensure!(view["state"] == "ORDER_STATE_SHIPPED", "the view lags: {view}");
    let events = shopper.http.get(&format!("/v1/{name}/events")).await?.ok()?;
    ensure!(events["events"].as_array().is_some_and(|events| events.len() >= 3), "{events}");
    let story = operator.http.get(&format!("/v1/{name}:explain")).await?.ok()?;
    ensure!(story["steps"].as_array().is_some_and(|steps| steps.len() > 5), "{story}");
    let folder = stoa.data().display().to_string();
    let told = command_line::stoa(["explain", &name, "--data", &folder]).await?;
    ensure!(told.code == Some(0) && told.output.contains("OrderConfirmed"), "{told:?}");

    let id = name.trim_start_matches("orders/").to_owned();
    until(SOON, "a mail about the order", async || Ok(mail_about(stoa.data(), &id)?.then_some(()))).await?;
    until(SOON, "a clean audit", async || stoa.audit().await.map(Some)).await?;

    let status = stoa.stop().await?;
    ensure!(status.success(), "the drain ended with {status}");
    // The files answer without a server, too.
    stoa.audit().await?;
    Ok(())
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused_with_the_reason() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let folder = stoa.data().display().to_string();
    let second = command_line::stoa(["--data", &folder, "--listen", "127.0.0.1:0"]).await?;
    ensure!(second.code == Some(3), "not refused as in use: {second:?}");
    let reason = second.errors.to_lowercase();
    ensure!(reason.contains("lock") || reason.contains("in use"), "no reason: {second:?}");
    ensure!(stoa.client().get("/readyz").await?.status == 200, "the first one suffered");
    Ok(())
}

#[tokio::test]
async fn help_names_every_command_and_a_wrong_flag_is_refused() -> Result<()> {
    let help = command_line::stoa(["--help"]).await?;
    ensure!(help.code == Some(0));
    for command in ["import", "audit", "explain", "orders", "rebuild", "psp", "config"] {
        ensure!(help.output.contains(command), "--help does not know {command}:\n{}", help.output);
    }
    let wrong = command_line::stoa(["--no-such-flag"]).await?;
    ensure!(wrong.code == Some(2), "{wrong:?}");
    Ok(())
}

/// Looks through every mail below the data folder.
fn mail_about(folder: &Path, id: &str) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && mail_about(&path, id)? {
            return Ok(true);
        }
        let is_mail = path.extension().is_some_and(|end| end == "eml");
        // Quoted-printable breaks lines with `=` at the end: they are joined before looking.
        if is_mail && std::fs::read_to_string(&path)?.replace("=\r\n", "").contains(id) {
            return Ok(true);
        }
    }
    Ok(false)
}
