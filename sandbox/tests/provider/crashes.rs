//! The provider killed between its commit and its answer.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::rig::{Provider, payment};

fn spawn(data: &Path, extra: &[&str]) -> (Child, Provider) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sandbox"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .args(extra)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
    (child, Provider::at(address))
}

#[tokio::test]
async fn a_crash_between_commit_and_answer_charges_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, provider) = spawn(folder.path(), &["--abort-at-commit", "1"]);
    let body = payment("p", "tok_ok").to_string();
    let lost = provider.send("POST", "/v1/authorizations", Some("p"), &body).await;
    assert_eq!(lost, None);
    assert!(!child.wait().unwrap().success());
    let (mut child, provider) = spawn(folder.path(), &[]);
    assert_eq!(provider.ledger().await.len(), 1);
    let (status, answer) = provider.authorize("p", "tok_ok").await;
    assert_eq!(status, 200);
    let entries = provider.ledger().await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["id"], answer["id"]);
    child.kill().unwrap();
    child.wait().unwrap();
}
