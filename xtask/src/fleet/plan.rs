//! What a fleet is made of: how many copies, on which engines. Asked for by flags; remembered, because data is kept in them.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Copies of a service at most: each keeps two dozen connections to PostgreSQL, which lets 900 in.
const MOST_COPIES: usize = 3;

/// What the services keep their data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Database {
    /// PostgreSQL, a database and a role each
    Postgres,
    /// A file each, so one copy each; no server is started that is not asked for
    Files,
}

/// What carries events between the services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bus {
    /// Nothing: they read each other's logs
    #[default]
    None,
    /// RabbitMQ
    Rabbitmq,
    /// Kafka; needs Java, and Maven the first time
    Kafka,
}

/// Where the catalogue keeps its products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Catalog {
    /// Documents, by the protocol of MongoDB, from FerretDB; needs Go
    Mongodb,
    /// A file, so one copy of the catalogue
    #[default]
    File,
}

/// What was asked for; nothing means what the fleet had before, or the default.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Asked {
    /// Copies of each service and of the gateway, at most 3 [default: 2; 1 on files]
    #[arg(long, value_name = "N")]
    copies: Option<usize>,
    /// Where the services keep their data [default: postgres]
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// What carries events between them [default: rabbitmq; none on files]
    #[arg(long, value_enum)]
    bus: Option<Bus>,
    /// Where the catalogue keeps its products [default: mongodb; file on files]
    #[arg(long, value_enum)]
    catalog: Option<Catalog>,
    /// With Redis, where copies share what they can lose; the default but on files
    #[arg(long, overrides_with = "no_redis")]
    redis: bool,
    /// Without Redis: each copy counts sign-ins for itself, and an access token outlives its session by minutes
    #[arg(long)]
    no_redis: bool,
}

/// What a fleet is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) database: Database,
    #[serde(default)]
    pub(crate) bus: Bus,
    #[serde(default)]
    pub(crate) catalog: Catalog,
    #[serde(default)]
    pub(crate) redis: bool,
    #[serde(default = "one")]
    pub(crate) copies: usize,
}

fn one() -> usize {
    1
}

impl Plan {
    /// What is to be started where this was asked for and that, if anything, was there before.
    pub(crate) fn settle(asked: &Asked, before: Option<&Self>) -> Result<Self> {
        let database = asked.database.or(before.map(|it| it.database)).unwrap_or(Database::Postgres);
        let fresh = match database {
            Database::Postgres => {
                Self { database, bus: Bus::Rabbitmq, catalog: Catalog::Mongodb, redis: true, copies: 2 }
            }
            Database::Files => Self { database, bus: Bus::None, catalog: Catalog::File, redis: false, copies: 1 },
        };
        let usual = before.unwrap_or(&fresh);
        let redis = if asked.redis || asked.no_redis { asked.redis } else { usual.redis };
        let plan = Self {
            database,
            bus: asked.bus.unwrap_or(usual.bus),
            catalog: asked.catalog.unwrap_or(usual.catalog),
            redis,
            copies: asked.copies.unwrap_or(usual.copies),
        };
        if let Some(before) = before {
            ensure!(
                (plan.database, plan.catalog) == (before.database, before.catalog),
                "this fleet keeps its data otherwise ({before}); leave `--database` and `--catalog` out to go on with it, or \
                 delete it first: `cargo xtask fleet down --purge`"
            );
        }
        ensure!((1..=MOST_COPIES).contains(&plan.copies), "`--copies` is 1 to {MOST_COPIES}, not {}", plan.copies);
        ensure!(
            plan.database != Database::Files || plan.copies == 1,
            "a service's file is open in one process only: `--database files` is for one copy, leave `--copies` out"
        );
        Ok(plan)
    }

    /// How many copies of a service there are.
    pub(crate) fn copies_of(&self, service: &str) -> usize {
        if service == "catalog" && self.catalog == Catalog::File { 1 } else { self.copies }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = match self.database {
            Database::Postgres => "PostgreSQL",
            Database::Files => "files",
        };
        let copies = if self.copies == 1 { "one copy".to_owned() } else { format!("{} copies", self.copies) };
        write!(f, "{copies} on {database}")?;
        match self.bus {
            Bus::None => {}
            Bus::Rabbitmq => write!(f, ", RabbitMQ")?,
            Bus::Kafka => write!(f, ", Kafka")?,
        }
        if self.redis {
            write!(f, ", Redis")?;
        }
        match (self.catalog, self.copies) {
            (Catalog::Mongodb, _) => write!(f, ", products in documents"),
            (Catalog::File, 1) => write!(f, ", products in a file"),
            (Catalog::File, _) => write!(f, ", products in a file and so one copy of the catalogue"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked::default()
    }

    #[test]
    fn a_new_fleet_has_everything_twice_and_one_on_files_has_no_server() {
        let full = Plan::settle(&asked(), None).unwrap();
        assert_eq!((full.copies_of("catalog"), full.copies_of("cart"), full.redis), (2, 2, true));
        let files = Plan::settle(&Asked { database: Some(Database::Files), ..asked() }, None).unwrap();
        assert_eq!((files.copies, files.bus, files.catalog, files.redis), (1, Bus::None, Catalog::File, false));
    }

    #[test]
    fn what_is_not_said_stays_as_it_was() {
        let before = Plan::settle(&Asked { bus: Some(Bus::Kafka), no_redis: true, ..asked() }, None).unwrap();
        assert_eq!(Plan::settle(&asked(), Some(&before)).unwrap(), before);
        let more = Plan::settle(&Asked { copies: Some(3), redis: true, ..asked() }, Some(&before)).unwrap();
        assert_eq!((more.copies, more.bus, more.redis), (3, Bus::Kafka, true));
    }

    #[test]
    fn data_is_not_left_behind_unsaid_and_a_file_is_not_shared() {
        let before = Plan::settle(&asked(), None).unwrap();
        let moved = Asked { catalog: Some(Catalog::File), ..asked() };
        let error = Plan::settle(&moved, Some(&before)).unwrap_err().to_string();
        assert!(error.contains("--purge"), "{error}");
        assert_eq!(Plan::settle(&moved, None).unwrap().copies_of("catalog"), 1);
        let shared = Asked { database: Some(Database::Files), copies: Some(2), ..asked() };
        assert!(Plan::settle(&shared, None).is_err());
        assert!(Plan::settle(&Asked { copies: Some(0), ..asked() }, None).is_err());
        assert!(Plan::settle(&Asked { copies: Some(MOST_COPIES + 1), ..asked() }, None).is_err());
    }

    #[test]
    fn a_fleet_of_before_there_were_copies_is_understood() {
        let plan: Plan = serde_json::from_str("{\"database\": \"postgres\"}").unwrap();
        assert_eq!((plan.copies, plan.bus, plan.catalog, plan.redis), (1, Bus::None, Catalog::File, false));
    }
}
