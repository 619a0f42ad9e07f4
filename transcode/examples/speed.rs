//! How fast the codec is beside prost-reflect's dynamic messages: a list of 180 kB and one product of about 1 kB, both
//! ways, CPU time of this thread, the best of many rounds taken in turns. `cargo run --release --example speed`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use transcode::{Codec, ParseOptions, PrintOptions, Schema};

const ROUNDS: usize = 40;
const ROUND: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema")])?;
    compiler.include_imports(true).open_files(["catalogue.proto"])?;
    let pool = compiler.descriptor_pool();
    let schema = Schema::new(&pool);
    for (name, message, json) in
        [("list", "transcode.bench.ListProductsResponse", list()), ("one", "transcode.bench.Product", product(7))]
    {
        let codec = schema.codec(message).ok_or("no such message")?;
        let descriptor = pool.get_message_by_name(message).ok_or("no such message")?;
        compare(name, &codec, &descriptor, &json)?;
    }
    Ok(())
}

fn compare(
    name: &str,
    codec: &Codec,
    descriptor: &MessageDescriptor,
    text: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut wire = Vec::new();
    codec.json_to_wire(text.as_bytes(), &ParseOptions::default(), &mut wire)?;
    let mut json = Vec::new();
    codec.wire_to_json(&wire, &PrintOptions::default(), &mut json)?;
    let [ours, theirs] = race([
        &mut || {
            let mut out = Vec::new();
            codec.wire_to_json(black_box(&wire), &PrintOptions::default(), &mut out).is_ok()
                && !black_box(out).is_empty()
        },
        &mut || {
            let message = DynamicMessage::decode(descriptor.clone(), black_box(&*wire));
            message.is_ok_and(|message| serde_json::to_vec(&message).is_ok_and(|out| !black_box(out).is_empty()))
        },
    ]);
    report(&format!("{name} out"), json.len(), ours, theirs);
    let [ours, theirs] = race([
        &mut || {
            let mut out = Vec::new();
            codec.json_to_wire(black_box(&json), &ParseOptions::default(), &mut out).is_ok()
                && !black_box(out).is_empty()
        },
        &mut || {
            let mut reader = serde_json::Deserializer::from_slice(black_box(&json));
            let message = DynamicMessage::deserialize(descriptor.clone(), &mut reader);
            message.is_ok_and(|message| !black_box(message.encode_to_vec()).is_empty())
        },
    ]);
    report(&format!("{name} in"), json.len(), ours, theirs);
    Ok(())
}

/// Seconds a call takes, by each runner's best round.
fn race(mut runners: [&mut dyn FnMut() -> bool; 2]) -> [f64; 2] {
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (runner, best) in runners.iter_mut().zip(&mut best) {
            let (start, began) = (Instant::now(), cpu_time());
            let mut calls = 0;
            while start.elapsed() < ROUND {
                assert!(runner(), "the codec refuses what it is measured with");
                calls += 1;
            }
            *best = best.min((cpu_time() - began).as_secs_f64() / f64::from(calls));
        }
    }
    best
}

/// CPU time of this thread, so that what else runs is not counted; the clock where the system does not tell.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn report(name: &str, bytes: usize, ours: f64, theirs: f64) {
    let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
    println!(
        "{name:8} {bytes:7} bytes of JSON: {:6.0} MB/s, dynamic messages {:6.0} MB/s, {:.1} times as fast",
        rate(ours),
        rate(theirs),
        theirs / ours
    );
}

fn list() -> String {
    let products: Vec<String> = (0..196).map(product).collect();
    format!("{{\"products\":[{}],\"nextPageToken\":\"b2Zmc2V0PTE0NQ\",\"totalSize\":1204}}", products.join(","))
}

fn product(n: usize) -> String {
    let variants: Vec<String> = (0..2).map(|v| variant(n, v)).collect();
    format!(
        "{{\"name\":\"products/{n}\",\"title\":\"Stoneware mug no. {n}\",\"description\":\"Thrown by hand, glazed in a \
         kiln that burns wood; holds 0.3 l and stands a dishwasher.\\nEvery piece is a little different \u{2014} n\u{b0} {n}.\",\
         \"state\":\"STATE_PUBLISHED\",\"tags\":[\"kitchen\",\"stoneware\",\"gift\"],\"variants\":[{}],\"images\":[{{\"uri\":\
         \"https://images.example.com/products/{n}/front.webp\",\"width\":1600,\"height\":1200}}],\"createTime\":\
         \"2026-03-0{}T10:15:30.250Z\",\"updateTime\":\"2026-11-29T23:59:01Z\",\"leadTime\":\"172800s\",\"etag\":\"W/{n:08x}\",\
         \"taxable\":true,\"categoryNumbers\":[3,14,{}],\"rating\":4.{},\"revision\":\"{}\"}}",
        variants.join(","),
        n % 9 + 1,
        n + 100,
        n % 9 + 1,
        n * 1_000_003
    )
}

fn variant(n: usize, v: usize) -> String {
    format!(
        "{{\"sku\":\"MUG-{n:04}-{v}\",\"title\":\"Size {v}\",\"price\":{{\"currencyCode\":\"EUR\",\"units\":\"{}\",\"nanos\":\
         950000000}},\"available\":\"{}\",\"weightKg\":0.{}5,\"options\":{{\"colour\":\"sand\",\"size\":\"{v}\"}}}}",
        n % 40 + 9,
        n * 7 % 300,
        n % 9 + 1
    )
}
