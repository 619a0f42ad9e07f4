//! The contracts of Stoa: one line a package, generated from `proto/`, and nothing decided here.
//!
//! A service finds its messages, client, server, events and contract table under its own name
//! ([`ordering::v1`] and so on); [`METHODS`] holds the promises of all methods, [`json::TABLE`] the JSON
//! of all messages, [`DESCRIPTOR_SET`] the descriptors with every option.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
#[cfg(test)]
mod events;
pub mod json;
mod money;
#[cfg(test)]
mod oracle;
pub mod wkt;

pub use stoa::*;

/// Every method of the tree.
pub static METHODS: ::contract::Table = ::contract::Table(&methods::ALL);

/// The encoded `FileDescriptorSet` of the tree and its imports, options included.
pub static DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! package {
    ($file:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $file));
    };
}

#[allow(clippy::all, missing_docs, unreachable_pub)]
#[rustfmt::skip]
mod stoa {
    pub mod address { pub mod v1 { package!("stoa.address.v1.rs"); } }
    pub mod cart { pub mod v1 { package!("stoa.cart.v1.rs"); } }
    pub mod catalog { pub mod v1 { package!("stoa.catalog.v1.rs"); } }
    pub mod contract { pub mod v1 { package!("stoa.contract.v1.rs"); } }
    pub mod identity { pub mod v1 { package!("stoa.identity.v1.rs"); } }
    pub mod inventory { pub mod v1 { package!("stoa.inventory.v1.rs"); } }
    pub mod mobile { pub mod v1 { package!("stoa.mobile.v1.rs"); } }
    pub mod notification { pub mod v1 { package!("stoa.notification.v1.rs"); } }
    pub mod operations { pub mod v1 { package!("stoa.operations.v1.rs"); } }
    pub mod ordering { pub mod v1 { package!("stoa.ordering.v1.rs"); } }
    pub mod orderview { pub mod v1 { package!("stoa.orderview.v1.rs"); } }
    pub mod payment { pub mod v1 { package!("stoa.payment.v1.rs"); } }
    pub mod shipping { pub mod v1 { package!("stoa.shipping.v1.rs"); } }
    pub mod storefront { pub mod v1 { package!("stoa.storefront.v1.rs"); } }
}

/// Definitions that are not ours: HTTP bodies, error details, money.
#[allow(clippy::all, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod google {
    pub mod api { package!("google.api.rs"); }
    pub mod rpc { package!("google.rpc.rs"); }
    pub mod r#type { package!("google.type.rs"); }
}

#[rustfmt::skip]
mod methods { package!("methods.rs"); }
