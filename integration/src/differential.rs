//! Two gateways in front of one service, asked the same thing: what reaches the service, and what is answered.

mod behind;
mod bodies;
mod cases;
mod dice;
mod doors;
mod intended;
mod queries;

pub use behind::{Behind, Reached};
pub use cases::{Case, Cases, Odd};
pub use doors::{Door, Doors};
pub use intended::{Difference, INTENDED, Seen};

/// What one gateway made of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What reached the service, if anything did.
    pub reached: Option<Reached>,
    /// The HTTP status; nothing where the connection ended without one.
    pub status: Option<u16>,
    /// The answer's body.
    pub body: Vec<u8>,
}

impl Outcome {
    /// The first digit of the status, which is all that two gateways have to agree on.
    pub fn class(&self) -> Option<u16> {
        self.status.map(|status| status / 100)
    }
}
