//! The people of a shop: somebody who browses, fills a cart and orders; somebody who runs the place.
//!
//! Every step is one public call as `docs/api` describes it. A shopper has a connection of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::{Answer, Client};
use crate::server::{OPERATOR, Stoa};

/// Somebody with a token and a connection.
pub struct Shopper {
    /// The connection, with the token.
    pub http: Client,
    /// The name of the user or guest.
    pub user: String,
}

/// A cart that was priced: what PlaceOrder needs.
#[derive(Clone, Debug)]
pub struct Priced {
    /// The cart's name.
    pub cart: String,
    /// Its version when it was priced.
    pub etag: String,
    /// The signed quote.
    pub token: String,
    /// The total, as `google.type.Money`.
    pub total: Value,
}

impl Priced {
    /// What PlaceOrder needs of a quote.
    pub fn read(quote: &Value) -> Result<Self> {
        Ok(Self {
            cart: text(quote, "cart")?,
            etag: text(quote, "cartEtag")?,
            token: text(quote, "quoteToken")?,
            total: quote["total"].clone(),
        })
    }
}

/// A fresh request id.
pub fn request_id() -> String {
    Uuid::new_v4().to_string()
}

/// An address that any shop can ship to.
pub fn address() -> Value {
    json!({
        "recipient": "Ada Example",
        "street": "1 Colonnade Street",
        "city": "Athens",
        "postalCode": "10551",
        "countryCode": "GR",
    })
}

impl Shopper {
    /// A guest.
    pub async fn guest(stoa: &Stoa) -> Result<Self> {
        Self::guest_over(stoa.client()).await
    }

    /// A guest over a connection of the caller's.
    pub async fn guest_over(mut http: Client) -> Result<Self> {
        let session = http.post("/v1/sessions:guest", &json!({})).await?.ok()?;
        Self::with_session(http, &session)
    }

    /// A new customer with an account, signed in.
    pub async fn customer(stoa: &Stoa) -> Result<Self> {
        Self::customer_over(stoa.client()).await
    }

    /// A new customer over a connection of the caller's.
    pub async fn customer_over(mut http: Client) -> Result<Self> {
        let email = format!("{}@example.com", Uuid::new_v4().simple());
        let password = "a long enough password";
        let user = json!({
            "email": email,
            "password": password,
            "displayName": "Ada Example",
            "requestId": request_id(),
        });
        http.post("/v1/users", &user).await?.ok()?;
        Self::sign_in(http, &email, password).await
    }

    /// The operator of the first start.
    pub async fn operator(stoa: &Stoa) -> Result<Self> {
        Self::operator_over(stoa.client()).await
    }

    /// The operator of the first start, over a connection of the caller's.
    pub async fn operator_over(http: Client) -> Result<Self> {
        Self::sign_in(http, OPERATOR.0, OPERATOR.1).await
    }

    /// Somebody who has an account.
    pub async fn sign_in(mut http: Client, email: &str, password: &str) -> Result<Self> {
        let body = json!({ "email": email, "password": password });
        let session = http.post("/v1/sessions:signIn", &body).await?.ok()?;
        Self::with_session(http, &session)
    }

    /// Somebody whose session has just begun.
    pub(crate) fn with_session(mut http: Client, session: &Value) -> Result<Self> {
        http.set_token(text(session, "accessToken")?);
        let user = match &session["user"] {
            Value::String(name) => name.clone(),
            user => text(user, "name")?,
        };
        Ok(Self { http, user })
    }

    /// What the shopper shows: the value of `Authorization`.
    pub fn bearer(&self) -> Result<String> {
        Ok(format!("Bearer {}", self.http.token().context("no token")?))
    }

    /// The shopper's cart, made if there is none.
    pub async fn cart(&mut self, currency: &str) -> Result<Value> {
        let body = json!({ "currencyCode": currency });
        let mut answer = self.http.post("/v1/carts:getOrCreate", &body).await?.ok()?;
        Ok(answer["cart"].take())
    }

    /// Puts something into a cart.
    pub async fn add(&mut self, cart: &str, sku: &str, quantity: u32) -> Result<Value> {
        let body = json!({ "sku": sku, "quantity": quantity, "requestId": request_id() });
        let mut answer = self.http.post(&format!("/v1/{cart}:addItem"), &body).await?.ok()?;
        Ok(answer["cart"].take())
    }

    /// Asks what the cart costs; the answer is signed and holds for a while.
    pub async fn price(&mut self, cart: &str) -> Result<Priced> {
        let answer = self.http.post(&format!("/v1/{cart}:price"), &json!({})).await?.ok()?;
        Priced::read(&answer["quote"])
    }

    /// A cart with one thing in it, priced.
    pub async fn fill(&mut self, currency: &str, sku: &str, quantity: u32) -> Result<Priced> {
        let cart = text(&self.cart(currency).await?, "name")?;
        self.add(&cart, sku, quantity).await?;
        self.price(&cart).await
    }

    /// Places an order and waits for its outcome.
    pub async fn order(&mut self, priced: &Priced, token: &str) -> Result<Value> {
        let body = order_body(priced, token, &request_id());
        self.http.post("/v1/orders", &body).await?.ok()
    }

    /// From an empty cart to an order.
    pub async fn buy(&mut self, currency: &str, sku: &str, quantity: u32, token: &str) -> Result<Value> {
        let priced = self.fill(currency, sku, quantity).await?;
        self.order(&priced, token).await
    }

    /// Looks at an order until it is in one of the states.
    pub async fn await_order(&mut self, name: &str, states: &[&str], limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(20);
        loop {
            let order = self.http.get(&format!("/v1/{name}")).await.and_then(Answer::ok);
            if let Ok(order) = &order
                && order["state"].as_str().is_some_and(|state| states.contains(&state))
            {
                return Ok(order.clone());
            }
            if let Ok(order) = &order
                && order["state"] == "ORDER_STATE_REJECTED"
            {
                bail!("{name} is refused for good, not {states:?}: {order}");
            }
            if Instant::now() > deadline {
                bail!("{name} is not {states:?} within {limit:?}: {order:?}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(320));
        }
    }

    /// Adds to (or takes from) the stock of something; operators only.
    pub async fn adjust(&mut self, warehouse: &str, sku: &str, delta: i64) -> Result<Value> {
        let body = json!({ "delta": delta.to_string(), "requestId": request_id() });
        let path = format!("/v1/{warehouse}/stockItems/{sku}:adjust");
        self.http.post(&path, &body).await?.ok()
    }

    /// The first warehouse there is; operators only.
    pub async fn warehouse(&mut self) -> Result<String> {
        let list = self.http.get("/v1/warehouses/-/stockItems?pageSize=1").await?.ok()?;
        // A shop without the sample has none until the first piece arrives.
        let Some(name) = list["stockItems"][0]["name"].as_str() else { return Ok("warehouses/main".to_owned()) };
        let parts: Vec<&str> = name.split('/').take(2).collect();
        Ok(parts.join("/"))
    }

    /// Puts something new on sale, with so many pieces in stock; operators only.
    pub async fn stock(&mut self, sku: &str, euros: i64, pieces: i64) -> Result<()> {
        let product = json!({
            "title": format!("Test article {sku}"),
            "variants": [{
                "sku": sku,
                "prices": [{ "currencyCode": "EUR", "units": euros.to_string() }],
            }],
        });
        let path = format!("/v1/products?requestId={}", request_id());
        self.http.post(&path, &product).await?.ok()?;
        if pieces > 0 {
            let warehouse = self.warehouse().await?;
            self.adjust(&warehouse, sku, pieces).await?;
        }
        Ok(())
    }

    /// The shipments of an order.
    pub async fn shipments(&mut self, order: &str) -> Result<Vec<Value>> {
        let path = format!("/v1/shipments?filter=order%3D%22{order}%22");
        let mut list = self.http.get(&path).await?.ok()?;
        Ok(match list["shipments"].take() {
            Value::Array(shipments) => shipments,
            _ => Vec::new(),
        })
    }

    /// Packs every shipment of an order and sends it off as soon as it is paid; operators only.
    pub async fn ship(&mut self, order: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let shipments = self.shipments(order).await?;
            let mut done = !shipments.is_empty();
            for shipment in &shipments {
                let (name, state) = (text(shipment, "name")?, text(shipment, "state")?);
                let mut body = json!({ "requestId": request_id() });
                let verb = match state.as_str() {
                    "SHIPMENT_STATE_PREPARING" => "pack",
                    "SHIPMENT_STATE_RELEASED" => "dispatch",
                    "SHIPMENT_STATE_PACKED" => "",
                    _ => continue,
                };
                done = false;
                if verb == "dispatch" {
                    body["carrier"] = json!("Hermes");
                    body["trackingNumber"] = json!("T-1");
                }
                if !verb.is_empty() {
                    // The answer does not matter: the next look shows what came of it.
                    self.http.post(&format!("/v1/{name}:{verb}"), &body).await?;
                }
            }
            if done {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{order} is not shipped within {limit:?}: {shipments:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is there of some SKUs: `items[]`.
    pub async fn availability(&mut self, skus: &[&str]) -> Result<Value> {
        let query: Vec<String> = skus.iter().map(|sku| format!("skus={sku}")).collect();
        let path = format!("/v1/stockItems:batchGetAvailability?{}", query.join("&"));
        self.http.get(&path).await?.ok()
    }

    /// Some SKU that is for sale in a currency and in stock: the first of the catalogue.
    pub async fn something(&mut self) -> Result<String> {
        let list = self.http.get("/v1/products?pageSize=50").await?.ok()?;
        let products = list["products"].as_array().context("no products")?;
        let skus: Vec<&str> = products
            .iter()
            .flat_map(|product| product["variants"].as_array().into_iter().flatten())
            .filter_map(|variant| variant["sku"].as_str())
            .collect();
        for sku in &skus {
            let stock = self.availability(&[sku]).await?;
            if stock["availabilities"][0]["available"].as_str().is_some_and(|count| count != "0") {
                return Ok((*sku).to_owned());
            }
        }
        bail!("nothing of {skus:?} is in stock")
    }
}

/// The body of PlaceOrder.
pub fn order_body(priced: &Priced, token: &str, request_id: &str) -> Value {
    json!({
        "cart": priced.cart,
        "cartEtag": priced.etag,
        "quoteToken": priced.token,
        "paymentMethod": { "token": token },
        "shippingAddress": address(),
        "requestId": request_id,
        "waitTimeout": "10s",
    })
}

/// A field that must be a text.
pub fn text(json: &Value, field: &str) -> Result<String> {
    json[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {json}"))
}
