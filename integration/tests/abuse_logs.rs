//! Logs: no token, password or card number stands in any line of a shop, however much it is told to say, and nobody writes a line

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::shopper::{Shopper, order_body, request_id, text};
use integration::{Setup, Stoa, raw, until};
use serde_json::{Value, json};

const PASSWORD: &str = "canary-password-7f3a";
const WRONG: &str = "canary-wrong-guess-91bc";
/// What somebody types who takes the field of the provider's token for one of a card.
const CARD: &str = "4012888888881881";
const SECURITY: &str = "canary-signature-5d20";

/// Everything that our own code says. The libraries below it say of a connection what they read, which is why nobody runs a
/// shop with theirs on.
const FILTER: &str = "debug,hyper=info,h2=info,hyper_util=info,tower=info,rustls=info,tonic=info";

#[tokio::test]
async fn no_secret_stands_in_a_log_line_or_in_an_answer_to_a_mistake() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let setup = Setup::new().flags(["--log-filter", FILTER]).copy(&log);
    let mut stoa = Stoa::start(setup).await?;
    let mut secrets: BTreeSet<String> = [PASSWORD, WRONG, CARD, SECURITY].map(str::to_owned).into();
    let mut answers = vec![];

    let mut client = stoa.client();
    let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    let user = json!({ "email": email, "password": PASSWORD, "displayName": "Ada", "requestId": request_id() });
    client.post("/v1/users", &user).await?.ok()?;
    let session = client.post("/v1/sessions:signIn", &json!({ "email": email, "password": PASSWORD })).await?.ok()?;
    remember(&mut secrets, &session)?;
    let again = json!({ "refreshToken": text(&session, "refreshToken")? });
    remember(&mut secrets, &client.post("/v1/sessions:refresh", &again).await?.ok()?)?;
    // Mistakes, each with a secret in it.
    answers.push(client.post("/v1/sessions:signIn", &json!({ "email": email, "password": WRONG })).await?);
    answers.push(client.post("/v1/sessions:signIn", &json!({ "email": email, "password": [WRONG] })).await?);
    answers.push(client.post("/v1/users", &json!({ "email": "no address", "password": PASSWORD })).await?);
    answers.push(client.post("/v1/sessions:refresh", &json!({ "refreshToken": WRONG })).await?);
    let mut forged = stoa.client();
    let token = text(&session, "accessToken")?;
    forged.set_token(format!("{token}{WRONG}"));
    answers.push(forged.get("/v1/orders").await?);
    let headers = [("Stoa-Signature", SECURITY)];
    let kind = Some("application/json");
    answers.push(client.send_bytes(http::Method::POST, "/v1/webhooks/sandbox", kind, &headers, "{}".into()).await?);

    let mut shopper = Shopper::sign_in(stoa.client(), &email, PASSWORD).await?;
    secrets.insert(shopper.http.token().context("no token")?.to_owned());
    let sku = shopper.something().await?;
    shopper.buy("EUR", &sku, 1, "tok_ok").await?;
    let mut guest = Shopper::guest(&stoa).await?;
    secrets.insert(guest.http.token().context("no token")?.to_owned());
    let priced = guest.fill("EUR", &sku, 1).await?;
    secrets.insert(priced.token.clone());
    answers.push(guest.http.post("/v1/orders", &order_body(&priced, CARD, &request_id())).await?);
    stoa.stop().await?;

    let written = std::fs::read_to_string(&log)?;
    ensure!(written.lines().count() > 20, "a log that says so little proves nothing:\n{written}");
    ensure!(written.contains("audit"), "no audit record:\n{written}");
    for secret in &secrets {
        let line = written.lines().find(|line| line.contains(secret.as_str()));
        ensure!(line.is_none(), "{secret} stands in the log: {line:?}");
        let told = answers.iter().find(|answer| String::from_utf8_lossy(&answer.body).contains(secret.as_str()));
        ensure!(told.is_none(), "{secret} stands in an answer: {}", told.map(|it| it.describe()).unwrap_or_default());
    }
    Ok(())
}

fn remember(secrets: &mut BTreeSet<String>, session: &Value) -> Result<()> {
    for name in ["accessToken", "refreshToken"] {
        secrets.insert(text(session, name)?);
    }
    Ok(())
}

#[tokio::test]
async fn what_somebody_sends_never_begins_a_line_of_the_log_nor_colours_one() -> Result<()> {
    for format in ["pretty", "json"] {
        let stoa = Stoa::start(Setup::new().flags(["--log", format])).await?;
        // A provider's name, which is written down because nobody has it.
        let path = "/v1/webhooks/x%0d%0aFORGED%20by%20me%1b%5b31m%c2%9b31m%e2%80%a8";
        let request = raw::request("POST", path, &[("Content-Type", "application/json")], b"{}");
        let answer = raw::exchange(stoa.address(), &request).await?;
        ensure!(answer.status == 401, "{}", answer.describe());
        let line = until(Duration::from_secs(20), "the line is written", async || {
            let lines = stoa.output().tail(100);
            Ok(lines.lines().find(|line| line.contains("FORGED by me")).map(str::to_owned))
        });
        let line = line.await?;
        ensure!(line.contains("a webhook without a genuine signature"), "{format}: a line of its own: {line:?}");
        // What reads JSON is no terminal: there the controls of ASCII are what JSON itself escapes.
        let pretty = format == "pretty";
        let escaped = |c: &char| c.is_ascii_control() || pretty && (c.is_control() || *c == '\u{2028}');
        let raw = line.chars().find(escaped);
        ensure!(raw.is_none(), "{format}: {raw:?} as it came: {line:?}");
    }
    Ok(())
}
