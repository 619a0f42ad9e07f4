//! Settings: `docs/configuration.md` tells every one with its default, and flags win over environment over file.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::command_line;
use tokio::process::Command;

/// Values that differ from machine to machine.
const MACHINE: [&str; 1] = ["data"];

#[tokio::test]
async fn the_page_tells_every_setting_with_its_variable_and_default() -> Result<()> {
    let page = fs::read_to_string(command_line::repository().join("docs/configuration.md"))?;
    let mut told = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        ensure!(cells.len() == 6, "{line}");
        told.insert(cells[1].to_owned(), (cells[2].to_owned(), cells[3].to_owned()));
    }
    let settings = config(&[], &[]).await?;
    let help = command_line::stoa(["--help"]).await?.output;
    for (name, (value, source)) in &settings {
        ensure!(source == "default", "{name} is set by {source}");
        let (variable, default) = told.remove(name).with_context(|| format!("{name} is not on the page"))?;
        let known = ["=", "]"].iter().any(|end| help.contains(&format!("[env: {variable}{end}")));
        ensure!(known, "{variable} is no variable");
        ensure!(
            MACHINE.contains(&name.as_str()) || default == *value,
            "{name}: {default} on the page, {value} in truth"
        );
    }
    ensure!(told.is_empty(), "no settings: {told:?}");
    Ok(())
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_and_that_over_the_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("stoa.toml");
    fs::write(&file, "listen = \"127.0.0.1:1001\"\n")?;
    let file = file.display().to_string();
    let (from_file, environment) = (["--config", &file], [("STOA_LISTEN", "127.0.0.1:1002")]);
    let settings = config(&from_file, &[]).await?;
    ensure!(settings["listen"] == ("127.0.0.1:1001".to_owned(), format!("file {file}")), "{:?}", settings["listen"]);
    let settings = config(&from_file, &environment).await?;
    ensure!(settings["listen"] == ("127.0.0.1:1002".to_owned(), "environment STOA_LISTEN".to_owned()), "{settings:?}");
    let settings = config(&["--config", &file, "--listen", "127.0.0.1:1003"], &environment).await?;
    ensure!(settings["listen"] == ("127.0.0.1:1003".to_owned(), "flag".to_owned()), "{settings:?}");

    fs::write(&file, "lissten = \"127.0.0.1:1001\"\n")?;
    let refused = command_line::stoa(["--config", &file, "config"]).await?;
    ensure!(refused.code != Some(0) && refused.errors.contains("lissten"), "{refused:?}");
    Ok(())
}

/// What `stoa config` prints: value and source of each setting, with nothing of our own environment.
async fn config(flags: &[&str], environment: &[(&str, &str)]) -> Result<BTreeMap<String, (String, String)>> {
    let home = tempfile::tempdir()?;
    let mut command = Command::new(command_line::binary()?);
    command.args(flags).arg("config").env_clear().env("HOME", home.path()).envs(environment.iter().copied());
    let ended = command_line::run(&mut command, Duration::from_secs(30)).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let mut settings = BTreeMap::new();
    for line in ended.output.lines() {
        let (name, rest) = line.split_once(' ').with_context(|| line.to_owned())?;
        let rest = rest.trim();
        let value = ["(none)", "(not shown)"].into_iter().find(|word| rest.starts_with(word));
        let value = value.or_else(|| rest.split(' ').next()).unwrap_or_default();
        settings.insert(name.to_owned(), (value.to_owned(), rest[value.len()..].trim().to_owned()));
    }
    Ok(settings)
}
