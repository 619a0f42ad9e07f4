//! Access: every method, called by nobody, a customer, another one and an operator, answers as reviewed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use integration::shopper::{Shopper, request_id, text};
use integration::{Setup, Stoa, command_line, grpc};
use serde::Deserialize;
use serde_json::json;

const SKU: &str = "ACCESS-MATRIX";

/// One method of the matrix.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    body: String,
    anonymous: String,
    customer: String,
    stranger: String,
    operator: String,
}

/// The people and what they have.
struct World {
    stoa: Stoa,
    customer: Shopper,
    stranger: Shopper,
    operator: Shopper,
    warehouse: String,
    product: String,
    variant: String,
    projection: String,
}

/// A body with its resources, and the token of the customer they belong to.
struct Filled {
    body: String,
    owner: String,
}

#[tokio::test]
async fn every_method_answers_each_caller_as_the_matrix_says() -> Result<()> {
    let path = command_line::repository().join("integration/access_matrix.toml");
    let matrix: BTreeMap<String, Row> = toml::from_str(&std::fs::read_to_string(path)?)?;
    let mut world = World::make().await?;
    let client = grpc::Client::connect(world.stoa.address()).await?;

    let known: BTreeSet<String> = client
        .pool()
        .services()
        .filter(|service| service.full_name().starts_with("stoa."))
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| format!("{}/{}", method.parent_service().full_name(), method.name()))
        .collect();
    ensure!(known.len() > 60, "reflection tells only {} methods", known.len());
    let listed: BTreeSet<String> = matrix.keys().cloned().collect();
    let missing: Vec<_> = known.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&known).collect();
    ensure!(missing.is_empty(), "not in the matrix: {missing:#?}");
    ensure!(gone.is_empty(), "in the matrix and nowhere else: {gone:#?}");

    let mut wrong = Vec::new();
    for (name, row) in &matrix {
        let method = client.method(name)?;
        let expected = [
            ("anonymous", &row.anonymous),
            ("customer", &row.customer),
            ("stranger", &row.stranger),
            ("operator", &row.operator),
        ];
        for (caller, expected) in expected {
            let filled = world.fill(&row.body).await.with_context(|| format!("{name} for {caller}"))?;
            let token = match caller {
                "anonymous" => None,
                "customer" => Some(filled.owner.clone()),
                "stranger" => world.stranger.http.token().map(str::to_owned),
                _ => world.operator.http.token().map(str::to_owned),
            };
            let client = match token {
                Some(token) => client.with_token(token),
                None => client.clone(),
            };
            let body = serde_json::from_str(&filled.body).context(filled.body.clone())?;
            let code = client.probe(&method, &body).await.with_context(|| name.clone())?;
            let found = spelled(code);
            if found != *expected {
                wrong.push(format!("{name} for {caller}: {found}, not {expected}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

impl World {
    async fn make() -> Result<Self> {
        let stoa = Stoa::start(Setup::new()).await?;
        let customer = Shopper::customer(&stoa).await?;
        let stranger = Shopper::customer(&stoa).await?;
        let mut operator = Shopper::operator(&stoa).await?;
        operator.stock(SKU, 10, 100_000).await?;
        let warehouse = operator.warehouse().await?;
        let found = operator.http.get(&format!("/v1/products:batchGetVariants?skus={SKU}")).await?.ok()?;
        let variant = &found["variants"][0];
        let (product, variant) = (text(variant, "product")?, text(variant, "name")?);
        let list = operator.http.get("/v1/services/ordering/projections").await?.ok()?;
        let projection = text(&list["projections"][0], "name")?;
        Ok(Self { stoa, customer, stranger, operator, warehouse, product, variant, projection })
    }

    /// Puts real resources into a body; what the call may use up is made anew.
    async fn fill(&mut self, body: &str) -> Result<Filled> {
        let mut owner = self.customer.http.token().context("no token")?.to_owned();
        let mut values: Vec<(&str, String)> = vec![
            ("{sku}", SKU.to_owned()),
            ("{product}", self.product.clone()),
            ("{variant}", self.variant.clone()),
            ("{warehouse}", self.warehouse.clone()),
            ("{user}", self.customer.user.clone()),
            ("{projection}", self.projection.clone()),
        ];
        let needs = |names: &[&str]| names.iter().any(|name| body.contains(name));
        if needs(&["{order}", "{line}", "{payment}", "{attempt}", "{shipment}", "{saga}"]) {
            let order = self.customer.buy("EUR", SKU, 1, "tok_ok").await?;
            ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
            let name = text(&order, "name")?;
            let payment = text(&order, "payment")?;
            values.push(("{line}", text(&order["lines"][0], "line")?));
            values.push(("{attempt}", format!("{payment}/attempts/1")));
            values.push(("{payment}", payment));
            // What comes after the confirmation (cart, parcel) must be over, so that every call meets
            // the same state.
            let saga = text(&order, "saga")?;
            let operator = self.operator.http.again();
            let open = "SAGA_PHASE_RUNNING";
            let parcel = integration::until(std::time::Duration::from_secs(15), "the saga is done", async || {
                let saga = operator.again().get(&format!("/v1/{saga}")).await?.ok()?;
                let http = operator.again();
                let mut looking = Shopper { http, user: String::new() };
                let parcel = looking.shipments(&name).await?.into_iter().next();
                Ok(parcel.filter(|_| saga["phase"] != open))
            })
            .await?;
            values.push(("{saga}", saga));
            values.push(("{shipment}", text(&parcel, "name")?));
            values.push(("{order}", name));
        }
        if needs(&["{cart}", "{cart_item}", "{cart_etag}", "{quote}"]) {
            // A customer of its own: the cart of an order just placed closes a moment later.
            let mut buyer = Shopper::customer(&self.stoa).await?;
            let cart = text(&buyer.cart("EUR").await?, "name")?;
            let filled = buyer.add(&cart, SKU, 1).await?;
            let priced = buyer.price(&cart).await?;
            owner = buyer.http.token().context("no token")?.to_owned();
            values.push(("{cart_item}", text(&filled["items"][0], "name")?));
            values.push(("{cart_etag}", priced.etag));
            values.push(("{quote}", priced.token));
            values.push(("{cart}", cart));
        }
        if needs(&["{leaver}", "{session}", "{email}"]) {
            let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
            let password = "a long enough password";
            let user = json!({
                "email": email, "password": password, "displayName": "Leaver", "requestId": request_id(),
            });
            let mut http = self.stoa.client();
            http.post("/v1/users", &user).await?.ok()?;
            let mut leaver = Shopper::sign_in(http, &email, password).await?;
            let sessions = leaver.http.get(&format!("/v1/{}/sessions", leaver.user)).await?.ok()?;
            values.push(("{session}", text(&sessions["sessions"][0], "name")?));
            values.push(("{leaver}", leaver.user.clone()));
            values.push(("{email}", email));
            values.push(("{password}", password.to_owned()));
            owner = leaver.http.token().context("no token")?.to_owned();
        }
        if needs(&["{refresh}"]) {
            let guest = self.stoa.client().post("/v1/sessions:guest", &json!({})).await?.ok()?;
            values.push(("{refresh}", text(&guest, "refreshToken")?));
        }
        let mut body = body.to_owned();
        for (name, value) in values {
            body = body.replace(name, &value);
        }
        while body.contains("{uuid}") {
            body = body.replacen("{uuid}", &request_id(), 1);
        }
        Ok(Filled { body, owner })
    }
}

/// A code as `google.rpc.Code` spells it.
fn spelled(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}
