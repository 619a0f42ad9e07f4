//! Canary: what is secret or about a person stands in no log, metric, trace, error or file, and erased nobody can read it again

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use integration::fleet::{Copy, GATEWAY, Plan, SERVICES};
use integration::hops::trace_of;
use integration::http::{Answer, Client};
use integration::server::SHORT_WINDOWS;
use integration::shopper::{Priced, Shopper, order_body, request_id, text};
use integration::sold_out::SKU;
use integration::{Fleet, command_line, until};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const PASSWORD: &str = "canary-password-3e91c7";
const EMAIL: &str = "canary-mail-3e91c7@example.com";
const NAME: &str = "Canarina-3e91c7 Displayed";
const RECIPIENT: &str = "Canarino-3e91c7 Received";
const STREET: &str = "3917 Canary-3e91c7 Street";
const CITY: &str = "Canaryville-3e91c7";
const REASON: &str = "canary-3e91c7 reason of mine";
const PHONE: &str = "+302105553917";
/// What somebody types who takes the field of the provider's token for one of a card.
const CARD: &str = "4012888888881881";

/// Whose files may hold what, in clear or as it is: nobody's, but the mails that were handed over, which are the mailbox.
const MAY: &[(&str, &str, &[&str])] =
    &[("notification", "mail", &["e-mail", "name", "recipient", "street", "city", "phone"])];

/// Everything that our own code can say; see `abuse_logs`.
const FILTER: &str = "trace,hyper=info,h2=info,hyper_util=info,tower=info,rustls=info,tonic=info";

/// How soon what nobody disturbs is done.
const SOON: Duration = Duration::from_secs(120);

/// What must not be found, by name.
type Canaries = BTreeMap<String, String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_or_personal_is_found_where_it_does_not_belong_and_nothing_at_all_once_it_is_erased()
-> Result<()> {
    let logs = tempfile::tempdir()?;
    let more = ["--log-filter", FILTER, "--metrics", "127.0.0.1:0"];
    let windows: Vec<&str> = SHORT_WINDOWS.into_iter().chain(more).collect();
    let plan = Plan { windows: &windows, logs: Some(logs.path()), ..Plan::default() };
    let mut fleet = Fleet::start_as(command_line::binary()?, &plan).await?;
    fleet.operator().await?.stock(SKU, 20, 10).await?;
    let mut person = Person::purchases(&fleet).await?;
    settled(&fleet, &person.order).await?;

    let mut found = vec![];
    for answer in &person.mistakes {
        search(&mut found, &format!("the answer {}", answer.status), &answer.body, &person.canaries);
    }
    for (name, document) in metrics(&fleet, logs.path()).await? {
        search(&mut found, &format!("the metrics of {name}"), document.as_bytes(), &person.canaries);
    }
    let traces = traces(&fleet, &person.traces).await?;
    ensure!(traces.len() >= SERVICES.len(), "{} traces are not many", traces.len());
    for (name, document) in traces {
        search(&mut found, &name, document.as_bytes(), &person.canaries);
    }
    files(&fleet, &mut found, &person.canaries)?;

    // Erased: the keys are overwritten in every store that had one, and what is left of them is looked for.
    let keys = keys(&fleet, &person.shopper.user)?;
    let holders: BTreeSet<&str> = keys.iter().map(|key| key.0).collect();
    for service in ["identity", "ordering", "payment", "shipping", "notification"] {
        ensure!(holders.contains(service), "{service} has no key of the person: {holders:?}");
    }
    let erase = json!({ "requestId": request_id() });
    person.shopper.http.post(&format!("/v1/{}:erase", person.shopper.user), &erase).await?.ok()?;
    until(SOON, "every key is destroyed", async || {
        Ok(self::keys(&fleet, &person.shopper.user)?.is_empty().then_some(()))
    })
    .await?;
    let mut operator = fleet.operator().await?;
    for path in [format!("/v1/{}", person.order), format!("/v1/{}", person.shopper.user)] {
        let answer = operator.http.get(&path).await?;
        ensure!(answer.status == 200, "{}", answer.describe());
        search(&mut found, &format!("{path} after the erasure"), &answer.body, &person.canaries);
    }
    fleet.audit().await?;
    // What a store has only in its memory or its journal is written down by whoever ends.
    let all: Vec<Copy> = fleet.running();
    fleet.leave_all(&all).await?;
    files(&fleet, &mut found, &person.canaries)?;
    for (service, file, key) in &keys {
        let left: Vec<PathBuf> = walk(&fleet.data((service, 0)))?;
        for path in left {
            let bytes = fs::read(&path)?;
            if bytes.windows(key.len()).any(|window| window == key) {
                found.push(format!("a key of {} that was destroyed: {}", file.display(), path.display()));
            }
        }
    }
    for entry in fs::read_dir(logs.path())? {
        let path = entry?.path();
        let written = fs::read(&path)?;
        let lines = written.iter().filter(|byte| **byte == b'\n').count();
        ensure!(lines > 20, "a log that says so little proves nothing: {}", path.display());
        search(&mut found, &format!("{}", path.display()), &written, &person.canaries);
    }
    found.sort();
    found.dedup();
    ensure!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
    Ok(())
}

/// Somebody of whom everything that they say is known.
struct Person {
    shopper: Shopper,
    order: String,
    canaries: Canaries,
    mistakes: Vec<Answer>,
    traces: BTreeSet<String>,
}

impl Person {
    /// Signs up and in, goes on, buys, and makes mistakes.
    async fn purchases(fleet: &Fleet) -> Result<Self> {
        let mut http = fleet.client();
        let (mut traces, mut mistakes) = (BTreeSet::new(), vec![]);
        let user = json!({ "email": EMAIL, "password": PASSWORD, "displayName": NAME, "requestId": request_id() });
        call(&mut http, "/v1/users", &user, &mut traces).await?.ok()?;
        let taken = json!({ "email": EMAIL, "password": PASSWORD, "displayName": NAME, "requestId": request_id() });
        mistakes.push(call(&mut http, "/v1/users", &taken, &mut traces).await?);
        let door = json!({ "email": EMAIL, "password": PASSWORD });
        let first = call(&mut http, "/v1/sessions:signIn", &door, &mut traces).await?.ok()?;
        let refresh = json!({ "refreshToken": text(&first, "refreshToken")? });
        let second = call(&mut http, "/v1/sessions:refresh", &refresh, &mut traces).await?.ok()?;
        let mut canaries = canaries(&[&first, &second])?;
        http.set_token(text(&second, "accessToken")?);
        let mut shopper = Shopper { http, user: text(&second["user"], "name")? };

        let priced = shopper.fill("EUR", SKU, 1).await?;
        canaries.insert("quote".to_owned(), priced.token.clone());
        let mut body = order_body(&priced, "tok_ok", &request_id());
        body["shippingAddress"] = address();
        let mut wrong = body.clone();
        wrong["shippingAddress"]["phone"] = json!(PHONE.repeat(5));
        wrong["requestId"] = json!(request_id());
        mistakes.push(call(&mut shopper.http, "/v1/orders", &wrong, &mut traces).await?);
        let order = call(&mut shopper.http, "/v1/orders", &body, &mut traces).await?.ok()?;
        ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");

        let priced = another_cart(&shopper).await?;
        let mut card = order_body(&priced, CARD, &request_id());
        card["shippingAddress"] = address();
        let refused = call(&mut shopper.http, "/v1/orders", &card, &mut traces).await?;
        ensure!(refused.status != 200 || refused.json()["state"] != "ORDER_STATE_CONFIRMED", "{}", refused.describe());

        let priced = another_cart(&shopper).await?;
        let mut body = order_body(&priced, "tok_ok", &request_id());
        body["shippingAddress"] = address();
        let regretted = call(&mut shopper.http, "/v1/orders", &body, &mut traces).await?.ok()?;
        let regretted = text(&regretted, "name")?;
        let cancel = json!({ "reason": REASON, "requestId": request_id() });
        call(&mut shopper.http, &format!("/v1/{regretted}:cancel"), &cancel, &mut traces).await?.ok()?;
        shopper.await_order(&regretted, &["ORDER_STATE_CANCELLED"], SOON).await?;
        for mistake in &mistakes {
            ensure!((400..500).contains(&mistake.status), "no mistake: {}", mistake.describe());
        }
        Ok(Self { shopper, order: text(&order, "name")?, canaries, mistakes, traces })
    }
}

/// The cart of an order closes a moment after it.
async fn another_cart(shopper: &Shopper) -> Result<Priced> {
    until(SOON, "another cart", async || {
        let mut shopper = Shopper { http: shopper.http.again(), user: shopper.user.clone() };
        Ok(Some(shopper.fill("EUR", SKU, 1).await?))
    })
    .await
}

fn address() -> Value {
    json!({
        "recipient": RECIPIENT, "street": STREET, "city": CITY, "postalCode": "10551", "countryCode": "GR", "phone": PHONE,
    })
}

fn canaries(sessions: &[&Value]) -> Result<Canaries> {
    let given = [
        ("password", PASSWORD),
        ("e-mail", EMAIL),
        ("name", NAME),
        ("recipient", RECIPIENT),
        ("street", STREET),
        ("city", CITY),
        ("reason", REASON),
        ("phone", PHONE.trim_start_matches('+')),
        ("card", CARD),
    ];
    let mut canaries: Canaries = given.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (number, session) in sessions.iter().enumerate() {
        for kind in ["accessToken", "refreshToken"] {
            canaries.insert(format!("{kind} {number}"), text(session, kind)?);
        }
    }
    Ok(canaries)
}

async fn call(http: &mut Client, path: &str, body: &Value, traces: &mut BTreeSet<String>) -> Result<Answer> {
    let answer = http.post(path, body).await?;
    traces.insert(trace_of(&answer.headers)?);
    Ok(answer)
}

/// The parcel, the mail and the story of the order are there.
async fn settled(fleet: &Fleet, order: &str) -> Result<()> {
    let operator = fleet.operator().await?;
    until(SOON, "a parcel, a mail and a story", async || {
        let mut looking = Shopper { http: operator.http.again(), user: String::new() };
        let parcels = looking.shipments(order).await?;
        let mails = looking.http.get(&format!("/v1/notifications?filter=order%3D%22{order}%22")).await?.ok()?;
        let sent = mails["notifications"][0]["state"] == "NOTIFICATION_STATE_SENT";
        let story = looking.http.get(&format!("/v1/{order}:explain")).await?;
        Ok((!parcels.is_empty() && sent && story.status == 200).then_some(()))
    })
    .await
}

/// What each process counts, by its name.
async fn metrics(fleet: &Fleet, logs: &Path) -> Result<Vec<(String, String)>> {
    let mut documents = vec![];
    for (name, number) in fleet.running() {
        let said = fs::read(logs.join(format!("{name}-{number}.log")))?;
        let said = String::from_utf8_lossy(&said);
        let url = said.lines().find_map(|line| line.trim().strip_prefix("metrics at http://"));
        let address = url.and_then(|url| url.split('/').next()).with_context(|| format!("{name} tells no metrics"))?;
        let answer = Client::new(address.parse()?).get("/metrics").await?;
        ensure!(answer.status == 200 && answer.body.len() > 200, "{name}: {}", answer.describe());
        documents.push((name.to_owned(), String::from_utf8_lossy(&answer.body).into_owned()));
    }
    Ok(documents)
}

/// What each process still knows of these stories.
async fn traces(fleet: &Fleet, ids: &BTreeSet<String>) -> Result<Vec<(String, String)>> {
    let mut operator = fleet.operator().await?;
    let mut documents = vec![];
    for service in SERVICES.into_iter().chain([GATEWAY]) {
        for id in ids {
            let name = format!("services/{service}/traces/{id}");
            let answer = operator.http.get(&format!("/v1/{name}")).await?;
            if answer.status == 200 {
                documents.push((name, String::from_utf8_lossy(&answer.body).into_owned()));
            } else {
                ensure!(answer.status == 404, "{name}: {}", answer.describe());
            }
        }
    }
    Ok(documents)
}

/// Looks through the data folder of every service.
fn files(fleet: &Fleet, found: &mut Vec<String>, canaries: &Canaries) -> Result<()> {
    for service in SERVICES {
        let folder = fleet.data((service, 0));
        let files = walk(&folder)?;
        ensure!(!files.is_empty(), "{service} has no files");
        for path in files {
            let within = path.strip_prefix(&folder)?;
            let allowed = MAY.iter().filter(|(owner, place, _)| *owner == service && within.starts_with(place));
            let allowed: BTreeSet<&str> = allowed.flat_map(|(_, _, names)| names.iter().copied()).collect();
            let looked_for = canaries.iter().filter(|(name, _)| !allowed.contains(name.as_str()));
            let looked_for = looked_for.map(|(name, value)| (name.clone(), value.clone())).collect();
            // A journal that was just written back is gone.
            let Ok(bytes) = fs::read(&path) else { continue };
            search(found, &format!("{service}: {}", within.display()), &bytes, &looked_for);
        }
    }
    Ok(())
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => files.extend(walk(&entry.path())?),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(files)
}

/// The keys that the stores have of a person: service, file, key.
fn keys(fleet: &Fleet, person: &str) -> Result<Vec<(&'static str, PathBuf, Vec<u8>)>> {
    let mut keys = vec![];
    for service in SERVICES {
        for path in walk(&fleet.data((service, 0)))? {
            if !fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0")) {
                continue;
            }
            let store = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            store.busy_timeout(SOON)?;
            let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'subject_keys'";
            let has: i64 = store.query_row(sql, [], |row| row.get(0))?;
            if has == 0 {
                continue;
            }
            let mut query =
                store.prepare("SELECT secret FROM subject_keys WHERE subject = ?1 AND length(secret) > 0")?;
            let secrets = query.query_map([person], |row| row.get(0))?.collect::<Result<Vec<Vec<u8>>, _>>()?;
            keys.extend(secrets.into_iter().map(|secret| (service, path.clone(), secret)));
        }
    }
    Ok(keys)
}

/// Notes each canary that stands there in one of its forms.
fn search(found: &mut Vec<String>, place: &str, bytes: &[u8], canaries: &Canaries) {
    // Every form is ASCII or has zeroes between, which this leaves as it is.
    let text = String::from_utf8_lossy(bytes);
    for (name, value) in canaries {
        for (form, written) in forms(value) {
            if let Some(at) = text.find(&written) {
                let around: String = text[..at].chars().rev().take(100).collect::<Vec<_>>().into_iter().rev().collect();
                found.push(format!("{place}: {name}, {form}, after {around:?}"));
            }
        }
    }
}

/// A value as it may be written down.
fn forms(value: &str) -> Vec<(&'static str, String)> {
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let wide = value.chars().flat_map(|letter| [letter, '\0']).collect();
    let reversed = value.chars().rev().collect();
    let percent = value.replace('@', "%40").replace('+', "%2B").replace(' ', "%20");
    let mut forms = vec![
        ("in clear", value.to_owned()),
        ("in capitals", value.to_uppercase()),
        ("in hex", hex.to_uppercase()),
        ("in hex", hex),
        ("in UTF-16", wide),
        ("backwards", reversed),
        ("escaped", percent),
    ];
    // Within other bytes base64 begins at one of three places, and the letters at both ends depend on the neighbours.
    for before in 0..3 {
        let padded = [&vec![0; before][..], value.as_bytes()].concat();
        let whole = padded.len() / 3 * 4;
        for encoded in [STANDARD.encode(&padded), URL_SAFE.encode(&padded)] {
            let first = [0, 2, 3][before];
            forms.push(("in base64", encoded[first..whole].to_owned()));
        }
    }
    forms
}

#[test]
fn a_canary_is_found_in_each_of_its_forms() {
    let canaries: Canaries = [("card".to_owned(), CARD.to_owned())].into();
    let hex: String = CARD.bytes().map(|byte| format!("{byte:02x}")).collect();
    let texts = [CARD.to_owned(), hex.to_uppercase(), hex];
    let within = ["", "a", "ab", "abc"].map(|before| STANDARD.encode(format!("{before}{CARD}!")));
    for text in texts.iter().chain(&within) {
        let mut found = vec![];
        search(&mut found, "here", format!("\u{fffd}x{text}x").as_bytes(), &canaries);
        assert!(!found.is_empty(), "{text}");
    }
    let mut found = vec![];
    search(&mut found, "here", b"4012888888881882", &canaries);
    assert!(found.is_empty(), "{found:?}");
}
