//! The gateway in front of a server it was not compiled with: found by reflection or by a file, gone and back again.

#![allow(clippy::unwrap_used)]

mod behind;
mod program;
mod reflected;
