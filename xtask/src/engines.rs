//! Every engine a fleet can stand on, all at once, each with a control for tests that kill it.

use std::path::Path;

use anyhow::Result;

use crate::servers::{Control, Kafka, Mongo, Postgres, RabbitMq, Redis, Started};

/// The fleets of the days on which everything dies, one after the other.
pub(crate) const DAYS: [&str; 2] = ["sale", "weeks"];

/// What carries events between the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broker {
    Kafka,
    RabbitMq,
}

/// PostgreSQL, a broker, Redis and a server of MongoDB's protocol; stopped when this is dropped.
pub(crate) struct Engines {
    versions: Vec<String>,
    environment: Vec<(&'static str, String)>,
    controls: Vec<(&'static str, Control)>,
}

impl Engines {
    /// Starts them, with databases for fleets of these names that run this program.
    pub(crate) fn start(broker: Broker, fleets: &[&str], stoa: &Path) -> Result<Started<Self>> {
        let mut engines = Self { versions: vec![], environment: vec![], controls: vec![] };
        let missing = engines.add_stores(fleets)?.or(engines.add_broker(broker, fleets)?);
        if let Some(reason) = missing {
            return Ok(Started::Missing(reason));
        }
        engines.tell("STOA_FLEET_BIN", stoa.display().to_string());
        let controls: Vec<String> =
            engines.controls.iter().map(|(name, control)| format!("{name}={}", control.address())).collect();
        engines.tell("STOA_FLEET_CONTROLS", controls.join(" "));
        Ok(Started::Ready(engines))
    }

    /// What they are.
    pub(crate) fn versions(&self) -> &[String] {
        &self.versions
    }

    /// Where they are, for the driver of a fleet.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn add_stores(&mut self, fleets: &[&str]) -> Result<Option<String>> {
        match Postgres::start()? {
            Started::Ready(server) => {
                self.tell("STOA_FLEET_DATABASES", server.fleets(fleets)?);
                self.versions.push(server.version().to_owned());
                self.controls.push(("postgresql", Control::over(server)?));
            }
            Started::Missing(reason) => return Ok(Some(reason)),
        }
        match Redis::start()? {
            Started::Ready(server) => {
                self.tell("STOA_FLEET_REDIS", server.lines()?);
                self.versions.push(server.version().to_owned());
                self.controls.push(("redis", Control::over(server)?));
            }
            Started::Missing(reason) => return Ok(Some(reason)),
        }
        match Mongo::start()? {
            Started::Ready(server) => {
                self.tell("STOA_FLEET_MONGODB", server.url());
                self.versions.push(server.version().to_owned());
                self.controls.push(("mongodb", Control::over(server)?));
            }
            Started::Missing(reason) => return Ok(Some(reason)),
        }
        Ok(None)
    }

    fn add_broker(&mut self, broker: Broker, fleets: &[&str]) -> Result<Option<String>> {
        match broker {
            Broker::Kafka => match Kafka::start()? {
                Started::Ready(server) => {
                    self.tell("STOA_FLEET_BUS", format!("kafka={}/{{fleet}}-{}", server.address(), std::process::id()));
                    self.versions.push(Kafka::version());
                    self.controls.push(("kafka", Control::over(server)?));
                }
                Started::Missing(reason) => return Ok(Some(reason)),
            },
            Broker::RabbitMq => match RabbitMq::start()? {
                Started::Ready(server) => {
                    self.tell("STOA_FLEET_BUS", format!("rabbitmq={}", server.fleets(fleets)?));
                    self.versions.push(server.version());
                    self.controls.push(("rabbitmq", Control::over(server)?));
                }
                Started::Missing(reason) => return Ok(Some(reason)),
            },
        }
        Ok(None)
    }

    fn tell(&mut self, name: &'static str, value: String) {
        self.environment.push((name, value));
    }
}
