//! What the catalogue promises of its products, run over every engine that keeps them.
//!
//! `cargo test -p stoa-catalog conformance` for rows; with `--features fleet -- --ignored` and `CATALOG_TEST_MONGODB` for
//! documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contract::{Currency, Money};
use contracts::catalog::v1 as proto;
use futures_util::future::{BoxFuture, join_all};
use log::{Log, Request, once};
use store::{Clock, Tx, site};

use crate::embedded::Embedded;
use crate::error::Error;
use crate::import::Line;
use crate::product::{Choice, Command, Draft, Field, Rejection, State, VariantDraft};
use crate::products::{Author, Order, Products};
use crate::store::Stored;

const CREATE: &str = "/stoa.catalog.v1.CatalogService/CreateProduct";
const UPDATE: &str = "/stoa.catalog.v1.CatalogService/UpdateProduct";

/// An empty catalogue on one of the engines.
struct Shop {
    products: Arc<dyn Products>,
    /// Where events and answers are when everything has settled.
    log: Log<proto::Event>,
    /// What lists and searches read.
    finder: Log<proto::Event>,
    clock: Clock,
    /// Drops what has outlived its time.
    sweep: Box<dyn Fn() -> BoxFuture<'static, ()>>,
}

/// Runs every case and says so.
async fn suite(engine: &str, open: impl AsyncFn() -> Shop) {
    let mut cases = 0;
    macro_rules! run {
        ($($case:ident),* $(,)?) => {
            $( $case(open().await).await; cases += 1; )*
        };
    }
    run!(
        a_product_is_found_by_name_and_sku_as_soon_as_it_is_there,
        every_field_comes_back_as_it_was,
        a_name_and_a_sku_are_taken_once,
        a_sku_that_was_given_up_is_anybodys,
        of_many_who_want_one_sku_one_has_it,
        of_many_changes_to_one_version_one_is_made,
        changes_that_name_no_version_are_all_made,
        a_request_has_one_effect_and_one_answer,
        a_refusal_is_answered_again_though_it_is_no_longer_true,
        the_same_request_many_times_at_once_has_one_effect,
        a_dry_run_leaves_nothing,
        an_import_takes_each_line_for_itself,
        the_log_has_every_change_once_in_order_with_its_time,
        answers_are_kept_for_their_time_and_no_longer,
        what_is_found_is_what_the_log_says,
    );
    println!("suite of the catalogue on {engine}: {cases} cases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_of_rows() {
    suite("rows in its own store", async || {
        let clock = clock();
        let sets = std::iter::once(log::MIGRATIONS).chain(crate::MIGRATIONS);
        let config = store::Config::temporary("catalog").migrations(sets).clock(clock.clone());
        let log = Log::new(store::Store::open(config).await.unwrap(), crate::projections());
        let swept = log.clone();
        let sweep = move || -> BoxFuture<'static, ()> {
            let swept = swept.clone();
            Box::pin(async move {
                let purge = async |tx: &mut Tx| once::purge(tx, 100).await;
                swept.store().write(site!("test.purge"), purge).await.unwrap();
            })
        };
        Shop {
            products: Arc::new(Embedded::new(log.clone(), Currency::EUR, 64)),
            finder: log.clone(),
            log,
            clock,
            sweep: Box::new(sweep),
        }
    })
    .await;
}

#[cfg(feature = "fleet")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the lane `mongo`, which names a server"]
#[allow(clippy::disallowed_methods, reason = "a test is told where its server is")]
async fn conformance_of_documents() {
    let server = std::env::var("CATALOG_TEST_MONGODB").unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    suite("documents", async || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut context = server::Context::temporary(contracts::METHODS);
        context.clock = clock();
        let address = format!("{server}/suite_{}_{number}", std::process::id());
        let documents = crate::documents::open(Currency::EUR, &context, &address).await.unwrap();
        let (log, finder) = (documents.log(), documents.finder());
        let documents = Arc::new(documents);
        let swept = Arc::clone(&documents);
        let sweep = move || -> BoxFuture<'static, ()> {
            let swept = Arc::clone(&swept);
            Box::pin(async move { swept.sweep().await.unwrap() })
        };
        Shop { products: documents, log, finder, clock: context.clock, sweep: Box::new(sweep) }
    })
    .await;
}

fn clock() -> Clock {
    Clock::manual("2026-01-02T03:04:05.678901Z".parse().unwrap())
}

impl Shop {
    async fn execute(&self, request: Option<Request>, order: Order) -> Result<proto::Product, Error> {
        self.products.command(site!("test.command"), author(), request, order).await
    }

    async fn create(&self, id: &str, skus: &[&str]) -> Result<proto::Product, Error> {
        self.execute(None, create(id, skus)).await
    }

    async fn get(&self, id: &str) -> Option<Arc<Stored>> {
        self.products.by_name(&[name(id)]).await.unwrap().remove(0)
    }

    async fn owner(&self, sku: &str) -> Option<String> {
        let found = self.products.by_sku(&[sku.to_owned()]).await.unwrap().remove(0);
        found.map(|stored| stored.name.clone())
    }

    async fn history(&self) -> Vec<log::Entry<proto::Event>> {
        let log = self.log.clone();
        let read = async move |tx: &mut Tx| {
            let mut all = vec![];
            for shard in 0..tx.heads().await?.len() as u32 {
                all.extend(log.tail(tx, shard, 0, 1000).await?);
            }
            Ok::<_, log::Error>(all)
        };
        self.log.store().read(read).await.unwrap()
    }

    async fn answers(&self) -> usize {
        let all = async |tx: &mut Tx| once::answers(tx, &once::Answer::default(), 1000).await;
        self.log.store().read(all).await.unwrap().len()
    }
}

fn name(id: &str) -> String {
    format!("products/{id}")
}

fn author() -> Author {
    let meta = log::Meta { causation: "test".to_owned(), correlation: "story".to_owned(), traceparent: String::new() };
    Author { meta, actor: "users/operator".to_owned() }
}

fn request(method: &'static str, key: &str, body: &str) -> Option<Request> {
    Some(Request::new("users/operator", method, key, body.as_bytes()))
}

fn draft(title: &str, skus: &[&str]) -> Draft {
    let variant = |sku: &&str| VariantDraft {
        sku: (*sku).to_owned(),
        options: vec![Choice { name: "form".to_owned(), value: (*sku).to_owned() }],
        prices: vec![Money::new(Currency::EUR, 500)],
        ..VariantDraft::default()
    };
    Draft { title: title.to_owned(), variants: skus.iter().map(variant).collect(), ..Draft::default() }
}

fn order(id: &str, command: Command) -> Order {
    Order { name: name(id), command, etag: String::new(), dry_run: false }
}

fn create(id: &str, skus: &[&str]) -> Order {
    order(id, Command::Create(draft("Thing", skus)))
}

fn rename(id: &str, title: &str) -> Order {
    order(id, Command::Update { draft: draft(title, &[]), fields: vec![Field::Title] })
}

fn with_skus(id: &str, skus: &[&str]) -> Order {
    order(id, Command::Update { draft: draft("", skus), fields: vec![Field::Variants] })
}

fn line(number: i64, named: &str, title: &str, skus: &[&str]) -> Line {
    Line { number, name: named.to_owned(), draft: Ok(draft(title, skus)) }
}

fn is_taken(outcome: &Result<proto::Product, Error>) -> bool {
    matches!(outcome, Err(Error::Rejected { rejection: Rejection::SkuTaken { .. }, .. }))
}

async fn a_product_is_found_by_name_and_sku_as_soon_as_it_is_there(shop: Shop) {
    assert!(shop.get("mug").await.is_none());
    assert_eq!(shop.owner("M1").await, None);
    let created = shop.create("mug", &["M1", "M2"]).await.unwrap();
    assert_eq!((created.name.as_str(), created.etag.as_str()), ("products/mug", "1"));
    assert_eq!(shop.get("mug").await.unwrap().version, 1);
    shop.execute(None, rename("mug", "Cup")).await.unwrap();
    let stored = shop.get("mug").await.unwrap();
    assert_eq!((stored.version, stored.product.title.as_str()), (2, "Cup"));
    let asked = ["M2", "none", "M1", "M2"].map(str::to_owned);
    let found = shop.products.by_sku(&asked).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    // More than are asked for one by one.
    let many: Vec<String> = (0..20).map(|number| format!("none-{number}")).chain(asked).collect();
    let found = shop.products.by_sku(&many).await.unwrap();
    assert_eq!(found.iter().flatten().map(|stored| stored.version).collect::<Vec<_>>(), [2, 2, 2]);
    let names: Vec<String> = (0..20).map(|number| format!("products/{number}")).chain([name("mug")]).collect();
    assert_eq!(shop.products.by_name(&names).await.unwrap().iter().flatten().count(), 1);
}

async fn every_field_comes_back_as_it_was(shop: Shop) {
    let variant = VariantDraft {
        id: "first".to_owned(),
        sku: "A.1 ü".to_owned(),
        title: "Größe".to_owned(),
        options: vec![Choice { name: "$a.b".to_owned(), value: "\"'\\\u{1F375}".to_owned() }],
        prices: vec![Money::new(Currency::EUR, i64::MAX / 2), Money::new("JPY".parse().unwrap(), 0)],
        list_prices: vec![Money::new(Currency::EUR, i64::MAX / 2)],
        stocked: Some(false),
        weight_grams: i32::MAX,
        tax_basis_points: 10_000,
        image_uri: "https://example.org/a.png".to_owned(),
    };
    let facts = [("", "empty"), ("a.b", "dot"), ("$set", "dollar"), ("z", "")];
    let whole = Draft {
        title: "Tea".to_owned(),
        description: "Line\nline\t\u{1F375}".to_owned(),
        brand: "Brew".to_owned(),
        categories: vec!["categories/b".to_owned(), "categories/a".to_owned()],
        variants: vec![variant],
        stocked: None,
        state: Some(State::Archived),
        image_uri: "https://example.org/b.png".to_owned(),
        attributes: facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        external_id: "42".to_owned(),
    };
    let replaced = shop.execute(None, order("tea", Command::Replace(whole.clone()))).await.unwrap();
    let stored = shop.get("tea").await.unwrap();
    assert_eq!(crate::wire::product(&stored, Currency::EUR), replaced);
    assert_eq!(stored.product.attributes, whole.attributes);
    assert_eq!(stored.product.variants[0].options, whole.variants[0].options);
    assert_eq!(stored.product.variants[0].prices, whole.variants[0].prices);
    assert_eq!((stored.create_time, stored.update_time), (shop.clock.now(), shop.clock.now()));
    // Every field is there, or this would be a change.
    shop.clock.advance(Duration::from_secs(1));
    assert_eq!(shop.execute(None, order("tea", Command::Replace(whole))).await.unwrap(), replaced);
}

async fn a_name_and_a_sku_are_taken_once(shop: Shop) {
    shop.create("mug", &["M1"]).await.unwrap();
    let again = shop.create("mug", &["M2"]).await;
    assert!(matches!(again, Err(Error::Rejected { rejection: Rejection::Exists, .. })), "{again:?}");
    let thief = shop.create("cup", &["C1", "M1"]).await;
    let Err(Error::Rejected { rejection: Rejection::SkuTaken { sku, product }, .. }) = thief else {
        panic!("{thief:?}");
    };
    assert_eq!((sku.as_str(), product.as_str()), ("M1", "products/mug"));
    assert!(shop.get("cup").await.is_none());
    shop.create("other", &["C1"]).await.unwrap();
    assert!(is_taken(&shop.execute(None, with_skus("other", &["C1", "M1"])).await));
    assert_eq!(shop.owner("M1").await.unwrap(), "products/mug");
    assert_eq!(shop.owner("M2").await, None);
}

async fn a_sku_that_was_given_up_is_anybodys(shop: Shop) {
    shop.create("mug", &["M1", "M2"]).await.unwrap();
    shop.execute(None, with_skus("mug", &["M1"])).await.unwrap();
    assert_eq!(shop.owner("M2").await, None);
    shop.execute(None, with_skus("mug", &["M1", "M2"])).await.unwrap();
    assert_eq!(shop.owner("M2").await.unwrap(), "products/mug", "also of who gave it up");
    shop.execute(None, with_skus("mug", &["M1"])).await.unwrap();
    shop.create("cup", &["M2"]).await.unwrap();
    assert_eq!(shop.owner("M2").await.unwrap(), "products/cup");
    assert!(is_taken(&shop.execute(None, with_skus("mug", &["M1", "M2"])).await));
    assert_eq!(shop.execute(None, rename("mug", "Mug")).await.unwrap().variants.len(), 1);
}

async fn of_many_who_want_one_sku_one_has_it(shop: Shop) {
    for round in 0..8 {
        let sku = format!("S{round}");
        if round % 2 == 1 {
            // Somebody had it, and gave it up.
            let first = format!("first-{round}");
            shop.create(&first, &[&sku, &format!("F{round}")]).await.unwrap();
            shop.execute(None, with_skus(&first, &[&format!("F{round}")])).await.unwrap();
        }
        let wanting = (0..6).map(|who| {
            let (shop, id, sku) = (&shop, format!("p{round}-{who}"), sku.clone());
            async move { shop.create(&id, &[&sku, &format!("own-{round}-{who}")]).await }
        });
        let outcomes = join_all(wanting).await;
        let created = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let mut having = vec![];
        for who in 0..6 {
            let id = format!("p{round}-{who}");
            having.extend(shop.get(&id).await.filter(|stored| stored.product.variant(&sku).is_some()).map(|_| id));
        }
        assert_eq!((created, having.len()), (1, 1), "round {round}: {outcomes:?}");
        assert_eq!(shop.owner(&sku).await.unwrap(), name(&having[0]));
    }
}

async fn of_many_changes_to_one_version_one_is_made(shop: Shop) {
    shop.create("mug", &["M1"]).await.unwrap();
    for version in 1..5 {
        let changes = (0..6).map(|who| {
            let order = Order { etag: version.to_string(), ..rename("mug", &format!("Mug {version}-{who}")) };
            shop.execute(None, order)
        });
        let outcomes = join_all(changes).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        let refused = |outcome: &&Result<_, Error>| matches!(outcome, Err(Error::Stale(_)));
        assert_eq!(outcomes.iter().filter(refused).count(), 5, "{outcomes:?}");
        assert_eq!(shop.get("mug").await.unwrap().version, version + 1);
    }
}

async fn changes_that_name_no_version_are_all_made(shop: Shop) {
    shop.create("mug", &["M1"]).await.unwrap();
    let changes = (0..4).map(|who| shop.execute(None, rename("mug", &format!("Mug {who}"))));
    for outcome in join_all(changes).await {
        outcome.unwrap();
    }
    assert_eq!(shop.get("mug").await.unwrap().version, 5);
    assert_eq!(shop.history().await.len(), 5);
}

async fn a_request_has_one_effect_and_one_answer(shop: Shop) {
    let first = shop.execute(request(CREATE, "k1", "a"), create("one", &["M1"])).await.unwrap();
    // A name that the service makes up is another one each time it is asked.
    let again = shop.execute(request(CREATE, "k1", "a"), create("two", &["M1"])).await.unwrap();
    assert_eq!(first, again);
    assert!(shop.get("two").await.is_none());
    shop.execute(None, rename("one", "Other")).await.unwrap();
    let later = shop.execute(request(CREATE, "k1", "a"), create("three", &["M1"])).await.unwrap();
    assert_eq!(first, later, "though it is not so any more");
    let reused = shop.execute(request(CREATE, "k1", "b"), create("four", &["M4"])).await;
    assert!(matches!(reused, Err(Error::Log(log::Error::RequestIdReused { .. }))), "{reused:?}");
    shop.execute(request(UPDATE, "k1", "b"), rename("one", "By another method")).await.unwrap();
    let unchanged = shop.execute(request(UPDATE, "k2", "c"), rename("one", "By another method")).await.unwrap();
    assert_eq!(unchanged.etag, "3");
    shop.execute(None, rename("one", "Last")).await.unwrap();
    let again = shop.execute(request(UPDATE, "k2", "c"), rename("one", "By another method")).await.unwrap();
    assert_eq!(unchanged, again, "what changed nothing then changes nothing now");
    assert_eq!(shop.get("one").await.unwrap().product.title, "Last");
    assert_eq!((shop.history().await.len(), shop.answers().await), (4, 3));
}

async fn a_refusal_is_answered_again_though_it_is_no_longer_true(shop: Shop) {
    let status = |outcome: Result<proto::Product, Error>| tonic::Status::from(outcome.unwrap_err());
    let change = || shop.execute(request(UPDATE, "k1", "a"), rename("mug", "Cup"));
    let refused = status(change().await);
    assert_eq!(refused.code(), tonic::Code::NotFound);
    shop.create("mug", &["M1"]).await.unwrap();
    let again = status(change().await);
    assert_eq!(
        (again.code(), again.message(), again.details()),
        (refused.code(), refused.message(), refused.details())
    );
    let taken = || shop.execute(request(CREATE, "k2", "a"), create("cup", &["M1"]));
    assert_eq!(server::status::reason(&status(taken().await)).as_deref(), Some("SKU_TAKEN"));
    shop.execute(None, with_skus("mug", &["M2"])).await.unwrap();
    assert_eq!(server::status::reason(&status(taken().await)).as_deref(), Some("SKU_TAKEN"));
    let stale = || Order { etag: "7".to_owned(), ..rename("mug", "Cup") };
    assert!(matches!(shop.execute(request(UPDATE, "k3", "a"), stale()).await, Err(Error::Stale(_))));
    assert_eq!(status(shop.execute(request(UPDATE, "k3", "a"), stale()).await).code(), tonic::Code::Aborted);
    assert_eq!((shop.get("mug").await.unwrap().version, shop.answers().await), (2, 3));
    assert!(shop.get("cup").await.is_none());
}

async fn the_same_request_many_times_at_once_has_one_effect(shop: Shop) {
    for round in 0..6 {
        let (key, sku) = (format!("k{round}"), format!("S{round}"));
        let asked = (0..6)
            .map(|who| shop.execute(request(CREATE, &key, "a"), create(&format!("p{round}-{who}"), &[sku.as_str()])));
        let answers: Vec<proto::Product> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
    let skus: Vec<String> = (0..6).map(|round| format!("S{round}")).collect();
    let owners = shop.products.by_sku(&skus).await.unwrap();
    let distinct: BTreeSet<String> = owners.into_iter().flatten().map(|stored| stored.name.clone()).collect();
    assert_eq!((distinct.len(), shop.history().await.len(), shop.answers().await), (6, 6, 6));
}

async fn a_dry_run_leaves_nothing(shop: Shop) {
    let dry = |order: Order| Order { dry_run: true, ..order };
    let tried = shop.execute(None, dry(create("mug", &["M1"]))).await.unwrap();
    assert_eq!((tried.title.as_str(), tried.etag.as_str()), ("Thing", "1"));
    assert!(shop.get("mug").await.is_none());
    shop.create("cup", &["M1"]).await.unwrap();
    assert!(is_taken(&shop.execute(None, dry(create("mug", &["M1"]))).await));
    assert_eq!(shop.execute(None, dry(rename("cup", "Cup"))).await.unwrap().etag, "2");
    let missing = shop.execute(None, dry(rename("mug", "Mug"))).await;
    assert!(matches!(missing, Err(Error::Rejected { rejection: Rejection::Missing, .. })));
    assert_eq!(shop.get("cup").await.unwrap().version, 1);
    assert_eq!((shop.history().await.len(), shop.answers().await), (1, 0));
}

async fn an_import_takes_each_line_for_itself(shop: Shop) {
    let lines = || {
        vec![
            line(1, "", "Mug", &["M1", "M2"]),
            line(2, "products/thief", "Thief", &["M1"]),
            line(3, "products/cup", "Cup", &["C1"]),
            line(4, "", "", &["U1"]),
            line(5, "", "Mug again", &["M1"]),
            line(6, "products/heir", "Heir", &["M2"]),
        ]
    };
    let counts = |reply: &proto::ImportProductsResponse| {
        let failed: Vec<(i64, String)> = reply.failures.iter().map(|it| (it.line, it.reason.clone())).collect();
        ([reply.created_count, reply.updated_count, reply.unchanged_count, reply.failed_count], failed)
    };
    let failed = vec![(2, "SKU_TAKEN".to_owned()), (4, "INVALID_FIELD".to_owned())];
    let first = shop.products.import(author(), lines()).await.unwrap();
    assert_eq!(counts(&first), ([3, 1, 0, 2], failed));
    assert_eq!(shop.owner("M2").await.unwrap(), "products/heir");
    assert_eq!(shop.get("M1").await.unwrap().product.title, "Mug again");
    let again = vec![line(1, "products/cup", "Cup", &["C1"]), line(2, "", "Heir", &["M2"])];
    assert_eq!(counts(&shop.products.import(author(), again).await.unwrap()), ([0, 0, 2, 0], vec![]));
    // A product that has given up the SKU that its name is made of.
    shop.execute(None, with_skus("M1", &["M9"])).await.unwrap();
    let next = shop.products.import(author(), vec![line(1, "", "New", &["M1"])]).await.unwrap();
    assert_eq!(next.created_count, 1);
    assert_ne!(shop.owner("M1").await.unwrap(), "products/M1");
}

async fn the_log_has_every_change_once_in_order_with_its_time(shop: Shop) {
    let mut times = BTreeMap::new();
    for (step, order) in [
        create("mug", &["M1"]),
        create("cup", &["C1"]),
        rename("mug", "Mug"),
        rename("cup", "Cup"),
        rename("mug", "Mug"),
        rename("mug", "Beaker"),
    ]
    .into_iter()
    .enumerate()
    {
        shop.clock.advance(Duration::from_micros(1_000_003));
        let name = order.name.clone();
        let done = shop.execute(request(UPDATE, &format!("k{step}"), "a"), order).await.unwrap();
        times.insert((name, done.etag), done.update_time.unwrap());
    }
    let history = shop.history().await;
    let places: Vec<(&str, u64)> = history.iter().map(|entry| (entry.at.stream.as_str(), entry.at.version)).collect();
    let (mug, cup) = ("products/mug", "products/cup");
    assert_eq!(places, [(mug, 1), (cup, 1), (mug, 2), (cup, 2), (mug, 3)]);
    for (entry, position) in history.iter().zip(1..) {
        assert_eq!(entry.position, position);
        assert_eq!((entry.at.causation.as_str(), entry.at.correlation.as_str()), ("test", "story"));
        let shown = times[&(entry.at.stream.clone(), entry.at.version.to_string())];
        assert_eq!(contracts::wkt::Timestamp::from(entry.at.occur_time), shown);
        let (_, product) = crate::wire::from_stored(&entry.event).unwrap();
        let stored = shop.products.by_name(std::slice::from_ref(&entry.at.stream)).await.unwrap().remove(0).unwrap();
        assert!(stored.version > entry.at.version || stored.product == product, "a product is its last event");
    }
}

async fn answers_are_kept_for_their_time_and_no_longer(shop: Shop) {
    let ask = || shop.execute(request(CREATE, "k1", "a"), create("mug", &["M1"]));
    ask().await.unwrap();
    let missing = || shop.execute(request(UPDATE, "k2", "a"), rename("none", "None"));
    missing().await.unwrap_err();
    shop.clock.advance(once::RETENTION - Duration::from_secs(1));
    (shop.sweep)().await;
    ask().await.unwrap();
    shop.clock.advance(Duration::from_secs(2));
    (shop.sweep)().await;
    assert_eq!(shop.answers().await, 0);
    let forgotten = ask().await;
    assert!(matches!(forgotten, Err(Error::Rejected { rejection: Rejection::Exists, .. })), "{forgotten:?}");
    missing().await.unwrap_err();
    assert_eq!((shop.history().await.len(), shop.answers().await), (1, 2));
}

async fn what_is_found_is_what_the_log_says(shop: Shop) {
    let lines = (0..40).map(|number| line(number, "", &format!("Thing {number}"), &[&format!("T{number}")]));
    shop.products.import(author(), lines.collect()).await.unwrap();
    shop.execute(None, rename("T7", "Teapot")).await.unwrap();
    shop.execute(None, with_skus("T8", &["T8", "T8-L"])).await.unwrap();
    assert_eq!(shop.finder.verify("products").await.unwrap(), []);
    let listed = async |tx: &mut Tx| crate::store::list(tx, State::Active, &[], "", 100).await;
    let listed = shop.finder.store().read(listed).await.unwrap();
    let names: Vec<String> = listed.iter().map(|stored| stored.name.clone()).collect();
    let stored = shop.products.by_name(&names).await.unwrap();
    assert_eq!(listed.len(), 40);
    for (listed, stored) in listed.iter().zip(stored) {
        let stored = stored.unwrap();
        let shown = |stored: &Stored| crate::wire::product(stored, Currency::EUR);
        assert_eq!(shown(listed), shown(&stored), "a list says what the product says");
    }
}
