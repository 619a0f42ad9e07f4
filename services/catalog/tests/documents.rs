//! The catalogue on documents: several copies of it, and what dies while it writes.
//!
//! Each test starts this very binary again as the process that dies, or a server of its own that is killed. Needs
//! `CATALOG_TEST_MONGODB`, and `CATALOG_TEST_MONGO_PROGRAM` for the latter; `cargo xtask test --lane mongo` has both.

#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

mod shop;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use contracts::catalog::v1 as proto;
use futures_util::future::join_all;
use log::{Log, once};
use shop::{Shop, operator, product, refusal, surroundings, variant};
use store::{Tx, crash};
use tonic::{Code, Status};

const FOLDER: &str = "CATALOG_DOCUMENTS_TEST_FOLDER";
/// Products of the process that dies.
const PRODUCTS: usize = 12;

fn wanted(number: usize) -> proto::CreateProductRequest {
    proto::CreateProductRequest {
        product: Some(product(
            &format!("Thing {number}"),
            "",
            "things",
            vec![variant(&format!("T{number}"), "red", 5)],
        )),
        product_id: String::new(),
        request_id: format!("0194f5e0-0000-7000-8000-{number:012}"),
        validate_only: false,
    }
}

async fn create(shop: &Shop, number: usize) -> Result<proto::Product, Status> {
    Ok(shop.client().create_product(operator(wanted(number))).await?.into_inner())
}

async fn list(shop: &Shop) -> Vec<proto::Product> {
    let request = proto::ListProductsRequest { page_size: 500, ..proto::ListProductsRequest::default() };
    shop.client().list_products(shop::anybody(request)).await.unwrap().into_inner().products
}

/// Asks again until it is so; a list may be behind for a moment, which has an end.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "not so after 30 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs CATALOG_TEST_MONGODB"]
async fn two_copies_agree_at_once_on_products_and_soon_on_lists() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Shop::in_folder(folder.path()).await, Shop::in_folder(folder.path()).await);
    one.create("mug", product("Mug", "Kiln", "mugs", vec![variant("M1", "red", 5)])).await.unwrap();
    let seen = other.get("products/mug").await.unwrap();
    assert_eq!(seen, one.get("products/mug").await.unwrap());
    let cup = proto::Product { title: "Cup".to_owned(), ..seen.clone() };
    let updated = other.update(cup.clone(), &["title"]).await.unwrap();
    assert_eq!(one.get("products/mug").await.unwrap(), updated, "nothing older is remembered");
    assert_eq!(refusal(one.update(cup, &["title"]).await), (Code::Aborted, "STALE_ETAG".to_owned()));
    let updated = [updated];
    assert_eq!(list(&other).await, updated, "who has written sees it in lists");
    eventually("the other copy lists what was written", async || list(&one).await == updated).await;
    let query = || proto::SearchProductsRequest { query: "cup".to_owned(), ..Default::default() };
    assert_eq!(one.search(query()).await.unwrap().total_size, 1);

    // The same request at both at once; the same SKU under two names at both at once.
    for number in 0..10 {
        let (left, right) = tokio::join!(create(&one, number), create(&other, number));
        assert_eq!(left.unwrap(), right.unwrap());
        let rare = || product("Rare", "", "things", vec![variant(&format!("RARE{number}"), "", 5)]);
        let (l, r) = (format!("l{number}"), format!("r{number}"));
        let (left, right) = tokio::join!(one.create(&l, rare()), other.create(&r, rare()));
        assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
    }
    let dozens = (0..40).map(|number| {
        let shop = if number % 2 == 0 { &one } else { &other };
        let wanted = product("Wanted", "", "things", vec![variant(&format!("W{}", number / 4), "", 5)]);
        async move { shop.create(&format!("w{number}"), wanted).await.is_ok() }
    });
    assert_eq!(join_all(dozens).await.into_iter().filter(|created| *created).count(), 10, "ten SKUs, ten products");
    let expected = 1 + 10 + 10 + 10;
    for shop in [&one, &other] {
        eventually("both copies list everything", async || list(shop).await.len() == expected).await;
    }
    assert_eq!(list(&one).await, list(&other).await);
    let newest = || proto::SearchProductsRequest {
        order_by: proto::SearchOrder::Newest.into(),
        page_size: 100,
        ..Default::default()
    };
    let order = |found: proto::SearchProductsResponse| found.products.into_iter().map(|it| it.name).collect::<Vec<_>>();
    let (left, right) = (one.search(newest()).await.unwrap(), other.search(newest()).await.unwrap());
    assert_eq!(order(left), order(right), "equal matches come in one order, or pages of two copies would not fit");
    drop((one, other));
    sound(folder.path(), expected).await;
}

/// The process that dies: it creates products and changes each once, and notes what was acknowledged.
#[allow(clippy::disallowed_methods, reason = "the parent test names its folder to the child it starts")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other tests as their child"]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    crash::arm(std::fs::read_to_string(folder.join("spec")).unwrap().parse().unwrap());
    let shop = Shop::in_folder(&folder).await;
    let mut acknowledged = BTreeMap::new();
    for number in 0..PRODUCTS {
        let created = create(&shop, number).await.unwrap();
        acknowledged.insert(created.name.clone(), created.etag.clone());
        note(&folder, &acknowledged);
        let changed = proto::Product { title: format!("Changed {number}"), ..created };
        let changed = shop.update(changed, &["title"]).await.unwrap();
        acknowledged.insert(changed.name, changed.etag);
        note(&folder, &acknowledged);
    }
}

fn note(folder: &Path, acknowledged: &BTreeMap<String, String>) {
    let text: String = acknowledged.iter().map(|(name, etag)| format!("{name} {etag}\n")).collect();
    std::fs::write(folder.join("acknowledged"), text).unwrap();
}

fn noted(folder: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(folder.join("acknowledged")).unwrap_or_default();
    let line = |line: &str| line.split_once(' ').map(|(name, etag)| (name.to_owned(), etag.parse().unwrap()));
    text.lines().filter_map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs CATALOG_TEST_MONGODB"]
async fn a_process_that_dies_at_any_point_of_a_write_leaves_one_effect_a_request() {
    for spec in [
        // Nothing is written but the claim and the SKU.
        "commit.before:catalog.document:5",
        // Written, and nowhere but in the document.
        "commit.after:catalog.document:5",
        "commit.before:catalog.send:4",
        // In the log, while the document does not know it.
        "commit.after:catalog.send:5",
        "commit.before:catalog.mark:4",
        "commit.after:catalog.mark:5",
        // Sent and marked; the lists of the dead process are nobody's concern.
        "commit.before:catalog.replica:4",
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("spec"), spec).unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "{spec} was not passed");
        let before = noted(folder.path());
        assert!(!before.is_empty() && before.len() < PRODUCTS, "{spec}: died half way");

        let shop = Shop::in_folder(folder.path()).await;
        for (name, version) in &before {
            let product = shop.get(name).await.unwrap();
            assert!(product.etag.parse::<u64>().unwrap() >= *version, "{spec}: {name} is older than was acknowledged");
        }
        let mut names = BTreeSet::new();
        for number in 0..PRODUCTS {
            let first = create(&shop, number).await.unwrap();
            assert_eq!(create(&shop, number).await.unwrap(), first, "{spec}: one answer");
            assert_eq!(first.etag, "1", "{spec}: the answer of then");
            names.insert(first.name);
        }
        assert!(before.keys().all(|name| names.contains(name)), "{spec}: the repeats found what was acknowledged");
        assert_eq!(names.len(), PRODUCTS);
        assert_eq!(list(&shop).await.len(), PRODUCTS, "{spec}: one product a request, none besides");
        drop(shop);
        sound(folder.path(), PRODUCTS).await;
    }
}

/// The log of a shop that is dropped, judged by itself and by a copy of the service.
async fn sound(folder: &Path, products: usize) {
    let shop = Shop::in_folder(folder).await;
    let shown = list(&shop).await;
    drop(shop);
    assert_eq!(shown.len(), products);
    let log = Log::<proto::Event>::new(shop::reopened(folder).await, vec![]);
    let read = log.clone();
    let history = log
        .store()
        .read(async move |tx: &mut Tx| {
            assert_eq!(tx.heads().await?.len(), 1);
            // Whatever is no dense position is an error here.
            read.tail(tx, 0, 0, 100_000).await
        })
        .await
        .unwrap();
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    let mut titles = BTreeMap::new();
    for entry in history {
        let version = versions.entry(entry.at.stream.clone()).or_default();
        *version += 1;
        assert_eq!(entry.at.version, *version, "{} has each version once, in order", entry.at.stream);
        let record = match entry.event {
            proto::Event::ProductCreated(created) => created.record,
            proto::Event::ProductUpdated(updated) => updated.record,
        };
        titles.insert(entry.at.stream, record.unwrap().title);
    }
    assert_eq!(versions.len(), products);
    for product in shown {
        assert_eq!(product.etag, versions[&product.name].to_string());
        assert_eq!(product.title, titles[&product.name], "a product is what its last event says");
    }
    let all = async |tx: &mut Tx| once::answers(tx, &once::Answer::default(), 10_000).await;
    for answer in log.store().read(all).await.unwrap() {
        assert_ne!(answer.outcome, once::Outcome::Claimed);
        if answer.outcome == once::Outcome::Refused {
            continue;
        }
        let told = <proto::Product as prost::Message>::decode(answer.reply.as_slice()).unwrap();
        assert!(versions[&told.name] >= told.etag.parse().unwrap(), "what was told happened");
    }
}

/// A server of a test's own.
struct Server {
    child: Child,
    port: u16,
    data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let data = tempfile::tempdir().unwrap();
        Self { child: Self::spawn(port, data.path()), port, data }
    }

    #[allow(clippy::disallowed_methods, reason = "a test is told where its server is")]
    fn spawn(port: u16, data: &Path) -> Child {
        Command::new(std::env::var_os("CATALOG_TEST_MONGO_PROGRAM").unwrap())
            .args(["-listen", &format!("127.0.0.1:{port}"), "-data"])
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// As `kill -9`, and up again with the same data.
    fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.port, self.data.path());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs CATALOG_TEST_MONGO_PROGRAM"]
async fn a_database_that_is_killed_under_load_loses_nothing_and_doubles_nothing() {
    const KILLS: usize = 10;
    const WRITERS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start();
    let address = format!("mongodb://127.0.0.1:{}/killed", server.port);
    let mut context = surroundings(folder.path());
    context.mongodb = Some(address.clone());
    let opened = async {
        loop {
            match Shop::try_over(context.clone()).await {
                Ok(shop) => return shop,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let shop = tokio::time::timeout(Duration::from_secs(30), opened).await.unwrap();
    let answered = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (answered, stop, next, client) = (answered.clone(), stop.clone(), next.clone(), shop.client());
            tokio::spawn(async move {
                let mut done = BTreeMap::new();
                while !stop.load(relaxed) {
                    let number = next.fetch_add(1, relaxed);
                    // As any caller: the same request until it has an answer.
                    let created = loop {
                        match client.clone().create_product(operator(wanted(number))).await {
                            Ok(created) => break created.into_inner(),
                            Err(status) => assert!(
                                matches!(status.code(), Code::Unavailable | Code::Aborted | Code::DeadlineExceeded),
                                "{status:?}"
                            ),
                        }
                    };
                    answered.fetch_add(1, relaxed);
                    done.insert(number, created);
                }
                done
            })
        })
        .collect();
    for kill in 1..=KILLS {
        let seen = answered.load(relaxed);
        eventually("writes go on", async || answered.load(relaxed) >= seen + 5).await;
        server.kill_and_restart();
        println!("kill {kill} after {} answers", answered.load(relaxed));
    }
    let seen = answered.load(relaxed);
    eventually("writes go on after the last kill", async || answered.load(relaxed) >= seen + 5).await;
    stop.store(true, relaxed);
    let mut done = BTreeMap::new();
    for writer in writers {
        done.extend(writer.await.unwrap());
    }
    let names: BTreeSet<&String> = done.values().map(|created| &created.name).collect();
    assert_eq!(names.len(), done.len(), "one product a request");
    for (number, created) in &done {
        assert_eq!(create(&shop, *number).await.unwrap(), *created, "the same answer after all");
        assert_eq!(shop.get(&created.name).await.unwrap(), *created);
    }
    eventually("everything is listed", async || list(&shop).await.len() == done.len()).await;
}
