//! What the generated sets of events promise: every released schema is read, what was ever stored is still
//! read as it was meant, personal texts are shown, strangers refused.

use std::path::Path;

use ::contract::{DecodeEventError, EventSet};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::{cart, catalog, identity, inventory, notification, ordering, orderview, payment, shipping};

fn read_every_schema<E: EventSet>(events: &[(&'static str, u32)]) {
    assert!(!events.is_empty());
    for (name, newest) in events {
        for schema in 1..=*newest {
            let event = E::decode(name, schema, &[]).unwrap();
            assert_eq!((event.name(), event.schema(), event.encode().len()), (*name, *newest, 0));
        }
        let unknown = DecodeEventError::UnknownSchema { name, schema: newest + 1, newest: *newest };
        assert_eq!(E::decode(name, newest + 1, &[]).err(), Some(unknown));
        assert!(matches!(E::decode(name, 1, &[0xff]).err(), Some(DecodeEventError::Malformed { .. })));
    }
    let stranger = DecodeEventError::UnknownName { service: E::SERVICE, name: "stoa.nobody.v1.Happened".to_owned() };
    assert_eq!(E::decode("stoa.nobody.v1.Happened", 1, &[]).err(), Some(stranger));
}

#[test]
fn every_event_of_every_service_is_read_in_all_its_schemas() {
    read_every_schema::<cart::v1::Event>(cart::v1::EVENTS);
    read_every_schema::<catalog::v1::Event>(catalog::v1::EVENTS);
    read_every_schema::<identity::v1::Event>(identity::v1::EVENTS);
    read_every_schema::<inventory::v1::Event>(inventory::v1::EVENTS);
    read_every_schema::<notification::v1::Event>(notification::v1::EVENTS);
    read_every_schema::<ordering::v1::Event>(ordering::v1::EVENTS);
    read_every_schema::<orderview::v1::Event>(orderview::v1::EVENTS);
    read_every_schema::<payment::v1::Event>(payment::v1::EVENTS);
    read_every_schema::<shipping::v1::Event>(shipping::v1::EVENTS);
}

/// An event as it was stored by some release, see `cargo xtask golden`.
#[derive(Deserialize)]
struct Golden {
    event: String,
    schema: u32,
    wire: String,
    json: serde_json::Value,
}

/// The names of the service's events in the corpus, each read as a service reads its own log.
fn read_corpus<E: EventSet>(events: &[(&'static str, u32)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/golden");
    let mut newest: Vec<(String, u32)> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let golden: Golden = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        if !events.iter().any(|(name, _)| *name == golden.event) {
            continue;
        }
        let stored = BASE64.decode(golden.wire).unwrap();
        let event = E::decode(&golden.event, golden.schema, &stored).unwrap();
        if event.schema() == golden.schema {
            assert_eq!(event.encode(), stored, "{} is written differently today", golden.event);
            let message = crate::json::TABLE.get(&golden.event).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&(message.from_wire)(&stored).unwrap()).unwrap();
            assert_eq!(json, golden.json, "{} means something else today", golden.event);
            newest.push((golden.event, golden.schema));
        }
    }
    newest.sort();
    let mut known: Vec<(String, u32)> = events.iter().map(|(name, schema)| ((*name).to_owned(), *schema)).collect();
    known.sort();
    assert_eq!(newest, known, "what is stored today has its place in the corpus");
}

#[test]
fn what_was_ever_stored_is_read_as_it_was_meant() {
    read_corpus::<cart::v1::Event>(cart::v1::EVENTS);
    read_corpus::<catalog::v1::Event>(catalog::v1::EVENTS);
    read_corpus::<identity::v1::Event>(identity::v1::EVENTS);
    read_corpus::<inventory::v1::Event>(inventory::v1::EVENTS);
    read_corpus::<notification::v1::Event>(notification::v1::EVENTS);
    read_corpus::<ordering::v1::Event>(ordering::v1::EVENTS);
    read_corpus::<orderview::v1::Event>(orderview::v1::EVENTS);
    read_corpus::<payment::v1::Event>(payment::v1::EVENTS);
    read_corpus::<shipping::v1::Event>(shipping::v1::EVENTS);
}

#[test]
fn a_visitor_sees_the_personal_texts_and_no_others() {
    let created = identity::v1::UserCreated {
        user: "users/1".to_owned(),
        email: "ada@example.com".to_owned(),
        display_name: "Ada".to_owned(),
        ..Default::default()
    };
    let mut event = identity::v1::Event::from(created.clone());

    event.visit_personal(&mut |text| *text = text.to_uppercase());

    let expected =
        identity::v1::UserCreated { email: "ADA@EXAMPLE.COM".to_owned(), display_name: "ADA".to_owned(), ..created };
    assert_eq!(event, expected.into());
}
