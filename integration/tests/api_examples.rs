//! The examples of `docs/api`: every request is sent as it stands, every answer compared with the page.
//!
//! The form of the pages is told in `docs/api/README.md`, whose links also say in which order they are
//! read. They are one story, told to one new server: what an answer shows under a name, a later request
//! may use. A binding of the contracts that no page shows fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyDataStream, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use integration::ledger::Provider;
use integration::server::OPERATOR;
use integration::signed::{WEBHOOK_SECRET, now, webhook};
use integration::{Setup, Stoa, command_line, grpc};
use prost_reflect::{DynamicMessage, Value as Field};
use serde_json::Value;
use tokio::net::TcpStream;

/// How long the server may take until a read shows what was written: other services follow events.
const CATCHING_UP: Duration = Duration::from_secs(15);

/// One example waits until a provider that never answers is given up: a second instead of eight. In another an operator
/// settles what became of a payment; however slow the machine is, nobody finds it out before him.
const PROVIDER_PATIENCE: [&str; 4] = ["--psp-timeout", "1s", "--psp-late-window", "2m"];

#[tokio::test]
async fn every_binding_has_an_example_and_every_example_is_true() -> Result<()> {
    let examples = examples()?;
    let provider = Provider::start().await?;
    let stoa = Stoa::start(Setup::default().provider(&provider.url()).flags(PROVIDER_PATIENCE)).await?;
    let missing = without_example(&stoa, &examples).await?;
    ensure!(missing.is_empty(), "no example for:\n{}", missing.join("\n"));
    let mut known = Known::from([("operator-password".to_owned(), OPERATOR.1.to_owned())]);
    for example in &examples {
        example.play(&stoa, &mut known).await.with_context(|| example.place.clone())?;
    }
    println!("{} examples", examples.len());
    Ok(())
}

/// One request and what must come back.
struct Example {
    /// Page and line, for whoever must mend it.
    place: String,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
    /// One answer, or the first messages of a stream.
    answers: Vec<Value>,
    stream: bool,
}

/// What was seen under a name.
type Known = BTreeMap<String, String>;

/// All pages in the order of the README's links.
fn examples() -> Result<Vec<Example>> {
    let folder = command_line::repository().join("docs/api");
    let readme = fs::read_to_string(folder.join("README.md"))?;
    let mut examples = Vec::new();
    for page in readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
        let page = page.0;
        if !page.contains('/') && page.ends_with(".md") {
            let text = fs::read_to_string(folder.join(page)).with_context(|| page.to_owned())?;
            read_page(page, &text, &mut examples)?;
        }
    }
    ensure!(!examples.is_empty(), "the README of docs/api links to no page");
    Ok(examples)
}

/// The examples of a page: a block fenced as `http`, then one fenced as `json` or `ndjson`.
fn read_page(page: &str, text: &str, examples: &mut Vec<Example>) -> Result<()> {
    let mut request: Option<(usize, String)> = None;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut block = String::new();
        for (_, line) in lines.by_ref() {
            if line == "```" {
                break;
            }
            block.push_str(line);
            block.push('\n');
        }
        let at = format!("{page}:{}", index + 1);
        match (info.split(' ').next().unwrap_or_default(), request.take()) {
            ("http", None) => request = Some((index + 1, block)),
            (kind @ ("json" | "ndjson"), Some((line, asked))) => {
                let status = info.split(' ').nth(1).map_or(Ok(200), str::parse).with_context(|| at.clone())?;
                let stream = kind == "ndjson";
                let answers = if stream {
                    block.lines().map(serde_json::from_str).collect::<Result<_, _>>()
                } else {
                    serde_json::from_str(&block).map(|answer| vec![answer])
                };
                let answers = answers.with_context(|| format!("{at}: no JSON"))?;
                examples.push(read_request(format!("{page}:{line}"), &asked, status, answers, stream)?);
            }
            (_, None) => {}
            (_, Some((line, _))) => bail!("{page}:{line}: the request has no answer"),
        }
    }
    ensure!(request.is_none(), "{page}: the last request has no answer");
    Ok(())
}

fn read_request(place: String, text: &str, status: u16, answers: Vec<Value>, stream: bool) -> Result<Example> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).with_context(|| place.clone())?;
    let headers = lines
        .map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect::<Option<Vec<_>>>()
        .with_context(|| format!("{place}: a header without a value"))?;
    Ok(Example {
        method: method.parse()?,
        path: path.to_owned(),
        headers,
        body: body.trim_end().to_owned(),
        status,
        answers,
        stream,
        place,
    })
}

impl Example {
    /// Sends the request and compares the answer. A read is repeated for a while, because much is read from rows that
    /// follow events; what has effects is sent once.
    async fn play(&self, stoa: &Stoa, known: &mut Known) -> Result<()> {
        let path = fill(&self.path, known)?;
        let body = fill(&self.body, known)?;
        let deadline = Instant::now() + CATCHING_UP;
        loop {
            let mut seen = known.clone();
            let outcome = match self.ask(stoa, &path, &body, known).await {
                Ok(answer) => self.compare(&answer, &mut seen),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {
                    *known = seen;
                    return Ok(());
                }
                Err(error) if self.method != Method::GET || Instant::now() > deadline => {
                    return Err(error.context(format!("{} {path}\n{body}", self.method)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The answer; of a stream, as many messages as the page shows.
    async fn ask(&self, stoa: &Stoa, path: &str, body: &str, known: &mut Known) -> Result<(u16, String)> {
        let stream = TcpStream::connect(stoa.address()).await?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(driver);
        let mut request = Request::builder().method(&self.method).uri(path).header("host", stoa.address().to_string());
        for (name, value) in &self.headers {
            let signature = value == "<signature>";
            let value = if signature { webhook(WEBHOOK_SECRET, now()?, body)? } else { fill(value, known)? };
            request = request.header(name, value);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body.to_owned())))?).await?;
        let status = answer.status().as_u16();
        let mut text = Vec::new();
        let mut frames = BodyDataStream::new(answer.into_body());
        let wanted = if self.stream { self.answers.len() } else { usize::MAX };
        let reading = async {
            while let Some(frame) = frames.next().await {
                text.extend_from_slice(&frame?);
                if text.iter().filter(|byte| **byte == b'\n').count() >= wanted {
                    break;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.context("the answer does not end")??;
        driver.abort();
        Ok((status, String::from_utf8(text)?))
    }

    fn compare(&self, (status, text): &(u16, String), seen: &mut Known) -> Result<()> {
        ensure!(*status == self.status, "{status} instead of {}: {text}", self.status);
        let answers: Vec<Value> = if self.stream {
            text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?
        } else {
            vec![serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))?]
        };
        ensure!(answers.len() >= self.answers.len(), "the stream ended early: {text}");
        for (expected, actual) in self.answers.iter().zip(&answers) {
            agree(expected, actual, "", seen).with_context(|| format!("the answer was\n{actual:#}"))?;
        }
        Ok(())
    }
}

/// A piece of a text of the pages.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Literal(&'a str),
    Hole(Kind, &'a str),
}

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Uuid,
    Time,
    Token,
    Number,
    Text,
    Any,
}

impl Kind {
    const ALL: [(&str, Kind); 6] = [
        ("uuid", Kind::Uuid),
        ("time", Kind::Time),
        ("token", Kind::Token),
        ("number", Kind::Number),
        ("text", Kind::Text),
        ("any", Kind::Any),
    ];

    /// How much of the beginning of a text it may stand for.
    fn reach(self, text: &str) -> usize {
        let allowed = |c: char| match self {
            Kind::Uuid => c.is_ascii_hexdigit() || c == '-',
            Kind::Time => c.is_ascii_digit() || "TZ:.-".contains(c),
            Kind::Token => c.is_ascii_alphanumeric() || "._~=+-".contains(c),
            Kind::Number => c.is_ascii_digit() || c == '-',
            Kind::Text | Kind::Any => true,
        };
        match self {
            Kind::Uuid => text.find(|c| !allowed(c)).unwrap_or(text.len()).min(36),
            Kind::Time | Kind::Token | Kind::Number | Kind::Text | Kind::Any => {
                text.find(|c| !allowed(c)).unwrap_or(text.len())
            }
        }
    }

    fn fits(self, text: &str) -> bool {
        match self {
            Kind::Uuid => uuid::Uuid::parse_str(text).is_ok() && text.len() == 36,
            Kind::Time => text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T',
            Kind::Token | Kind::Text => !text.is_empty(),
            Kind::Number => text.parse::<i64>().is_ok(),
            Kind::Any => true,
        }
    }
}

/// Cuts a text at its placeholders, `<kind>` or `<kind:name>`.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let (before, behind) = rest.split_at(start);
        let hole = behind[1..].split_once('>').and_then(|(inside, after)| {
            let (kind, name) = inside.split_once(':').unwrap_or((inside, ""));
            let (_, kind) = Kind::ALL.into_iter().find(|(word, _)| *word == kind)?;
            Some((kind, name, after))
        });
        let Some((kind, name, after)) = hole else {
            found.push(Piece::Literal(&rest[..=start]));
            rest = &behind[1..];
            continue;
        };
        if !before.is_empty() {
            found.push(Piece::Literal(before));
        }
        found.push(Piece::Hole(kind, name));
        rest = after;
    }
    if !rest.is_empty() {
        found.push(Piece::Literal(rest));
    }
    found
}

/// A text of a request: what has a name is what was seen under it, a UUID nobody saw yet is made.
fn fill(text: &str, known: &mut Known) -> Result<String> {
    let mut filled = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => filled.push_str(literal),
            Piece::Hole(Kind::Uuid, name) if !known.contains_key(name) => {
                let fresh = uuid::Uuid::new_v4().to_string();
                filled.push_str(&fresh);
                if !name.is_empty() {
                    known.insert(name.to_owned(), fresh);
                }
            }
            Piece::Hole(_, name) => {
                filled.push_str(known.get(name).with_context(|| format!("nothing was seen under the name {name:?}"))?);
            }
        }
    }
    Ok(filled)
}

/// Whether an answer is what the page shows; what stands there under a name is kept.
fn agree(expected: &Value, actual: &Value, path: &str, seen: &mut Known) -> Result<()> {
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(got)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
            let (mut wants, gets) = (names(wanted), names(got));
            let open = wants.remove("...");
            let missing: Vec<_> = wants.difference(&gets).collect();
            let besides: Vec<_> = gets.difference(&wants).filter(|_| !open).collect();
            ensure!(missing.is_empty() && besides.is_empty(), "{path}: missing {missing:?}, not shown {besides:?}");
            for name in wants {
                agree(&wanted[&name], &got[&name], &format!("{path}.{name}"), seen)?;
            }
            Ok(())
        }
        (Value::Array(wanted), Value::Array(got)) => {
            let open = wanted.last().is_some_and(|last| last == "...");
            let shown = if open { &wanted[..wanted.len() - 1] } else { wanted };
            ensure!(
                got.len() == shown.len() || open && got.len() > shown.len(),
                "{path}: {} elements instead of {}",
                got.len(),
                shown.len()
            );
            for (index, (wanted, got)) in shown.iter().zip(got).enumerate() {
                agree(wanted, got, &format!("{path}[{index}]"), seen)?;
            }
            Ok(())
        }
        (Value::String(wanted), got) => match (pieces(wanted).as_slice(), got) {
            ([Piece::Hole(Kind::Any, "")], _) => Ok(()),
            ([Piece::Hole(Kind::Number, "")], Value::Number(_)) => Ok(()),
            (pieces, Value::String(got)) => {
                fits(pieces, got, seen).with_context(|| format!("{path}: {got:?} is not {wanted:?}"))
            }
            _ => bail!("{path}: {got} is not {wanted:?}"),
        },
        _ => {
            ensure!(expected == actual, "{path}: {actual} is not {expected}");
            Ok(())
        }
    }
}

fn fits(pieces: &[Piece<'_>], text: &str, seen: &mut Known) -> Result<()> {
    let mut rest = text;
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(literal) => rest = rest.strip_prefix(literal).context("differs")?,
            Piece::Hole(kind, name) => {
                let taken = match (seen.get(*name), pieces.get(index + 1)) {
                    (Some(known), _) => rest.starts_with(known.as_str()).then_some(known.len()),
                    (None, Some(Piece::Literal(next))) => rest.find(next),
                    (None, _) => Some(kind.reach(rest)),
                };
                let (found, behind) = rest.split_at(taken.with_context(|| format!("another {name}"))?);
                ensure!(kind.fits(found), "{found:?} is no {kind:?}");
                if !name.is_empty() {
                    seen.insert((*name).to_owned(), found.to_owned());
                }
                rest = behind;
            }
        }
    }
    ensure!(rest.is_empty(), "{rest:?} is too much");
    Ok(())
}

/// The bindings, as the server tells them by reflection, that no example uses.
async fn without_example(stoa: &Stoa, examples: &[Example]) -> Result<Vec<String>> {
    let client = grpc::Client::connect(stoa.address()).await?;
    let http = client.pool().get_extension_by_name("google.api.http").context("the server tells no bindings")?;
    let mut missing = Vec::new();
    for service in client.pool().services() {
        for method in service.methods() {
            let options = method.options();
            if !options.has_extension(&http) {
                continue;
            }
            let Field::Message(rule) = &*options.get_extension(&http) else { continue };
            for (verb, template) in bindings(rule) {
                let shown = examples.iter().any(|it| it.method.as_str() == verb && is_of(&template, &it.path));
                if !shown {
                    missing.push(format!("{}: {verb} {template}", method.full_name()));
                }
            }
        }
    }
    Ok(missing)
}

/// Verb and template of a rule and of those besides it.
fn bindings(rule: &DynamicMessage) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for verb in ["get", "put", "post", "delete", "patch"] {
        if let Some(Field::String(template)) = rule.get_field_by_name(verb).as_deref()
            && !template.is_empty()
        {
            found.push((verb.to_uppercase(), template.clone()));
        }
    }
    if let Some(Field::List(besides)) = rule.get_field_by_name("additional_bindings").as_deref() {
        found.extend(besides.iter().filter_map(Field::as_message).flat_map(bindings));
    }
    found
}

/// Whether a path is of a template: `/v1/{name=orders/*}:cancel` has that of `/v1/orders/<uuid:order>:cancel`.
fn is_of(template: &str, path: &str) -> bool {
    let mut plain = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        let (variable, after) = behind.split_once('}').unwrap_or((behind, ""));
        plain.push_str(before);
        plain.push_str(variable.split_once('=').map_or("*", |(_, pattern)| pattern));
        rest = after;
    }
    plain.push_str(rest);
    let path = path.split('?').next().unwrap_or_default();
    let verb = |text: &str| {
        let last = text.rsplit('/').next().unwrap_or_default();
        let outside = last.rsplit('>').next().unwrap_or_default();
        outside.rsplit_once(':').map(|(_, verb)| verb.to_owned())
    };
    let (wanted, got) = (verb(&plain), verb(path));
    let without = |text: &str, verb: &Option<String>| match verb {
        Some(verb) => text.strip_suffix(&format!(":{verb}")).unwrap_or(text).to_owned(),
        None => text.to_owned(),
    };
    let (plain, path) = (without(&plain, &wanted), without(path, &got));
    let (wants, gets): (Vec<&str>, Vec<&str>) = (plain.split('/').collect(), path.split('/').collect());
    wanted == got && wants.len() == gets.len() && wants.iter().zip(&gets).all(|(want, got)| *want == "*" || want == got)
}

#[test]
fn a_path_is_told_from_its_neighbours() {
    assert!(is_of("/v1/{name=orders/*}:cancel", "/v1/orders/<uuid:order>:cancel"));
    assert!(is_of("/v1/{name=orders/*}", "/v1/orders/<uuid:order>?version=1"));
    assert!(!is_of("/v1/{name=orders/*}", "/v1/orders/<uuid:order>:cancel"));
    assert!(is_of("/v1/webhooks/{provider}", "/v1/webhooks/sandbox"));
    assert!(!is_of("/v1/products", "/v1/products:search?query=mug"));
}

#[test]
fn a_name_stands_for_the_same_text_everywhere() {
    let mut seen = Known::new();
    let page = serde_json::json!({ "name": "orders/<uuid:order>", "events": [{ "n": "<number>" }, "..."] });
    let order = "0199c2a8-5d2c-7f43-8f5e-0123456789ab";
    let answer = |id: &str| serde_json::json!({ "name": format!("orders/{id}"), "events": [{ "n": 1 }, { "n": 2 }] });
    agree(&page, &answer(order), "", &mut seen).unwrap();
    assert_eq!(fill("/v1/orders/<uuid:order>:cancel", &mut seen).unwrap(), format!("/v1/orders/{order}:cancel"));
    agree(&page, &answer("0199c2a8-5d2c-7f43-8f5e-0123456789ac"), "", &mut seen).unwrap_err();
}

#[test]
fn a_field_that_the_page_does_not_show_is_told() {
    let page = serde_json::json!({ "a": "<any>" });
    let error = agree(&page, &serde_json::json!({ "a": {}, "b": 1 }), "", &mut Known::new()).unwrap_err();
    assert!(error.to_string().contains("\"b\""), "{error}");
}
