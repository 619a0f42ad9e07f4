//! What it costs a call to be counted and to leave two spans, the caller's and the callee's: `cost` prints microseconds a call,
//! with a share of one in a hundred kept.

use std::time::{Duration, Instant};

use telemetry::Trace;
use telemetry::metrics::{Calling, Serving};
use telemetry::spans::{Kind, Limits, Running, configure};

const CALLS: u32 = 200_000;

fn main() {
    configure(Limits { ratio: 0.01, ..Limits::default() });
    measured("counted", || counted(&Trace::new_root()));
    measured("with spans", || with_spans(&Trace::new_root()));
}

fn counted(_: &Trace) {
    let calling = Calling::begin("ordering", "inventory");
    Serving::begin("inventory", "stoa.inventory.v1.InventoryService/HoldStock").end(0);
    calling.end(0);
}

fn with_spans(story: &Trace) {
    let name = "stoa.inventory.v1.InventoryService/HoldStock";
    let mut client = Running::begin("ordering", Kind::Client, name, story);
    client.set("rpc.system.name", "grpc");
    client.set("rpc.method", name);
    client.set("service.peer.name", "inventory");
    let mut server = Running::begin("inventory", Kind::Server, name, &client.trace());
    server.set("rpc.system.name", "grpc");
    server.set("rpc.method", name);
    counted(story);
    server.end_rpc(0);
    client.end_rpc(0);
}

fn measured(what: &str, call: impl Fn()) {
    let begun = Instant::now();
    (0..CALLS).for_each(|_| call());
    let each = begun.elapsed() / CALLS;
    println!("{what}: {:.2} us a call", each.as_secs_f64() * 1e6);
    assert!(each < Duration::from_micros(15), "{what} takes longer than a call may pay");
}
