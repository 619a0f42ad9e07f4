//! The provider by itself goes on with the ledger of the shop on its folder, and one process at a time has it.

use anyhow::{Result, ensure};
use integration::ledger::Provider;
use integration::shopper::Shopper;
use integration::{Setup, Stoa, command_line};

#[tokio::test]
async fn a_provider_outside_goes_on_with_the_ledger_of_the_one_inside() -> Result<()> {
    let mut stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::guest(&stoa).await?;
    let sku = shopper.something().await?;
    let order = shopper.buy("EUR", &sku, 1, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");

    refused(&stoa).await?;
    ensure!(stoa.stop().await?.success());
    let provider = Provider::start_on(stoa.data()).await?;
    ensure!(provider.ledger().await?.authorized().count() == 1, "the authorisation is not known outside");
    let place = stoa.data().join("psp").display().to_string();
    integration::until(std::time::Duration::from_secs(5), "the folder of the ledger is told", async || {
        Ok(provider.output().contains(&place).then_some(()))
    })
    .await?;
    refused(&stoa).await?;

    stoa.change(Setup::new().provider(&provider.url()));
    stoa.restart().await?;
    stoa.audit().await?;
    Ok(())
}

/// The ledger has one user: a second one is told so, by its exit code too.
async fn refused(stoa: &Stoa) -> Result<()> {
    let data = stoa.data().display().to_string();
    let ended = command_line::stoa(["psp", "--listen", "127.0.0.1:0", "--data", &data]).await?;
    ensure!(ended.code == Some(3) && ended.errors.contains("another process holds the ledger"), "{ended:?}");
    Ok(())
}
