//! The log keeps its promises over the embedded store.

use store::{Config, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_its_promises_on_sqlite() {
    stoa_log::conformance::run(async || {
        let config = Config::temporary("toy").migrations([stoa_log::MIGRATIONS, stoa_log::conformance::MIGRATIONS]);
        Store::open(config).await.expect("a store")
    })
    .await;
}
