//! Everything that is counted, in the text format of OpenMetrics 1.0, which Prometheus reads.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::{encode_eof, encode_registry};

use super::instruments::INSTRUMENTS;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Watched {
    name: &'static str,
    help: &'static str,
    value: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// At most one of a name, and names are written in the program.
static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

/// Also tells this number, asked for whenever somebody looks; in place of one by the same name.
pub fn watch(name: &'static str, help: &'static str, value: impl Fn() -> u64 + Send + Sync + 'static) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.retain(|it| it.name != name);
    watched.push(Watched { name, help, value: Box::new(value) });
}

/// All series of this process as they are now.
pub fn text() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode_registry(&mut text, &INSTRUMENTS.registry);
    for Watched { name, help, value } in &*WATCHED.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}\n", value());
    }
    let _ = encode_eof(&mut text);
    text
}
