//! The program itself: its first line, its mistakes, its end.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::behind::{Reflection, Server, send};

fn program(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stoa-gateway"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test]
async fn the_first_line_is_the_address_and_the_end_lets_calls_end() {
    let server = Server::start("t", Reflection::V1).await;
    let mut child = program(&["--upstream", &server.address.to_string(), "--listen", "127.0.0.1:0"]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let address = line.trim().parse().unwrap();
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(20));
    let served = async {
        while send(address, "GET", "/v1/storefront/products/1", &[], "").await.status != 200 {
            turns.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), served).await.unwrap();
    let call = tokio::spawn(async move { send(address, "GET", "/v1/storefront/carts/1/checkout", &[], "").await });
    server.entered().await;
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    // The listener closes first; the call that is under way goes on.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        turns.tick().await;
    }
    server.hold.cancel();
    assert_eq!(call.await.unwrap().status, 200);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_setting_that_is_no_good_ends_the_program_with_a_reason() {
    for (arguments, reason) in [
        (&["--upstream", "localhost:1", "--listen", "nowhere"][..], "cannot listen on nowhere"),
        (&["--upstream", "a b", "--listen", "127.0.0.1:0"], "no address of a server: a b"),
        (
            &["--upstream", "localhost:1", "--listen", "127.0.0.1:0", "--descriptors", "/does/not/exist"],
            "cannot read /does/not/exist",
        ),
    ] {
        let mut child = program(arguments);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert!(!child.wait().await.unwrap().success() && said.contains(reason), "{said}");
    }
}
