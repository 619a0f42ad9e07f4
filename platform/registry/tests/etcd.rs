//! Copies are found through a real etcd, whatever becomes of them and of it.
#![allow(clippy::unwrap_used)]

mod server;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use registry::{Config, Copy, Registry};
use rustix::process::Signal;
use serde_json::json;
use server::{Etcd, coded};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// etcd grants no shorter one.
const TTL: Duration = Duration::from_secs(2);
/// How long something may take to be seen where no time is promised.
const SOON: Duration = Duration::from_secs(30);

fn config(members: &[&str]) -> Config {
    Config { ttl: TTL, ..Config::at(members.iter().copied()) }
}

fn registry(etcd: &Etcd) -> Registry {
    Registry::new(&config(&[&etcd.url()])).unwrap()
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A copy of the cart that keeps itself in the list.
struct Kept {
    leave: CancellationToken,
    keeping: JoinHandle<()>,
}

impl Kept {
    fn at(registry: &Registry, port: u16) -> Self {
        let (registry, leave) = (registry.clone(), CancellationToken::new());
        let copy = Copy { prefix: "shop".to_owned(), service: "cart".to_owned(), address: address(port) };
        let until = leave.clone();
        let keeping = tokio::spawn(async move { registry.keep(&[copy], until).await });
        Kept { leave, keeping }
    }

    async fn leave(self) {
        self.leave.cancel();
        tokio::time::timeout(SOON, self.keeping).await.unwrap().unwrap();
    }

    /// As a process that is killed: no sign of life any more, and no farewell.
    fn die(self) {
        self.keeping.abort();
    }
}

/// Somebody who calls the cart.
struct Caller {
    told: watch::Receiver<BTreeSet<SocketAddr>>,
    following: JoinHandle<()>,
}

impl Caller {
    fn of(registry: &Registry) -> Self {
        let (tell, told) = watch::channel(BTreeSet::new());
        let registry = registry.clone();
        let following = tokio::spawn(async move {
            let tell = |copies: &BTreeSet<SocketAddr>| -> Result<(), Infallible> {
                tell.send_replace(copies.clone());
                Ok(())
            };
            registry.follow("shop", "cart", tell).await;
        });
        Caller { told, following }
    }

    async fn hears(&mut self, ports: &[u16]) {
        let wanted: BTreeSet<SocketAddr> = ports.iter().copied().map(address).collect();
        let heard = tokio::time::timeout(SOON, self.told.wait_for(|told| *told == wanted)).await.is_ok();
        assert!(heard, "wanted {wanted:?}, told {:?}", self.told.borrow());
    }

    /// For all of this time nothing else is told.
    async fn keeps(&mut self, ports: &[u16], time: Duration) {
        assert_eq!(self.knows(), ports);
        self.told.mark_unchanged();
        let changed = tokio::time::timeout(time, self.told.changed()).await.is_ok();
        assert!(!changed, "told {:?}", self.told.borrow());
    }

    fn knows(&self) -> Vec<u16> {
        self.told.borrow().iter().map(SocketAddr::port).collect()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn copies_join_and_leave_and_callers_hear_of_it() {
    let etcd = Etcd::start();
    let registry = registry(&etcd);
    let (one, two) = (Kept::at(&registry, 1), Kept::at(&registry, 2));
    let mut caller = Caller::of(&registry);
    caller.hears(&[1, 2]).await;
    let three = Kept::at(&registry, 3);
    caller.hears(&[1, 2, 3]).await;
    // As anybody may read it: a folder for a service, an id for a copy.
    let (keys, _) = etcd.keys("shop/");
    let ids: BTreeSet<&str> = keys.iter().filter_map(|(key, _)| key.strip_prefix("shop/cart/")).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 16 && !id.contains('/')), "{keys:?}");
    // Another service's copies are not the cart's.
    etcd.put("shop/carts/1", "127.0.0.1:9");
    etcd.put("shop/cart/odd", "somewhere");
    one.leave().await;
    assert_eq!(etcd.keys("shop/cart/").0.len(), 3, "off the list before it ends: two copies and what is none");
    caller.hears(&[2, 3]).await;
    two.leave().await;
    caller.hears(&[3]).await;
    three.leave().await;
    assert_eq!(etcd.keys("shop/cart/").0.len(), 1);
    assert_eq!(caller.knows(), [3], "the last one known stays");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn a_copy_that_is_silent_is_gone_when_its_lease_runs_out() {
    let etcd = Etcd::start();
    let registry = registry(&etcd);
    let (one, _two) = (Kept::at(&registry, 1), Kept::at(&registry, 2));
    let mut caller = Caller::of(&registry);
    caller.hears(&[1, 2]).await;
    let id = etcd.keys("shop/cart/").0.into_iter().find(|(_, value)| value.ends_with(":1")).unwrap().0;
    let lease = i64::from_str_radix(id.rsplit('/').next().unwrap(), 16).unwrap();
    let granted = etcd.tell("/v3/kv/lease/timetolive", &json!({ "ID": lease.to_string() }))["grantedTTL"].clone();
    assert_eq!(granted, "2", "what etcd was asked for");
    one.die();
    caller.hears(&[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn a_lease_or_a_key_that_is_lost_is_replaced() {
    let etcd = Etcd::start();
    let registry = registry(&etcd);
    let _one = Kept::at(&registry, 1);
    let mut caller = Caller::of(&registry);
    caller.hears(&[1]).await;
    let key = || etcd.keys("shop/cart/").0.pop().map(|(key, _)| key);
    let lease_of = |key: &str| i64::from_str_radix(key.rsplit('/').next().unwrap(), 16).unwrap().to_string();
    let first = key().unwrap();
    etcd.delete("shop/");
    until("the key is there again", || key().as_ref() == Some(&first)).await;
    etcd.tell("/v3/kv/lease/revoke", &json!({ "ID": lease_of(&first) }));
    until("another lease has it", || key().is_some_and(|key| key != first)).await;
    let second = key().unwrap();
    // Somebody takes the copy's key: it is left to them, and the copy has another id.
    etcd.put(&second, "127.0.0.1:7");
    until("both are there", || etcd.keys("shop/cart/").0.len() == 2).await;
    assert!(etcd.keys("shop/cart/").0.contains(&(second, "127.0.0.1:7".to_owned())));
    caller.hears(&[1, 7]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn etcd_away_takes_no_copy_away_and_what_happened_meanwhile_is_heard() {
    let mut etcd = Etcd::start();
    let registry = registry(&etcd);
    let (one, two) = (Kept::at(&registry, 1), Kept::at(&registry, 2));
    let mut caller = Caller::of(&registry);
    caller.hears(&[1, 2]).await;
    for turn in 0..3 {
        etcd.kill();
        let joins = Kept::at(&registry, 10 + turn);
        // Longer than a lease: who is there is not forgotten because etcd was not.
        caller.keeps(&[1, 2], TTL * 2).await;
        etcd.start_again();
        caller.hears(&[1, 2, 10 + turn]).await;
        joins.leave().await;
        caller.hears(&[1, 2]).await;
    }
    etcd.signal(Signal::STOP);
    caller.keeps(&[1, 2], TTL * 2).await;
    // Nobody waits for a farewell that does not come.
    two.leave().await;
    etcd.signal(Signal::CONT);
    caller.hears(&[1]).await;
    drop(one);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn an_etcd_that_lost_its_memory_is_told_again() {
    let mut etcd = Etcd::start();
    let registry = registry(&etcd);
    // Its revision is far ahead of what it will be.
    (0..50).for_each(|turn| etcd.put("noise", &turn.to_string()));
    let (_one, _two) = (Kept::at(&registry, 1), Kept::at(&registry, 2));
    let mut caller = Caller::of(&registry);
    caller.hears(&[1, 2]).await;
    for turn in 0..2 {
        etcd.kill();
        etcd.empty();
        etcd.start_again();
        until("both are there again", || etcd.keys("shop/cart/").0.len() == 2).await;
        let three = Kept::at(&registry, 3 + turn);
        caller.hears(&[1, 2, 3 + turn]).await;
        three.leave().await;
        caller.hears(&[1, 2]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn a_history_that_is_forgotten_all_the_time_loses_no_copy() {
    let mut etcd = Etcd::start();
    let registry = registry(&etcd);
    let _one = Kept::at(&registry, 1);
    let mut caller = Caller::of(&registry);
    caller.hears(&[1]).await;
    for turn in 0..30 {
        let key = format!("shop/cart/{turn}");
        etcd.put(&key, &format!("127.0.0.1:{}", 100 + turn));
        etcd.compact();
        if turn % 10 == 9 {
            etcd.kill();
            etcd.start_again();
        }
        etcd.put("noise", "louder");
        etcd.compact();
        caller.hears(&[1, 100 + turn]).await;
        etcd.delete(&key);
        etcd.compact();
    }
    caller.hears(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn a_member_that_dies_is_not_missed() {
    let mut members = Etcd::cluster();
    let urls: Vec<String> = members.iter().map(Etcd::url).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let registry = Registry::new(&config(&urls)).unwrap();
    let _one = Kept::at(&registry, 1);
    let mut caller = Caller::of(&registry);
    caller.hears(&[1]).await;
    for member in &mut members {
        member.kill();
        let joins = Kept::at(&registry, 20);
        caller.hears(&[1, 20]).await;
        joins.leave().await;
        caller.hears(&[1]).await;
        member.start_again();
    }
    // Cut off from the others, a member knows nothing new and says so.
    members[0].kill();
    members[1].kill();
    let joins = Kept::at(&registry, 21);
    caller.keeps(&[1], TTL).await;
    members[0].start_again();
    caller.hears(&[1, 21]).await;
    joins.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn a_user_who_may_touch_the_prefix_alone_is_enough() {
    let mut etcd = Etcd::start();
    for (path, body) in [
        ("user/add", json!({ "name": "root", "password": "root's" })),
        ("user/grant", json!({ "user": "root", "role": "root" })),
        ("role/add", json!({ "name": "shop" })),
        (
            "role/grant",
            json!({
                "name": "shop",
                "perm": { "permType": "READWRITE", "key": coded("shop/"), "range_end": coded("shop0") },
            }),
        ),
        ("user/add", json!({ "name": "shop", "password": "shop's" })),
        ("user/grant", json!({ "user": "shop", "role": "shop" })),
        ("enable", json!({})),
    ] {
        etcd.tell(&format!("/v3/auth/{path}"), &body);
    }
    let asking = |user: Option<(&str, &str)>| {
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        Registry::new(&Config { user, ..config(&[&etcd.url()]) }).unwrap()
    };
    let registry = asking(Some(("shop", "shop's")));
    let (nobody, liar) = (asking(None), asking(Some(("shop", "guessed"))));
    let _one = Kept::at(&registry, 1);
    let mut caller = Caller::of(&registry);
    caller.hears(&[1]).await;
    let (unknown, lying) = (Kept::at(&nobody, 2), Kept::at(&liar, 3));
    let (deaf, deceived) = (Caller::of(&nobody), Caller::of(&liar));
    // Its tokens are gone then: who has a password gets another.
    etcd.kill();
    etcd.start_again();
    let four = Kept::at(&registry, 4);
    caller.hears(&[1, 4]).await;
    four.leave().await;
    caller.hears(&[1]).await;
    assert!(deaf.knows().is_empty() && deceived.knows().is_empty());
    unknown.die();
    lying.die();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the lane `etcd`, which has one"]
async fn members_are_believed_and_believe_by_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let (server, client) = (ours.signs(), ours.signs());
    let path = |name: &str, pem: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let authority = path("authority.pem", &ours.certificate);
    let etcd = Etcd::start_secured(&path("server.pem", &server.0), &path("server.key", &server.1), &authority);
    let secured = |authority: &[u8], identity: Option<(Vec<u8>, Vec<u8>)>| {
        let config = Config { authority: Some(authority.to_vec()), identity, ..config(&[&etcd.url()]) };
        Registry::new(&config).unwrap()
    };
    let registry = secured(&ours.certificate, Some(client.clone()));
    let strangers = [secured(&Authority::new().certificate, Some(client)), secured(&ours.certificate, None)];
    let kept: Vec<Kept> = strangers.iter().map(|stranger| Kept::at(stranger, 9)).collect();
    let deaf: Vec<Caller> = strangers.iter().map(Caller::of).collect();
    let one = Kept::at(&registry, 1);
    let mut caller = Caller::of(&registry);
    caller.hears(&[1]).await;
    let two = Kept::at(&registry, 2);
    caller.hears(&[1, 2]).await;
    one.leave().await;
    caller.hears(&[2]).await;
    assert!(deaf.iter().all(|caller| caller.knows().is_empty()));
    two.leave().await;
    kept.into_iter().for_each(Kept::die);
}

/// Who vouches.
struct Authority {
    certificate: Vec<u8>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem().into_bytes();
        Authority { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate of this machine's own address, and its key.
    fn signs(&self) -> (Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}
