//! Conformance, soon.
