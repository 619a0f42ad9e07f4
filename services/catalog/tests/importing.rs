//! Imports, and that everything stored is derived from the log.

#![allow(clippy::unwrap_used)]

mod shop;

use contracts::catalog::v1 as proto;
use log::Log;
use shop::{Shop, operator, product, variant};
use store::Tx;

fn numbered(count: usize) -> Vec<proto::Product> {
    let one = |number: usize| {
        let color = ["red", "blue", "green"][number % 3];
        let brand = format!("Brand {}", number % 7);
        product(&format!("Thing {number}"), &brand, "things", vec![variant(&format!("T{number}"), color, 5)])
    };
    (0..count).map(one).collect()
}

fn counts(reply: &proto::ImportProductsResponse) -> [i64; 5] {
    [reply.received_count, reply.created_count, reply.updated_count, reply.unchanged_count, reply.failed_count]
}

#[tokio::test]
async fn the_same_import_again_changes_nothing_and_a_changed_line_one_product() {
    let shop = Shop::open().await;
    let mut lines = numbered(240);
    assert_eq!(counts(&shop.import(lines.clone()).await.unwrap()), [240, 240, 0, 0, 0]);
    assert_eq!(counts(&shop.import(lines.clone()).await.unwrap()), [240, 0, 0, 240, 0]);
    lines[7].title = "Other".to_owned();
    assert_eq!(counts(&shop.import(lines).await.unwrap()), [240, 0, 1, 239, 0]);
    assert_eq!(shop.get("products/T7").await.unwrap().title, "Other");
}

#[tokio::test]
async fn a_product_is_taken_over_by_name_or_by_its_first_sku() {
    let shop = Shop::open().await;
    shop.create("mug", product("Mug", "", "mugs", vec![variant("M1", "", 5)])).await.unwrap();
    let by_sku = product("Mug by SKU", "", "mugs", vec![variant("M1", "", 5), variant("M2", "red", 5)]);
    let mut by_name = product("Cup", "", "mugs", vec![variant("C1", "", 5)]);
    by_name.name = "products/cup".to_owned();
    assert_eq!(counts(&shop.import(vec![by_sku, by_name.clone()]).await.unwrap()), [2, 1, 1, 0, 0]);
    assert_eq!(shop.get("products/mug").await.unwrap().variants.len(), 2);
    by_name.title = "Cup again".to_owned();
    assert_eq!(counts(&shop.import(vec![by_name]).await.unwrap()), [1, 0, 1, 0, 0]);
}

#[tokio::test]
async fn a_refused_line_is_named_and_stops_no_other() {
    let shop = Shop::open().await;
    let mut taken = product("Thief", "", "things", vec![variant("T0", "", 5)]);
    taken.name = "products/thief".to_owned();
    let untitled = product("", "", "things", vec![variant("U", "", 5)]);
    let lines = numbered(1).into_iter().chain([taken, untitled]).chain(numbered(3)).collect();
    let reply = shop.import(lines).await.unwrap();
    assert_eq!(counts(&reply), [6, 3, 0, 1, 2]);
    let failures: Vec<(i64, &str)> = reply.failures.iter().map(|each| (each.line, each.reason.as_str())).collect();
    assert_eq!(failures, [(2, "SKU_TAKEN"), (3, "INVALID_FIELD")]);
}

#[tokio::test]
async fn listed_refusals_are_bounded_and_all_are_counted() {
    let shop = Shop::open().await;
    let untitled = (0..1100).map(|number| product("", "", "things", vec![variant(&format!("U{number}"), "", 5)]));
    let reply = shop.import(untitled.collect()).await.unwrap();
    assert_eq!((reply.failures.len(), reply.failed_count), (1000, 1100));
}

#[tokio::test]
async fn a_line_against_the_field_rules_ends_the_import_after_what_came_before() {
    let shop = Shop::open().await;
    let mut lines = numbered(3);
    lines[2].variants[0].sku = "no/sku".to_owned();
    assert_eq!(shop.import(lines).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(shop.get("products/T1").await.unwrap().title, "Thing 1");
    assert_eq!(counts(&shop.import(numbered(3)).await.unwrap()), [3, 1, 0, 2, 0]);
}

#[tokio::test]
async fn every_row_is_what_the_log_says_and_comes_back_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::embedded_in(folder.path()).await;
    shop.import(numbered(20)).await.unwrap();
    shop.clock.advance(std::time::Duration::from_secs(60));
    let changed =
        proto::Product { name: "products/T3".to_owned(), title: "Teapot".to_owned(), ..numbered(4)[3].clone() };
    shop.update(changed, &["title"]).await.unwrap();
    let archived = proto::Product { name: "products/T4".to_owned(), state: 2, ..proto::Product::default() };
    shop.client()
        .update_product(operator(proto::UpdateProductRequest {
            product: Some(archived),
            ..proto::UpdateProductRequest::default()
        }))
        .await
        .unwrap();
    drop(shop);

    let log = Log::new(shop::reopened_embedded(folder.path()).await, catalog::projections());
    let before = dump(&log).await;
    assert_eq!(log.verify("products").await.unwrap(), []);
    let rebuilt = log.rebuild("products").await.unwrap();
    assert_eq!(rebuilt.events, 22);
    assert_eq!(dump(&log).await, before);

    log.store()
        .write(store::site!("test.tamper"), async |tx: &mut Tx| {
            tx.execute("UPDATE prices SET amount = 1 WHERE number = 1 AND currency = 'EUR'", &[]).await?;
            tx.execute("UPDATE words SET title = 'Gold' WHERE rowid = 2", &[]).await
        })
        .await
        .unwrap();
    let tables: Vec<&str> = log.verify("products").await.unwrap().iter().map(|difference| difference.table).collect();
    assert_eq!(tables, ["prices", "prices", "words"]);
    log.store()
        .write(store::site!("test.delete"), async |tx: &mut Tx| {
            for table in ["products", "variants", "facets", "prices", "words"] {
                tx.clear(table).await?;
            }
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
    log.rebuild("products").await.unwrap();
    assert_eq!(dump(&log).await, before);
    drop(log);

    let shop = Shop::embedded_in(folder.path()).await;
    let query = proto::SearchProductsRequest { query: "teapot".to_owned(), ..proto::SearchProductsRequest::default() };
    assert_eq!(shop.search(query).await.unwrap().total_size, 1, "words are found after a rebuild");
}

async fn dump(log: &Log<proto::Event>) -> Vec<store::Row> {
    log.store()
        .read(async |tx: &mut Tx| {
            let mut rows = vec![];
            for table in ["products", "variants", "facets", "prices", "words"] {
                rows.extend(tx.rows(table).await?);
            }
            Ok::<_, store::Error>(rows)
        })
        .await
        .unwrap()
}
