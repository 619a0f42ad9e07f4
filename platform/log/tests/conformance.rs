//! The log keeps its promises over the store: the embedded one, or that of the fleet where a server is named.

use store::{Config, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_keeps_its_promises() {
    stoa_log::conformance::run(async || {
        let config = Config::new("toy", store::conformance::engine().await)
            .migrations([stoa_log::MIGRATIONS, stoa_log::conformance::MIGRATIONS]);
        Store::open(config).await.expect("a store")
    })
    .await;
}
