//! Rotation: signing keys, certificates and their authority are exchanged under customers who take no for an answer; none gets one

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::calls::Calls;
use integration::certified::{Dialer, taken_up};
use integration::fleet::{Copy, GATEWAY, Plan, SERVICES, certify};
use integration::server::SHORT_WINDOWS;
use integration::shopper::{Shopper, request_id, text};
use integration::signed::{Token, now};
use integration::sold_out::SKU;
use integration::{Fleet, command_line, until};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Who buys and reads all the while.
const CUSTOMERS: usize = 4;
/// How often everything is exchanged.
const ROUNDS: usize = 3;
/// Keys are published so long before they sign, and doors look for them every half second.
const NOTICE: &str = "10s";
/// How long an access token lives: long enough for a round of a customer on a machine that does other work.
const TOKENS: &str = "2m";
/// Besides what is always told, which files were taken up.
const FILTER: &str = "warn,audit=info,tls=info";
/// From a change until every process has it.
const TAKEN_UP: Duration = Duration::from_secs(120);
/// From an exchange until so many more rounds were made.
const PATIENCE: Duration = Duration::from_secs(300);
/// A token that ends within so many seconds is not shown any more: it could end on its way.
const NEAR_S: i64 = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_certificates_and_their_authority_are_exchanged_and_no_call_fails() -> Result<()> {
    let second: Copy = (GATEWAY, 1);
    let windows: Vec<&str> = SHORT_WINDOWS
        .into_iter()
        .chain(["--key-notice", NOTICE, "--access-token", TOKENS, "--log-filter", FILTER])
        .collect();
    let plan = Plan { windows: &windows, reserved: &[second], ..Plan::default() };
    let mut fleet = Fleet::start_as(command_line::binary()?, &plan).await?;
    fleet.launch(second).await?;
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let mut customers = Customers::at(&fleet).await?;
    customers.go_on().await?;

    for round in 0..ROUNDS {
        let kid = rotate(&fleet).await.with_context(|| format!("key {round}"))?;
        customers.go_on().await.with_context(|| format!("while key {round} was published"))?;
        customers.signed_by(&kid).await.with_context(|| format!("key {round}"))?;
        let told = told(&fleet);
        fleet.certify_again().await?;
        everywhere(&fleet, &told).await.with_context(|| format!("certificates {round}"))?;
        customers.go_on().await.with_context(|| format!("under certificates {round}"))?;
    }
    other_authority(&fleet, &mut customers).await?;

    let tokens = Arc::clone(&customers.tokens);
    let (orders, calls) = customers.home().await?;
    println!("measured: {calls} calls, {} orders, none refused", orders.len());
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    ensure!(ledger.authorized().count() == orders.len(), "{} authorisations stand", ledger.authorized().count());
    // A key that was replaced makes no token good for longer than it was made for.
    let tokens = tokens.lock().await;
    ensure!(tokens.len() > ROUNDS, "tokens of {} keys only", tokens.len());
    for kept in tokens.values() {
        until(PATIENCE, "the end of a token", async || {
            let mut http = fleet.client();
            http.set_token(kept.as_str());
            Ok((http.get("/v1/orders").await?.status == 401).then_some(()))
        })
        .await?;
    }
    fleet.audit().await.map(drop)
}

/// Publishes a new signing key; its name, once everybody can read it.
async fn rotate(fleet: &Fleet) -> Result<String> {
    let mut operator = fleet.operator().await?;
    let answer = operator.http.post("/v1/signingKeys:rotate", &json!({ "requestId": request_id() })).await?.ok()?;
    let kid = text(&answer["signingKey"], "kid")?;
    for door in 0..2 {
        until(TAKEN_UP, "the published key", async || {
            let keys = fleet.client_of(door).get("/.well-known/jwks.json").await?.ok()?;
            let keys = keys["keys"].as_array().context("no keys")?;
            Ok(keys.iter().any(|key| key["kid"] == kid.as_str()).then_some(()))
        })
        .await?;
    }
    Ok(kid)
}

/// An authority after which the one before it means nothing, as the documents say: for a while both are believed.
async fn other_authority(fleet: &Fleet, customers: &mut Customers) -> Result<()> {
    let (folder, new) = (fleet.certificates(), tempfile::tempdir()?);
    let new = new.path().join("tls");
    certify(&command_line::binary()?, &new, &[]).await?;
    let old = tempfile::tempdir()?;
    for end in ["pem", "key"] {
        fs::copy(folder.join(format!("operator.{end}")), old.path().join(format!("operator.{end}")))?;
    }
    let (before, after) = (fs::read(folder.join("authority.pem"))?, fs::read(new.join("authority.pem"))?);

    let lines = told(fleet);
    replace(&folder.join("authority.pem"), &[before, after.clone()].concat())?;
    told_everywhere(fleet, &lines).await.context("both authorities")?;
    customers.go_on().await.context("under both authorities")?;

    let lines = told(fleet);
    for entry in fs::read_dir(&new)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("authority") {
            replace(&folder.join(&name), &fs::read(new.join(&name))?)?;
        }
    }
    everywhere(fleet, &lines).await.context("certificates of the new authority")?;
    customers.go_on().await.context("under certificates of the new authority")?;

    let lines = told(fleet);
    replace(&folder.join("authority.pem"), &after)?;
    told_everywhere(fleet, &lines).await.context("the new authority alone")?;
    for (service, address) in services(fleet)? {
        let known = Dialer::named(old.path(), "operator")?.is_kept(address).await;
        ensure!(!known, "{service} believes the authority that is gone");
    }
    customers.go_on().await.context("under the new authority alone")
}

/// Another file takes a file's place; nobody reads half of one.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, content)?;
    Ok(fs::rename(beside, path)?)
}

/// What each process has said of new certificates so far.
fn told(fleet: &Fleet) -> BTreeMap<Copy, Vec<String>> {
    let lines = |copy| {
        fleet.tail(copy, 400).lines().filter(|line| line.contains("new certificates")).map(str::to_owned).collect()
    };
    fleet.running().into_iter().map(|copy| (copy, lines(copy))).collect()
}

/// Waits until every process has said more, in whatever order it reads the files.
async fn told_everywhere(fleet: &Fleet, before: &BTreeMap<Copy, Vec<String>>) -> Result<()> {
    until(TAKEN_UP, "every process takes the new files", async || {
        let now = told(fleet);
        let took = |copy: &Copy| {
            let mut new = now
                .get(copy)
                .into_iter()
                .flatten()
                .filter(|line| before.get(copy).is_none_or(|old| !old.contains(line)));
            new.next_back().is_some_and(|line| !line.contains("do not fit"))
        };
        Ok(before.keys().all(took).then_some(()))
    })
    .await
}

/// As [`told_everywhere`], and every service shows its certificate on new connections.
async fn everywhere(fleet: &Fleet, before: &BTreeMap<Copy, Vec<String>>) -> Result<()> {
    told_everywhere(fleet, before).await?;
    taken_up(&fleet.certificates(), "operator", &services(fleet)?, TAKEN_UP).await
}

fn services(fleet: &Fleet) -> Result<Vec<(&'static str, SocketAddr)>> {
    SERVICES.into_iter().map(|name| Ok((name, fleet.address((name, 0))?))).collect()
}

/// People with an account who read and buy at both doors; whatever fails once has failed.
struct Customers {
    rounds: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
    calls: Calls,
    /// The first token that was seen of each key, by the key's name.
    tokens: Arc<Mutex<BTreeMap<String, String>>>,
    tasks: JoinSet<Result<Vec<String>>>,
}

impl Customers {
    async fn at(fleet: &Fleet) -> Result<Self> {
        let mut customers = Self {
            rounds: Arc::default(),
            enough: Arc::default(),
            calls: Calls::default(),
            tokens: Arc::default(),
            tasks: JoinSet::new(),
        };
        for place in 0..CUSTOMERS {
            let mut http = fleet.client_of(place % 2).counted_by(&customers.calls);
            let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
            let password = "a long enough password";
            let user = json!({ "email": email, "password": password, "requestId": request_id() });
            http.post("/v1/users", &user).await?.ok()?;
            let session =
                http.post("/v1/sessions:signIn", &json!({ "email": email, "password": password })).await?.ok()?;
            let customer = Customer {
                shopper: Shopper { http, user: text(&session["user"], "name")? },
                refresh: text(&session, "refreshToken")?,
                tokens: Arc::clone(&customers.tokens),
            };
            let (rounds, enough) = (Arc::clone(&customers.rounds), Arc::clone(&customers.enough));
            customers.tasks.spawn(customer.work(rounds, enough));
        }
        Ok(customers)
    }

    /// Returns when each of them, on average, made two more rounds; fails as soon as one was told no.
    async fn go_on(&mut self) -> Result<()> {
        let goal = self.rounds.load(Ordering::Relaxed) + 2 * CUSTOMERS;
        self.when(async |this| Ok(this.0.load(Ordering::Relaxed) >= goal)).await
    }

    /// Returns when a token signed by this key has been used.
    async fn signed_by(&mut self, kid: &str) -> Result<()> {
        self.when(async |this| Ok(this.1.lock().await.contains_key(kid))).await?;
        self.go_on().await
    }

    async fn when(&mut self, reached: impl AsyncFn(&Seen) -> Result<bool>) -> Result<()> {
        let seen = (Arc::clone(&self.rounds), Arc::clone(&self.tokens));
        let reached = until(PATIENCE, "the customers go on", async || Ok(reached(&seen).await?.then_some(())));
        tokio::select! {
            reached = reached => reached,
            Some(ended) = self.tasks.join_next() => ended?.map(drop).context("a customer was told no"),
        }
    }

    /// Sends them home: the orders, and how many calls they made.
    async fn home(mut self) -> Result<(Vec<String>, usize)> {
        self.enough.store(true, Ordering::Relaxed);
        let mut orders = vec![];
        while let Some(ended) = self.tasks.join_next().await {
            orders.extend(ended?.context("a customer was told no")?);
        }
        Ok((orders, self.calls.ended()))
    }
}

type Seen = (Arc<AtomicUsize>, Arc<Mutex<BTreeMap<String, String>>>);

struct Customer {
    shopper: Shopper,
    refresh: String,
    tokens: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Customer {
    async fn work(mut self, rounds: Arc<AtomicUsize>, enough: Arc<AtomicBool>) -> Result<Vec<String>> {
        let mut orders = vec![];
        while !enough.load(Ordering::Relaxed) {
            self.with_new_token().await?;
            self.shopper.http.get("/v1/products?pageSize=10").await?.ok()?;
            let order = self.shopper.buy("EUR", SKU, 1, "tok_ok").await?;
            ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
            let name = text(&order, "name")?;
            self.shopper.http.get(&format!("/v1/{name}")).await?.ok()?;
            self.with_old_tokens().await?;
            orders.push(name);
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(orders)
    }

    /// Trades the refresh token, and keeps the first access token of each key.
    async fn with_new_token(&mut self) -> Result<()> {
        let mut http = self.shopper.http.again().anonymous();
        let session = http.post("/v1/sessions:refresh", &json!({ "refreshToken": self.refresh })).await?.ok()?;
        self.refresh = text(&session, "refreshToken")?;
        let token = text(&session, "accessToken")?;
        let kid = text(&Token::read(&token)?.header, "kid")?;
        self.shopper.http.set_token(token.as_str());
        self.shopper.http.get("/v1/orders").await?.ok().context("a new token")?;
        self.tokens.lock().await.entry(kid).or_insert(token);
        Ok(())
    }

    /// Whoever has a token of a key that signs no more is still served, until it runs out.
    async fn with_old_tokens(&self) -> Result<()> {
        let tokens = self.tokens.lock().await.clone();
        for (kid, token) in tokens {
            let ends = Token::read(&token)?.claims["exp"].as_i64().context("no exp")?;
            if ends - now()? < NEAR_S {
                continue;
            }
            let mut http = self.shopper.http.again();
            http.set_token(token);
            http.get("/v1/orders").await?.ok().with_context(|| format!("a token of the key {kid}"))?;
        }
        Ok(())
    }
}
