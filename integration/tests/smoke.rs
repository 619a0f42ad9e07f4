//! First sale: from browsing to a shipped order by plain JSON, and all of it still there after kill -9.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::shopper::{Shopper, text};
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
    ensure!(
        key["kty"].is_string() && key["kid"].is_string(),
        "no key: {keys}"
    );
    ensure!(key.get("d").is_none(), "a private key is public");

    let list = anyone.get("/v1/products?pageSize=5").await?.ok()?;
    let products = list["products"].as_array().context("no products")?;
    ensure!(products.len() == 5, "asked for 5, got {}", products.len());
    let name = text(&products[0], "name")?;
    let product = anyone.get(&format!("/v1/{name}")).await?.ok()?;
    ensure!(
        product["variants"][0]["sku"].is_string(),
        "no sku: {product}"
    );
    ensure!(product == products[0], "the list and the product differ");

    let next = text(&list, "nextPageToken")?;
    let more = anyone
        .get(&format!("/v1/products?pageSize=5&pageToken={next}"))
        .await?
        .ok()?;
    ensure!(
        more["products"][0] != products[0],
        "the second page repeats the first"
    );

    let word = product["title"]
        .as_str()
        .unwrap_or_default()
        .split(' ')
        .next()
        .unwrap_or_default();
    let found = anyone
        .get(&format!("/v1/products:search?query={word}"))
        .await?
        .ok()?;
    ensure!(!found["facets"].as_array().context("no facets")?.is_empty());
    let hits = found["products"].as_array().context("no hits")?;
    ensure!(
        hits.iter().any(|hit| hit["name"] == product["name"]),
        "{word} does not find {name}"
    );
    Ok(())
}

#[tokio::test]
async fn a_sale_goes_from_guest_to_shipped_and_mailed_and_survives_a_kill() -> Result<()> {
    let mut stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let sku = shopper.something().await?;
    let order = shopper.buy("EUR", &sku, 2, "tok_ok").await?;
    ensure!(
        order["state"] == "ORDER_STATE_CONFIRMED",
        "not confirmed: {order}"
    );
    let name = text(&order, "name")?;

    stoa.kill().await?;
    stoa.restart().await?;
    let mut shopper = Shopper {
        http: shopper.http.again(),
        ..shopper
    };
    let again = shopper.http.get(&format!("/v1/{name}")).await?.ok()?;
    ensure!(
        again["total"] == order["total"],
        "the total changed: {again}"
    );

    let mut operator = Shopper::operator(&stoa).await?;
    let shipment = until(SOON, "a shipment", async || {
        let path = format!("/v1/shipments?filter=order%3D%22{name}%22");
        let list = stoa_client(&operator).get(&path).await?.ok()?;
        Ok(list["shipments"][0]["name"].as_str().map(str::to_owned))
    })
    .await?;
    operator
        .http
        .post(&format!("/v1/{shipment}:pack"), &with_id(json!({})))
        .await?
        .ok()?;
    let dispatch = with_id(json!({ "carrier": "test", "trackingCode": "T-1" }));
    until(SOON, "the parcel may leave once it is paid", async || {
        let answer = stoa_client(&operator)
            .post(&format!("/v1/{shipment}:dispatch"), &dispatch)
            .await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    let shipped = shopper
        .await_order(&name, &["ORDER_STATE_SHIPPED"], SOON)
        .await?;
    ensure!(shipped["total"] == order["total"]);

    let view = shopper.http.get(&format!("/v1/{name}/view")).await?.ok()?;
    ensure!(
        view["state"].is_string() || view["order"].is_object(),
        "no view: {view}"
    );
    let events = shopper
        .http
        .get(&format!("/v1/{name}/events"))
        .await?
        .ok()?;
    ensure!(
        events["events"]
            .as_array()
            .is_some_and(|events| events.len() >= 3),
        "{events}"
    );
    let story = shopper.http.get(&format!("/v1/{name}:explain")).await;
    ensure!(story.is_ok_and(|answer| answer.status == 200 || answer.status == 403));
    let told = command_line::stoa([
        "explain",
        &name,
        "--data",
        &stoa.data().display().to_string(),
    ])
    .await?;
    ensure!(
        told.code == Some(0) && told.output.contains("OrderConfirmed"),
        "{told:?}"
    );

    let id = name.trim_start_matches("orders/").to_owned();
    until(SOON, "a mail about the order", async || {
        Ok(mail_about(stoa.data(), &id)?.then_some(()))
    })
    .await?;
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
    ensure!(
        second.code.is_some_and(|code| code != 0),
        "a second process runs: {second:?}"
    );
    ensure!(
        second.errors.contains("lock") || second.errors.contains("use"),
        "no reason: {second:?}"
    );
    ensure!(
        stoa.client().get("/readyz").await?.status == 200,
        "the first one suffered"
    );
    Ok(())
}

#[tokio::test]
async fn the_address_is_the_first_line_and_help_is_for_people() -> Result<()> {
    let help = command_line::stoa(["--help"]).await?;
    ensure!(help.code == Some(0));
    for command in [
        "import", "audit", "explain", "orders", "rebuild", "psp", "config",
    ] {
        ensure!(
            help.output.contains(command),
            "--help does not know {command}:\n{}",
            help.output
        );
    }
    let wrong = command_line::stoa(["--no-such-flag"]).await?;
    ensure!(wrong.code == Some(2), "{wrong:?}");
    Ok(())
}

fn stoa_client(shopper: &Shopper) -> integration::http::Client {
    shopper.http.again()
}

fn with_id(mut body: serde_json::Value) -> serde_json::Value {
    body["requestId"] = json!(integration::shopper::request_id());
    body
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
        if is_mail
            && std::fs::read_to_string(&path)?
                .replace("=\r\n", "")
                .contains(id)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
