//! The measurements, see `cargo xtask bench`.
fn main() {}
