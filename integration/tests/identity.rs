//! Identity: no process of a fleet hears anybody without a certificate, none is anybody else, and new certificates cost no call

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::between::{Caller, Claims};
use integration::buyers::Buyers;
use integration::certified::{Dialer, taken_up};
use integration::fleet::{SERVICES, certify};
use integration::sold_out::SKU;
use integration::{Fleet, command_line, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

const CAPTURE: &str = "/stoa.payment.v1.PaymentService/CapturePayment";
const CANCEL: &str = "/stoa.payment.v1.PaymentService/CancelPayment";

/// From new files until every process shows them.
const TAKEN_UP: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_between_processes_opens_for_a_certificate_and_a_token_that_say_the_same() -> Result<()> {
    let fleet = Fleet::start(command_line::binary()?, None).await?;
    for service in SERVICES {
        plain_hears_nothing(fleet.address((service, 0))?).await.context(service)?;
    }
    let payment = fleet.address(("payment", 0))?;
    ensure!(!Dialer::nobody()?.is_kept(payment).await, "a connection without a certificate is kept");
    // The same names, signed by somebody else.
    let foreign = tempfile::tempdir()?;
    certify(&command_line::binary()?, &foreign.path().join("tls"), &["ordering"]).await?;
    ensure!(!Dialer::named(&foreign.path().join("tls"), "ordering")?.is_kept(payment).await, "a foreign one is kept");

    let folder = fleet.certificates();
    let orderview = Dialer::named(&folder, "orderview")?;
    ensure!(orderview.is_kept(payment).await, "a process of the fleet is kept");
    let orderview = Caller::connect(&orderview, payment).await?;
    for (actor, code) in [
        // The key of the fleet says what one likes, the certificate whose it is.
        ("ordering", Code::PermissionDenied),
        ("gateway", Code::PermissionDenied),
        ("operator", Code::PermissionDenied),
        // Its own name is believed, and the contract does not have it.
        ("orderview", Code::PermissionDenied),
    ] {
        for method in [CAPTURE, CANCEL] {
            let before = denials(&fleet, method);
            let status = orderview.call(method, Some(&Claims::of(actor, "payment")?.signed())).await?;
            ensure!(status == code, "{actor} {method}: {status:?}");
            until(TAKEN_UP, "the record", async || Ok((denials(&fleet, method) > before).then_some(()))).await?;
            let now = denials(&fleet, method);
            ensure!(now == before + 1, "{actor} {method}: {} records", now - before);
        }
    }
    ensure!(orderview.call(CAPTURE, None).await? == Code::Unauthenticated, "a certificate is no token");
    // That it is the certificate which keeps it out: the same call by the one who may, whose message says nothing.
    let ordering = Caller::connect(&Dialer::named(&folder, "ordering")?, payment).await?;
    let status = ordering.call(CAPTURE, Some(&Claims::of("ordering", "payment")?.signed())).await?;
    ensure!(status == Code::InvalidArgument, "{status:?}");
    // And the command line asks with its own.
    fleet.audit().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_taken_up_while_the_shop_sells_and_nobody_is_told_no() -> Result<()> {
    let fleet = Fleet::start(command_line::binary()?, None).await?;
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let mut buyers = Buyers::at(&fleet, 3, 1, "tok_ok");
    buyers.more(4).await?;
    for _ in 0..2 {
        fleet.certify_again().await?;
        let processes: Vec<_> =
            SERVICES.into_iter().map(|name| Ok((name, fleet.address((name, 0))?))).collect::<Result<_>>()?;
        taken_up(&fleet.certificates(), "operator", &processes, TAKEN_UP).await?;
        buyers.more(6).await?;
    }
    buyers.home().await?;
    fleet.audit().await.map(drop)
}

/// How often payment told of a denied call of this method.
fn denials(fleet: &Fleet, method: &str) -> usize {
    let said = fleet.tail(("payment", 0), 400);
    said.lines().filter(|line| line.contains("audit") && line.contains("denied") && line.contains(method)).count()
}

/// HTTP/1.1 and HTTP/2 without TLS: an alert at most, and the connection is closed.
async fn plain_hears_nothing(address: SocketAddr) -> Result<()> {
    for hello in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut tcp = TcpStream::connect(address).await?;
        tcp.write_all(hello).await?;
        let mut heard = vec![];
        let _ = tokio::time::timeout(TAKEN_UP, tcp.read_to_end(&mut heard)).await.context("it stays open")?;
        // A record of TLS that is an alert, or nothing.
        ensure!(heard.is_empty() || (heard.len() == 7 && heard[0] == 21), "{heard:?}");
    }
    Ok(())
}
