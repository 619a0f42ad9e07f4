//! The `stoa` program: what it is made of.

pub mod goods;
pub mod import;
pub mod sample;
