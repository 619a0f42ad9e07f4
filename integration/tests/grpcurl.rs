//! grpcurl, without proto files: list, describe, and a placed order on the same port.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::command_line::{self, Ended};
use integration::shopper::{Shopper, order_body, request_id};
use integration::{Setup, Stoa, skip};
use tokio::process::Command;

#[tokio::test]
async fn somebody_elses_client_places_an_order_by_reflection_alone() -> Result<()> {
    if find().is_none() {
        skip::not_proven("no grpcurl");
        return Ok(());
    }
    let stoa = Stoa::start(Setup::new()).await?;
    let services = grpcurl(&stoa, &["list"]).await?;
    for service in [
        "identity.v1.IdentityService",
        "catalog.v1.CatalogService",
        "inventory.v1.InventoryService",
        "cart.v1.CartService",
        "ordering.v1.OrderingService",
        "orderview.v1.OrderviewService",
        "payment.v1.PaymentService",
        "shipping.v1.ShippingService",
        "notification.v1.NotificationService",
    ] {
        ensure!(services.output.contains(&format!("stoa.{service}")), "{services:?}");
    }
    ensure!(services.output.contains("grpc.health.v1.Health"), "{services:?}");

    let method = "stoa.ordering.v1.OrderingService.PlaceOrder";
    let described = grpcurl(&stoa, &["describe", method]).await?;
    for told in ["PlaceOrder", "google.api.http", "/v1/orders", "stoa.contract.v1.policy"] {
        ensure!(described.output.contains(told), "describe tells no {told}: {described:?}");
    }
    let health = grpcurl(&stoa, &["grpc.health.v1.Health/Check"]).await?;
    ensure!(health.output.contains("SERVING"), "{health:?}");

    let mut shopper = Shopper::guest(&stoa).await?;
    let sku = shopper.something().await?;
    let priced = shopper.fill("EUR", &sku, 1).await?;
    let body = order_body(&priced, "tok_ok", &request_id()).to_string();
    let token = format!("authorization: {}", shopper.bearer()?);
    let place = "stoa.ordering.v1.OrderingService/PlaceOrder";
    let placed = grpcurl(&stoa, &["-H", &token, "-d", &body, place]).await?;
    ensure!(placed.output.contains("ORDER_STATE_CONFIRMED"), "{placed:?}");

    // Without a token the same call is refused, with gRPC's own code.
    let refused = run(&stoa, &["-d", &body, place]).await?;
    ensure!(refused.code == Some(64 + 16), "{refused:?}");
    Ok(())
}

/// grpcurl as the lane installed it, or the one on the path.
fn find() -> Option<String> {
    if let Ok(path) = std::env::var("STOA_GRPCURL") {
        return Some(path);
    }
    std::env::var("PATH")
        .ok()?
        .split(':')
        .map(|folder| format!("{folder}/grpcurl"))
        .find(|path| std::path::Path::new(path).is_file())
}

async fn grpcurl(stoa: &Stoa, arguments: &[&str]) -> Result<Ended> {
    let ended = run(stoa, arguments).await?;
    ensure!(ended.code == Some(0), "grpcurl {arguments:?}: {ended:?}");
    Ok(ended)
}

/// The address comes before the symbol, which is the last one or two words.
async fn run(stoa: &Stoa, arguments: &[&str]) -> Result<Ended> {
    let address = stoa.address().to_string();
    let symbol = arguments.iter().position(|word| !word.starts_with('-') && *word != "-d");
    let mut words: Vec<&str> = Vec::from(arguments);
    let at = match arguments.first() {
        Some(&"-H") => 4,
        Some(&"-d") => 2,
        Some(_) | None => symbol.unwrap_or(0),
    };
    words.insert(at, &address);
    let program = find().context("no grpcurl")?;
    command_line::run(Command::new(program).arg("-plaintext").args(words), Duration::from_secs(60)).await
}
