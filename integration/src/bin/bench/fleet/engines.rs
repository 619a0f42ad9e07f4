//! The engines of the fleet without a shop: commits on PostgreSQL, and the way of an event to another service.

use anyhow::Result;
use tokio::process::Command;

use super::{Given, missing};
use crate::Bench;

/// Commits a second on PostgreSQL, beside what pgbench makes of the same statements in the same run.
pub(crate) async fn appends(bench: &mut Bench) -> Result<()> {
    let given = Given::read();
    let (Some(programs), Some(url)) = (&given.programs, &given.postgres) else {
        missing("PostgreSQL");
        return Ok(());
    };
    let mut command = Command::new(programs.join("postgres_bench"));
    bench.program("fleet.appends", command.arg(url).args(&given.pgbench)).await
}

/// From the commit of an event to the commit of its effect in another service: with files in one process, with databases
/// and a broker between two.
pub(crate) async fn events(bench: &mut Bench) -> Result<()> {
    let given = Given::read();
    let Some(programs) = &given.programs else {
        missing("the program");
        return Ok(());
    };
    let program = programs.join("event_to_effect");
    let folder = bench.folder()?;
    bench.program("fleet.events", Command::new(&program).arg(folder.path()).env_remove(POSTGRES)).await?;
    let kafka = given.kafka.map(|address| format!("{address}/example"));
    for (kind, name, address) in [("kafka", "Kafka", kafka), ("rabbitmq", "RabbitMQ", given.rabbitmq)] {
        let (Some(address), Some(postgres)) = (address, &given.postgres) else {
            missing(name);
            continue;
        };
        let folder = bench.folder()?;
        let mut command = Command::new(&program);
        command.arg(folder.path()).args([kind, &address]).env(POSTGRES, postgres);
        println!("through {name}:");
        bench.program("fleet.events", &mut command).await?;
    }
    Ok(())
}

/// Where stores are databases and not files.
const POSTGRES: &str = "STORE_TEST_POSTGRES";
