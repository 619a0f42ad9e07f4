//! How long the catalogue takes, printed: `cargo test --release -p stoa-catalog --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

mod shop;

use std::time::Instant;

use contracts::catalog::v1 as proto;
use shop::{Shop, anybody, product, variant};

fn lines(from: usize, count: usize) -> Vec<proto::Product> {
    let one = |number: usize| {
        let brand = format!("Brand {}", number % 97);
        let title = format!("Thing number {number} of kind {}", number % 31);
        let color = ["red", "blue", "green", "white", "black"][number % 5];
        let price = 1 + (number % 300) as i64;
        product(&title, &brand, &format!("kind-{}", number % 31), vec![variant(&format!("T{number}"), color, price)])
    };
    (from..from + count).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, meaningful in release builds alone"]
async fn imports_reads_lists_and_searches() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shop = Shop::in_folder(folder.path()).await;
    timed("import 4,070 new", 1, async |_| drop(shop.import(lines(0, 4070)).await.unwrap())).await;
    timed("import 4,070 again", 1, async |_| drop(shop.import(lines(0, 4070)).await.unwrap())).await;
    measure(&shop).await;
    timed("import 95,930 new", 1, async |_| drop(shop.import(lines(4070, 95_930)).await.unwrap())).await;
    measure(&shop).await;
}

async fn measure(shop: &Shop) {
    timed("get, one product", 5000, async |_| drop(shop.get("products/T17").await.unwrap())).await;
    timed("get, other products", 4000, async |turn| drop(shop.get(&format!("products/T{turn}")).await.unwrap())).await;
    timed("list 20", 500, async |_| {
        let request = proto::ListProductsRequest { page_size: 20, ..proto::ListProductsRequest::default() };
        drop(shop.client().list_products(anybody(request)).await.unwrap());
    })
    .await;
    for (name, query, filter) in [
        ("search all", "", ""),
        ("search a word in all", "thing", ""),
        ("search a word in some", "kind 17", ""),
        ("search a brand", "", "brand=\"Brand 5\" AND price<=50"),
    ] {
        for turn in ["first", "again"] {
            timed(&format!("{name}, {turn}"), 1, async |_| {
                let search = proto::SearchProductsRequest {
                    query: query.to_owned(),
                    filter: filter.to_owned(),
                    page_size: 20,
                    ..proto::SearchProductsRequest::default()
                };
                drop(shop.search(search).await.unwrap());
            })
            .await;
        }
    }
}

async fn timed(name: &str, turns: u32, mut work: impl AsyncFnMut(u32)) {
    let start = Instant::now();
    for turn in 0..turns {
        work(turn).await;
    }
    println!("{name:30} {:>12.1?}", start.elapsed() / turns);
}
