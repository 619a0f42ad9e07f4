//! What was measured: one line a figure, for people and for programs.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
    /// What it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<Wanted>,
}

/// What a figure should be; it is told, and fails nothing, because machines differ.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

/// Every figure so far.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    /// A figure without a goal.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &str) {
        self.push(name, value, unit, None);
    }

    /// A figure with a goal.
    pub(crate) fn judged(&mut self, name: &str, value: f64, unit: &str, wanted: Wanted) {
        self.push(name, value, unit, Some(wanted));
    }

    /// A figure as another program tells it: `NAME VALUE UNIT WANTED WORDS...`, a dash where there is no unit or no goal.
    pub(crate) fn told(&mut self, group: &str, line: &str) -> Result<()> {
        let mut words = line.splitn(5, ' ');
        let mut next = || words.next().with_context(|| format!("not a figure: {line}"));
        let (name, value, unit, wanted, what) = (next()?, next()?.parse()?, next()?, next()?, next()?);
        let unit = if unit == "-" { "" } else { unit };
        println!("{what}: {} {unit}", shown(value));
        self.push(&format!("{group}.{name}"), value, unit, Wanted::read(wanted)?);
        Ok(())
    }

    fn push(&mut self, name: &str, value: f64, unit: &str, wanted: Option<Wanted>) {
        self.0.push(Figure { name: name.to_owned(), value, unit: unit.to_owned(), wanted });
    }

    /// The table: name, value, unit, what is wanted.
    pub(crate) fn print(&self) {
        println!();
        for Figure { name, value, unit, wanted } in &self.0 {
            let wanted = wanted.map(|wanted| wanted.against(*value)).unwrap_or_default();
            println!("{name:<44} {:>12} {unit:<10} {wanted}", shown(*value));
        }
    }

    /// The same as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(&self.0)?)?;
        Ok(())
    }
}

impl Wanted {
    /// `>=N` or `<=N`; nothing where nothing is wanted.
    pub(crate) fn read(word: &str) -> Result<Option<Self>> {
        let goal = |number: &str| number.parse().with_context(|| format!("no number: {word}"));
        Ok(match (word.strip_prefix(">="), word.strip_prefix("<=")) {
            (Some(number), _) => Some(Self::AtLeast(goal(number)?)),
            (_, Some(number)) => Some(Self::AtMost(goal(number)?)),
            (None, None) => None,
        })
    }

    fn against(self, value: f64) -> String {
        let (sign, goal, met) = match self {
            Wanted::AtLeast(goal) => (">=", goal, value >= goal),
            Wanted::AtMost(goal) => ("<=", goal, value <= goal),
        };
        format!("wanted {sign} {}{}", shown(goal), if met { "" } else { ", not reached" })
    }
}

/// As many digits as mean something.
fn shown(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        medium if medium >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}
