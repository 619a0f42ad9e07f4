//! What `retail_counts.py` counts in a file of invoices: the judge of every reader and of every import.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::command_line;
use crate::replay::Report;
use crate::retail::Invoices;

/// Counts the file by the script, which reads nothing else, and holds our reader against it.
pub async fn same_counts(path: &Path, until_day: Option<&str>, invoices: &Invoices) -> Result<Value> {
    let mut script = Command::new("python3");
    script.arg(command_line::repository().join("integration/retail_counts.py")).arg(path);
    if let Some(day) = until_day {
        script.args(["--until", day]);
    }
    let counted = command_line::run(&mut script, Duration::from_secs(120)).await?;
    ensure!(counted.code == Some(0), "{counted:?}");
    let counted: Value = serde_json::from_str(&counted.output)?;
    let ours = invoices.counts();
    ensure!(counted == ours, "the script counts {counted:#}, we count {ours:#}");
    Ok(counted)
}

/// Whether what became of the invoices is what the script counted in their file.
pub fn agrees(report: &Report, counted: &Value) -> Result<()> {
    let sold = &counted["categories"]["sale"];
    ensure!(
        sold["invoices"] == report.sales && sold["sum_minor"] == report.imported_pence,
        "the script counts {sold} of sales: {report:#?}"
    );
    ensure!(report.confirmed + report.refused.values().sum::<u64>() == report.sales, "sales are missing: {report:#?}");
    let cancelled = &counted["categories"]["cancellation"];
    ensure!(
        cancelled["sum_minor"].as_i64() == Some(-report.cancelled_pence)
            && cancelled["lines"] == report.returned_lines + report.unmatched_lines,
        "the script counts {cancelled} of cancellations: {report:#?}"
    );
    report.balances()
}
