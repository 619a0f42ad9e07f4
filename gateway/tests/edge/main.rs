//! The gateway on a real port, over the real contracts, in front of services that only remember what they were asked.

#![allow(clippy::unwrap_used)]

mod grpc;
mod identity;
mod pages;
mod rest;
mod rig;
mod screens;
mod wire;
