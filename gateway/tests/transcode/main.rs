//! The rules of transcoding, one by one, over the library of the tests: what reaches the upstream, and what the client gets.

#![allow(clippy::unwrap_used)]

mod answers;
mod binding;
mod bodies;
mod errors;
mod library;
mod routes;
mod streams;
