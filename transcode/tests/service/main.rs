//! The tower service in front of a library: REST, gRPC, gRPC-Web, Connect.

#![allow(clippy::unwrap_used)]

mod answers;
mod binding;
mod bodies;
mod connect;
mod errors;
mod grpc;
mod library;
mod metadata;
mod mistakes;
mod routes;
mod streams;
mod web;
