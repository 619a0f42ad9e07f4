//! What is fuzzed: everything of the transcoder that reads bytes of strangers. Each target is a function of its input and
//! panics where something does not hold; libFuzzer sees to time and memory.

mod codecs;
mod paths;
mod requests;
mod schema;

pub use codecs::{json, wire};
pub use paths::path;
pub use requests::request;
