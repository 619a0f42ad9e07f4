//! What the generated sets of events promise: every released schema is read, personal texts are shown, strangers refused.

use ::contract::{DecodeEventError, EventSet};

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
