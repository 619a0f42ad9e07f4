//! What a span takes of the allocator: nothing where nobody wants it, and nothing once the first of them have made room.

use std::time::Duration;

use allocation_counter::measure;
use telemetry::Trace;
use telemetry::spans::{Kind, Limits, Name, Running, configure, find};

/// A call from one service to another, refused once: three spans with their attributes.
fn call(story: &Trace) {
    let method = "stoa.inventory.v1.InventoryService/HoldStock";
    let mut door = Running::begin("gateway", Kind::Server, "POST", story);
    door.rename(Name::of("POST", method));
    let mut client = Running::begin("ordering", Kind::Client, method, &door.trace());
    client.set("rpc.system.name", "grpc");
    client.set("rpc.method", method);
    let mut server = Running::begin("inventory", Kind::Server, method, &client.trace());
    server.set("rpc.method", method);
    server.end_rpc(5);
    client.end_rpc(5);
    door.end_http(404);
}

// One test, since what is kept belongs to the process.
#[test]
fn a_span_that_nobody_wants_allocates_nothing() {
    let rarely = Limits { ratio: 0.0, slow: Duration::from_secs(3600), bytes: 64 * 1024 };
    configure(rarely);
    let story = Trace::new_root();
    // Until the rings are full and the lists of each shard are there.
    (0..4096).for_each(|_| call(&Trace::new_root()));
    let undrawn = measure(|| (0..1000).for_each(|_| call(&story)));
    assert_eq!(undrawn.count_total, 0, "{undrawn:?}");
    assert!(!find(&story.trace_id).is_empty(), "it is read for a while all the same");

    configure(Limits { bytes: 0, ..rarely });
    let off = measure(|| (0..1000).for_each(|_| call(&Trace::new_root())));
    assert_eq!(off.count_total, 0, "{off:?}");
    let span = Running::begin("gateway", Kind::Server, "POST", &story);
    assert_eq!((span.is_recorded(), span.trace()), (false, story));
    span.end();
    assert!(find(&story.trace_id).is_empty());
}
