//! RabbitMQ as the broker between services, on a real one: `cargo xtask test --lane rabbitmq`.
//!
//! The lane says where the broker is (`BUS_TEST_RABBITMQ`) and where it takes `kill`, `start` and commands of `rabbitmqctl`
//! (`BUS_TEST_CONTROL`). One test at a time: there is one broker, and some kill it.
#![cfg(feature = "rabbitmq")]

mod bad_days;
mod carrying;
mod rig;
mod suites;
