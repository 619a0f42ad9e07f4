//! What a stranger needs to try Stoa from outside: start it, talk to it, kill it, look at its books.
//!
//! Nothing here knows the inside. A server is a process with a data folder and an address; a shopper is
//! a connection and a token; the payment provider's ledger is read over HTTP, from a process that
//! survives when the server is killed, so that "charged twice" is judged from outside.

pub mod acts;
pub mod attack;
pub mod await_until;
pub mod between;
pub mod buyers;
pub mod calls;
pub mod certified;
pub mod closed;
pub mod command_line;
pub mod control;
pub mod days;
pub mod differential;
mod file_set;
pub mod flash_sale;
pub mod fleet;
pub mod grpc;
pub mod hops;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod machine;
pub mod ports;
pub mod promised;
pub mod raw;
pub mod replay;
pub mod retail;
pub mod retail_script;
pub mod server;
pub mod shopper;
pub mod sidecars;
pub mod signed;
pub mod skip;
pub mod sold_out;
pub mod wire;

pub use await_until::until;
pub use fleet::Fleet;
pub use server::{Setup, Stoa};
