//! Sidecar: Envoys carry the certificates of processes that have none, balance over two copies and send again what may be

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use integration::between::{Caller, Claims};
use integration::certified::{Dialer, taken_up};
use integration::fleet::{Copy, GATEWAY, Plan, certify};
use integration::http::Client;
use integration::shopper::Shopper;
use integration::sold_out::{Begun, SKU, SOON};
use integration::{Fleet, Setup, Stoa, command_line, grpc, sidecars, skip, until};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;

/// Two copies of one catalogue; the fleet's own rule is that one which keeps a file has a single copy.
const COPIES: [Copy; 2] = [("catalog", 0), ("catalog", 1)];
const CART: Copy = ("cart", 0);
const DOOR: Copy = (GATEWAY, 0);
/// Who has a sidecar. The others carry their certificates themselves, and neither side knows of the other's way.
const BESIDE: [&str; 3] = [GATEWAY, "cart", "catalog"];

const RESOLVE: &str = "/stoa.catalog.v1.CatalogService/ResolvePrices";
const CREATE: &str = "/stoa.catalog.v1.CatalogService/CreateProduct";

/// Calls that are made to see where they go.
const CALLS: u64 = 80;

#[tokio::test]
async fn the_example_is_taken_by_envoy_and_says_what_the_contracts_say() -> Result<()> {
    let Some(envoy) = envoy() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let certificates = folder.path().join("tls");
    certify(&command_line::binary()?, &certificates, &["cart"]).await?;
    let good = sidecars::validate(&envoy, &certificates, |text| text).await?;
    ensure!(good.code == Some(0), "{}{}", good.output, good.errors);
    // That Envoy looks at all: a field it does not know.
    let wrong = |text: String| text.replace("require_client_certificate: true", "require_client_certificates: true");
    let refused = sidecars::validate(&envoy, &certificates, wrong).await?;
    ensure!(refused.code != Some(0) && refused.errors.contains("require_client_certificates"), "{}", refused.errors);

    let stoa = Stoa::start(Setup::new()).await?;
    let contracts = grpc::Client::connect(stoa.address()).await?;
    let differences = sidecars::differences(contracts.pool())?;
    ensure!(differences.is_empty(), "the example and the contracts do not agree: {differences:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_talk_through_sidecars_and_a_copy_that_dies_costs_no_call_that_may_be_sent_again() -> Result<()> {
    let Some(envoy) = envoy() else { return Ok(()) };
    let mut fleet = shop(&envoy).await?;
    let done = async {
        // Through both kinds of process and both ways: ordering has its own certificate and calls cart's sidecar with it.
        let order = Shopper::guest_over(fleet.client()).await?.buy("EUR", SKU, 1, "tok_ok").await?;
        ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
        plain_is_heard_on_loopback_alone(&fleet).await?;
        nobody_else_is_let_in(&fleet).await?;
        calls_come_to_both(&fleet).await?;
        copies_die(&mut fleet).await?;
        fleet.audit().await.map(drop)
    };
    if let Err(error) = done.await {
        let sidecars = fleet.sidecars()?;
        let told = [sidecars.opinion(CART, "catalog").await?, sidecars.opinion(DOOR, "catalog").await?].join("\n");
        return Err(error.context(format!("{}what the sidecars say of the catalogue:\n{told}", fleet.complaints())));
    }
    Ok(())
}

/// A fleet whose catalogue has two copies of the same data: it is filled, stopped and copied, and only read from then on.
async fn shop(envoy: &Path) -> Result<Fleet> {
    let sidecars = Some(sidecars::Plan { envoy, beside: &BESIDE });
    let plan = Plan { reserved: &COPIES[1..], sidecars, ..Plan::default() };
    let mut fleet = Fleet::start_as(command_line::binary()?, &plan).await?;
    fleet.operator().await?.stock(SKU, 20, 1_000).await?;
    fleet.leave(COPIES[0]).await?;
    copy(&fleet.data(COPIES[0]), &fleet.data(COPIES[1]))?;
    for each in COPIES {
        fleet.launch(each).await?;
    }
    both_are_well(&fleet).await?;
    Ok(fleet)
}

/// Both callers' sidecars have seen that both copies take calls.
async fn both_are_well(fleet: &Fleet) -> Result<()> {
    let sidecars = fleet.sidecars()?;
    for caller in [CART, DOOR] {
        until(SOON, "two healthy copies", async || {
            Ok((sidecars.count(caller, "cluster.catalog.membership_healthy").await? == 2).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn plain_is_heard_on_loopback_alone(fleet: &Fleet) -> Result<()> {
    let sidecars = fleet.sidecars()?;
    let outside = outside()?;
    for copy in [CART, COPIES[0], COPIES[1]] {
        let plain = fleet.address(copy)?;
        only_on_loopback(plain.port())?;
        TcpStream::connect(plain).await.context("it listens on loopback")?;
        let Some(outside) = outside else { continue };
        let refused = TcpStream::connect(SocketAddr::new(outside, plain.port())).await;
        ensure!(refused.is_err(), "{copy:?} hears plain calls at {outside}");
        // The sidecar is there for those who come from outside.
        let inbound = SocketAddr::new(outside, sidecars.inbound(copy)?.port());
        let gateway = Dialer::named(&fleet.certificates(), GATEWAY)?;
        ensure!(gateway.is_kept(inbound).await, "the sidecar of {copy:?} is not reached at {outside}");
    }
    for callee in ["catalog", "identity", "shipping"] {
        only_on_loopback(sidecars.outbound(CART, callee)?.port())?;
    }
    // A process that has no certificates does not listen for others even when it is told to.
    let map = sidecars.map_of(COPIES[0]).context("no map")?;
    let folder = tempfile::tempdir()?;
    let mut command = tokio::process::Command::new(command_line::binary()?);
    command.args(["serve", "catalog", "--bind", "0.0.0.0:0", "--fleet"]).arg(map).arg("--data").arg(folder.path());
    let ended = command_line::run(&mut command, SOON).await?;
    ensure!(ended.code.is_some_and(|code| code != 0) && ended.errors.contains("without certificates"), "{ended:?}");
    Ok(())
}

async fn nobody_else_is_let_in(fleet: &Fleet) -> Result<()> {
    let certificates = fleet.certificates();
    let foreign = tempfile::tempdir()?;
    certify(&command_line::binary()?, &foreign.path().join("tls"), &["cart"]).await?;
    let inbound = fleet.sidecars()?.inbound(COPIES[0])?;
    for (who, dialer) in [
        ("nobody", Dialer::nobody()?),
        ("cart by another authority", Dialer::named(&foreign.path().join("tls"), "cart")?),
        ("orderview, which does not call the catalogue", Dialer::named(&certificates, "orderview")?),
    ] {
        ensure!(!dialer.is_kept(inbound).await, "{who} is let in");
    }
    let (cart, gateway) = (Dialer::named(&certificates, "cart")?, Dialer::named(&certificates, GATEWAY)?);
    ensure!(cart.is_kept(inbound).await, "cart is not let in");
    let call = async |dialer: &Dialer, method, token: Option<String>| {
        Caller::connect(dialer, inbound).await?.status(method, token.as_deref()).await
    };
    // With the fleet's key anybody can say to be the gateway; the certificate opens what the contract lists for cart.
    let stolen = call(&cart, CREATE, Some(Claims::of(GATEWAY, "catalog")?.signed())).await?;
    ensure!(stolen.code() == Code::PermissionDenied && stolen.message().contains("RBAC"), "{stolen:?}");
    let own = call(&gateway, CREATE, Some(Claims::of(GATEWAY, "catalog")?.signed())).await?;
    ensure!(!own.message().contains("RBAC"), "{own:?}");
    // Past the sidecar the process asks for its token: a certificate alone makes no call.
    let bare = call(&cart, RESOLVE, None).await?;
    ensure!(bare.code() == Code::Unauthenticated, "{bare:?}");
    let said = call(&cart, RESOLVE, Some(Claims::of("cart", "catalog")?.signed())).await?;
    ensure!(said.code() == Code::InvalidArgument, "{said:?}");
    Ok(())
}

async fn calls_come_to_both(fleet: &Fleet) -> Result<()> {
    let sidecars = fleet.sidecars()?;
    let wanted: Vec<SocketAddr> = COPIES.iter().map(|copy| sidecars.inbound(*copy)).collect::<Result<_>>()?;
    for caller in [CART, DOOR] {
        let before = sidecars.sent(caller, "catalog").await?;
        ensure!(before.keys().copied().collect::<Vec<_>>() == wanted, "{before:?}");
        let mut reader = Reader::new(fleet, caller).await?;
        for _ in 0..CALLS {
            reader.read().await?;
        }
        let after = sidecars.sent(caller, "catalog").await?;
        let more: BTreeMap<_, _> = after.iter().map(|(copy, sent)| (copy, sent - before[copy])).collect();
        ensure!(more.values().sum::<u64>() >= CALLS, "{more:?} of {CALLS} calls went through the sidecar");
        ensure!(more.values().all(|sent| *sent >= CALLS / 4), "{CALLS} calls went {more:?}");
    }
    Ok(())
}

/// What a copy loses, with kill -9.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Process,
    Sidecar,
    Both,
}

async fn copies_die(fleet: &mut Fleet) -> Result<()> {
    let mut crowd = Crowd::default();
    // Who sends once and takes no for an answer: whatever is sent again, a sidecar sends.
    for caller in [CART, DOOR] {
        crowd.reads(Reader::new(fleet, caller).await?);
    }
    // And the shop itself: the door reads the catalogue, and cart asks it for prices.
    crowd.looks(fleet.client());
    crowd.prices(Shopper::guest_over(fleet.client()).await?).await?;
    crowd.reach(100).await?;
    let before = sent_again(fleet).await?;
    for (copy, loss) in
        COPIES.into_iter().flat_map(|copy| [Loss::Process, Loss::Sidecar, Loss::Both].map(|it| (copy, it)))
    {
        if let Loss::Process | Loss::Both = loss {
            fleet.kill(copy).await?;
        }
        if let Loss::Sidecar | Loss::Both = loss {
            fleet.sidecars_mut()?.kill(copy).await?;
        }
        crowd.reach(100).await.with_context(|| format!("{copy:?} lost {loss:?}"))?;
        match loss {
            Loss::Process | Loss::Both => fleet.launch(copy).await?,
            Loss::Sidecar => fleet.sidecars_mut()?.start(copy).await?,
        }
        both_are_well(fleet).await?;
        crowd.reach(100).await.with_context(|| format!("{copy:?} is back after {loss:?}"))?;
    }
    new_certificates_are_taken_up(fleet).await?;
    crowd.reach(100).await.context("with new certificates")?;
    crowd.ends().await?;
    let after = sent_again(fleet).await?;
    ensure!(after > before, "no sidecar sent anything again");
    println!("measured: {} calls sent again by the sidecars while copies died", after - before);
    Ok(())
}

/// How many calls to the catalogue the callers' sidecars have sent again.
async fn sent_again(fleet: &Fleet) -> Result<u64> {
    let count = async |caller| fleet.sidecars()?.count(caller, "cluster.catalog.upstream_rq_retry").await;
    Ok(count(CART).await? + count(DOOR).await?)
}

async fn new_certificates_are_taken_up(fleet: &Fleet) -> Result<()> {
    fleet.certify_again().await?;
    let inbound = |copy: Copy| Ok((copy.0, fleet.sidecars()?.inbound(copy)?));
    let processes: Vec<_> = [CART, COPIES[0], COPIES[1]].into_iter().map(inbound).collect::<Result<_>>()?;
    taken_up(&fleet.certificates(), GATEWAY, &processes, SOON).await
}

/// Asks the catalogue for a price as a process with a sidecar does, plain and on loopback, and sends nothing again itself.
struct Reader {
    client: grpc::Client,
    caller: Copy,
}

impl Reader {
    async fn new(fleet: &Fleet, caller: Copy) -> Result<Self> {
        let contracts = grpc::Client::connect(fleet.address(DOOR)?).await?;
        let client = contracts.again(fleet.sidecars()?.outbound(caller, "catalog")?).await?;
        Ok(Self { client, caller })
    }

    async fn read(&mut self) -> Result<()> {
        let client = self.client.with_token(Claims::of(self.caller.0, "catalog")?.signed());
        let read = json!({ "skus": [SKU] });
        let found = client.call("stoa.catalog.v1.CatalogService/BatchGetVariants", &read).await??;
        ensure!(found["variants"].as_array().is_some_and(|variants| variants.len() == 1), "{found}");
        Ok(())
    }
}

/// People who do the same again and again and take no for an answer: what fails once has failed.
#[derive(Default)]
struct Crowd {
    done: Begun,
    enough: Arc<AtomicBool>,
    people: JoinSet<Result<()>>,
}

impl Crowd {
    fn does(&mut self, mut act: impl Act) {
        let (done, enough) = (self.done.clone(), Arc::clone(&self.enough));
        self.people.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                act.once().await?;
                done.count();
            }
            Ok(())
        });
    }

    fn reads(&mut self, reader: Reader) {
        self.does(reader);
    }

    fn looks(&mut self, door: Client) {
        self.does(Looker(door));
    }

    async fn prices(&mut self, mut shopper: Shopper) -> Result<()> {
        let cart = shopper.fill("EUR", SKU, 1).await?.cart;
        self.does(Buyer { shopper, cart });
        Ok(())
    }

    /// Waits until so much more has been done.
    async fn reach(&mut self, more: usize) -> Result<()> {
        let goal = self.done.so_far() + more;
        tokio::select! {
            reached = self.done.reach(goal) => reached,
            Some(ended) = self.people.join_next() => ended?.and_then(|()| anyhow::bail!("somebody went home")),
        }
    }

    async fn ends(mut self) -> Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.people.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// What somebody does again and again.
trait Act: Send + 'static {
    fn once(&mut self) -> impl Future<Output = Result<()>> + Send;
}

impl Act for Reader {
    async fn once(&mut self) -> Result<()> {
        self.read().await.with_context(|| format!("as {:?}", self.caller))
    }
}

/// Looks at a product at the gateway.
struct Looker(Client);

impl Act for Looker {
    async fn once(&mut self) -> Result<()> {
        let answer = self.0.get(&format!("/v1/products:batchGetVariants?skus={SKU}")).await?;
        // What was known earlier is no answer of the catalogue.
        ensure!(!answer.headers.contains_key("stoa-stale-since"), "the catalogue did not answer");
        let found: Value = answer.ok().context("at the gateway")?;
        ensure!(found["variants"].as_array().is_some_and(|variants| variants.len() == 1), "{found}");
        Ok(())
    }
}

/// Asks what a cart costs.
struct Buyer {
    shopper: Shopper,
    cart: String,
}

impl Act for Buyer {
    async fn once(&mut self) -> Result<()> {
        self.shopper.price(&self.cart).await.map(drop).context("a cart's price")
    }
}

fn envoy() -> Option<PathBuf> {
    let envoy = std::env::var_os("STOA_ENVOY").map(PathBuf::from);
    if envoy.is_none() {
        skip::not_proven("processes whose certificates a sidecar carries: there is no Envoy");
    }
    envoy
}

/// An address of this machine that is not loopback, if it has one; nothing is sent.
fn outside() -> Result<Option<IpAddr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    Ok(routed.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified()))
}

/// Whoever listens at this port listens on loopback, as the system tells it.
fn only_on_loopback(port: u16) -> Result<()> {
    const LISTENS: &str = "0A";
    let mut listeners = vec![];
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = fs::read_to_string(table) else { continue };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, ..] = fields[..] else { continue };
            let (address, at) = local.split_once(':').context("no port")?;
            if state == LISTENS && u16::from_str_radix(at, 16)? == port {
                listeners.push(address.to_owned());
            }
        }
    }
    // The bytes of 127.0.0.1, as a machine with the lowest first writes them.
    ensure!(listeners == [format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]))], "at {port}: {listeners:?}");
    Ok(())
}

/// Copies a folder of a process that does not run.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
