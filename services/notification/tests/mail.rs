//! Mail from events and from operators, through the bus, tonic, a real store and a folder or a mail server.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use auth::{Principal, Subject};
use client::{Channel, Outgoing};
use contract::Role;
use contracts::identity::v1 as identity;
use contracts::notification::v1 as proto;
use contracts::notification::v1::notification_service_client::NotificationServiceClient;
use contracts::ordering::v1 as ordering;
use jiff::Timestamp;
use log::{Log, Meta};
use notification::{Config, Transport};
use server::{Context, status};
use store::{Clock, Store, Tx, site};
use tempfile::TempDir;
use tonic::{Code, Request, Status};

struct House {
    folder: TempDir,
    context: Context,
    client: NotificationServiceClient<Channel>,
    identity: Log<identity::Event>,
    ordering: Log<ordering::Event>,
}

async fn producer<E: contract::EventSet>(context: &Context, name: &'static str) -> Log<E> {
    let config = store::Config::temporary(name).migrations([log::MIGRATIONS]).clock(context.clock.clone());
    let log = Log::new(Store::open(config).await.unwrap(), vec![]);
    context.hub.publish(name, bus::source(log.clone()));
    log
}

async fn house(config: Config) -> House {
    let folder = TempDir::new().unwrap();
    let mut context = Context::temporary(contracts::METHODS);
    context.data = folder.path().to_owned();
    context.clock = Clock::manual(Timestamp::from_second(1_800_000_000).unwrap());
    let (identity, ordering) = (producer(&context, "identity").await, producer(&context, "ordering").await);
    let component = notification::build(config, &context).await.unwrap();
    let (_, tasks) = context.mount(component);
    let running = context.clone();
    tokio::spawn(async move { server::supervise(tasks, &running).await });
    let client = NotificationServiceClient::new(context.clients.as_caller("gateway").channel("notification"));
    House { folder, context, client, identity, ordering }
}

fn config() -> Config {
    Config { gather: Duration::ZERO, retry_first: Duration::from_millis(1), max_attempts: 3, ..Config::default() }
}

async fn append<E: contract::EventSet>(log: &Log<E>, stream: &str, subject: &str, event: impl Into<E>) {
    let (writer, stream, subject, event) = (log.clone(), stream.to_owned(), subject.to_owned(), event.into());
    let appended = log.store().write(site!("test.append"), async move |tx: &mut Tx| {
        let meta = Meta { traceparent: format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16)), ..Meta::default() };
        writer.append_next(tx, &stream, &meta, Some(&subject), vec![event.clone()]).await
    });
    appended.await.unwrap();
}

impl House {
    async fn user(&self, user: &str, email: &str) {
        let created = identity::UserCreated {
            user: user.to_owned(),
            email: email.to_owned(),
            display_name: "Ada".to_owned(),
            role: identity::Role::Customer.into(),
            ..Default::default()
        };
        append(&self.identity, user, user, created).await;
    }

    async fn place(&self, order: &str, customer: &str, contact_email: &str) {
        let placed = ordering::OrderPlaced {
            order: order.to_owned(),
            customer: customer.to_owned(),
            contact_email: contact_email.to_owned(),
            ..Default::default()
        };
        append(&self.ordering, order, customer, placed).await;
    }

    async fn confirm(&self, order: &str, customer: &str) {
        append(&self.ordering, order, customer, ordering::OrderConfirmed { order: order.to_owned() }).await;
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    /// Everything listed, once the condition holds.
    async fn listed(
        &self,
        filter: &str,
        condition: impl Fn(&[proto::Notification]) -> bool,
    ) -> Vec<proto::Notification> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let listed = self.list(filter, 0, "").await.unwrap().notifications;
            if condition(&listed) {
                return listed;
            }
            assert!(tokio::time::Instant::now() < deadline, "it never came about: {listed:?}");
            // Retries are due by the clock of the test.
            self.context.clock.advance(Duration::from_millis(10));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn list(
        &self,
        filter: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<proto::ListNotificationsResponse, Status> {
        let request =
            proto::ListNotificationsRequest { page_size, page_token: page_token.to_owned(), filter: filter.to_owned() };
        self.client.clone().list_notifications(by(request, Role::Operator)).await.map(tonic::Response::into_inner)
    }

    async fn send(&self, request: proto::SendNotificationRequest) -> Result<proto::Notification, Status> {
        let reply = self.client.clone().send_notification(by(request, Role::Operator)).await?;
        Ok(reply.into_inner().notification.unwrap())
    }
}

fn by<T>(message: T, role: Role) -> Request<T> {
    let subject = Subject { id: "users/0".to_owned(), role, session: String::new() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }.request(message)
}

fn all_in(state: proto::NotificationState, count: usize) -> impl Fn(&[proto::Notification]) -> bool {
    move |listed| listed.len() == count && listed.iter().all(|one| one.state() == state)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn note(key: &str, recipient: &str) -> proto::SendNotificationRequest {
    let variables = [("subject", "About your order"), ("text", "All is well.\nReally.")];
    proto::SendNotificationRequest {
        dedupe_key: key.to_owned(),
        recipient: recipient.to_owned(),
        template: proto::Template::Note.into(),
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    }
}

#[tokio::test]
async fn each_event_makes_one_mail() {
    let house = house(config()).await;
    house.user("users/1", "ada@example.com").await;
    house.listed("", all_in(proto::NotificationState::Sent, 1)).await;
    let order = || "orders/1".to_owned();
    house.place("orders/1", "users/1", "").await;
    house.confirm("orders/1", "users/1").await;
    let shipped = ordering::LinesShipped {
        order: order(),
        carrier: "Hermes".to_owned(),
        tracking_number: "H-1".to_owned(),
        ..Default::default()
    };
    append(&house.ordering, "orders/1", "users/1", shipped).await;
    append(&house.ordering, "orders/1", "users/1", ordering::OrderCancelled { order: order(), ..Default::default() })
        .await;
    let rejected = ordering::OrderRejected {
        order: "orders/2".to_owned(),
        reason: ordering::RejectReason::OutOfStock.into(),
        ..Default::default()
    };
    house.place("orders/2", "users/1", "other@example.com").await;
    append(&house.ordering, "orders/2", "users/1", rejected).await;

    let sent = house.listed("", all_in(proto::NotificationState::Sent, 5)).await;
    let about: Vec<_> = sent.iter().map(|one| (one.template(), one.recipient.as_str())).collect();
    for expected in [
        (proto::Template::Welcome, "ada@example.com"),
        (proto::Template::OrderConfirmed, "ada@example.com"),
        (proto::Template::OrderShipped, "ada@example.com"),
        (proto::Template::OrderCancelled, "ada@example.com"),
        (proto::Template::OrderRejected, "other@example.com"),
    ] {
        assert_eq!(about.iter().filter(|one| **one == expected).count(), 1, "{expected:?}");
    }
    let one = house.listed("order=\"orders/2\" AND state=NOTIFICATION_STATE_SENT", |listed| listed.len() == 1).await;
    assert_eq!((one[0].order.as_str(), one[0].customer.as_str()), ("orders/2", "users/1"));
    assert_eq!(one[0].trace_id, "a".repeat(32));
    assert_eq!(files(&house.folder()).len(), 5);
}

#[tokio::test]
async fn a_mail_in_the_folder_is_a_whole_message() {
    let house = house(config()).await;
    house.place("orders/1", "guests/1", "ada@example.com").await;
    house.confirm("orders/1", "guests/1").await;
    let sent = house.listed("", all_in(proto::NotificationState::Sent, 1)).await;
    let files = files(&house.folder());
    let [mail] = files.as_slice() else { panic!("one file is expected") };
    for line in [
        "From: Stoa <shop@stoa.local>",
        "To: ada@example.com",
        "Subject: Your order 1 is confirmed",
        "Date: Fri, 15 Jan 2027 08:00:00 +0000",
        &format!("Message-ID: {}", sent[0].message_id),
    ] {
        assert!(mail.lines().any(|found| found == line), "{line} is not in {mail}");
    }
    assert!(mail.contains("\r\n\r\nHello,"));
    assert!(sent[0].message_id.ends_with("@stoa.local>"));
}

#[tokio::test]
async fn without_an_address_nothing_is_sent_and_it_is_said_why() {
    let house = house(config()).await;
    house.place("orders/1", "users/9", "").await;
    house.confirm("orders/1", "users/9").await;
    let listed = house.listed("", all_in(proto::NotificationState::Suppressed, 1)).await;
    assert_eq!(listed[0].last_error, "NO_ADDRESS");
    assert_eq!(files(&house.folder()), Vec::<String>::new());
}

#[tokio::test]
async fn with_mail_off_history_makes_no_messages() {
    let house = house(Config { transport: Transport::Off, ..config() }).await;
    house.place("orders/1", "guests/1", "ada@example.com").await;
    house.confirm("orders/1", "guests/1").await;
    let asked = house.send(note("a", "ada@example.com")).await.unwrap();
    assert_eq!((asked.state(), asked.last_error.as_str()), (proto::NotificationState::Suppressed, "MAIL_OFF"));
    let source = house.context.hub.source("notification").unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let recorded = source.read_stream("recipients/orders/1", 1, 10).await.unwrap();
        if recorded.len() == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(house.list("", 0, "").await.unwrap().notifications.len(), 1);
    assert!(!house.folder().exists());
}

#[tokio::test]
async fn an_operator_sends_a_note_once_per_dedupe_key() {
    let house = house(config()).await;
    let first = house.send(note("welcome-pack", "ada@example.com")).await.unwrap();
    let again = house.send(note("welcome-pack", "eve@example.com")).await.unwrap();
    assert_eq!((again.name.as_str(), again.recipient.as_str()), (first.name.as_str(), "ada@example.com"));
    let sent = house.listed("", all_in(proto::NotificationState::Sent, 1)).await;
    assert_eq!((sent[0].subject_line.as_str(), sent[0].attempt_count), ("About your order", 1));
    assert!(files(&house.folder())[0].contains("All is well."));

    let checked =
        house.send(proto::SendNotificationRequest { validate_only: true, ..note("b", "b@example.com") }).await;
    assert_eq!(checked.unwrap().recipient, "b@example.com");
    assert_eq!(house.list("", 0, "").await.unwrap().notifications.len(), 1);

    let empty = proto::SendNotificationRequest { variables: Default::default(), ..note("c", "c@example.com") };
    assert_eq!(house.send(empty).await.unwrap_err().code(), Code::InvalidArgument);
    let asked = note("d", "d@example.com");
    house.send(asked.clone()).await.unwrap();
    let other = proto::SendNotificationRequest { dedupe_key: "e".to_owned(), ..asked };
    assert_eq!(status::reason(&house.send(other).await.unwrap_err()).unwrap(), "REQUEST_ID_REUSED");
    let denied = house.client.clone().send_notification(by(note("f", "f@example.com"), Role::Customer)).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_mail_that_does_not_leave_is_tried_again() {
    let house = house(config()).await;
    std::fs::remove_dir(house.folder()).unwrap();
    house.send(note("a", "ada@example.com")).await.unwrap();
    let failed = house.listed("", |listed| listed[0].attempt_count > 0).await;
    assert!(failed[0].attempt_count < 3);
    std::fs::create_dir(house.folder()).unwrap();
    house.listed("", all_in(proto::NotificationState::Sent, 1)).await;
    assert_eq!(files(&house.folder()).len(), 1);
}

#[tokio::test]
async fn a_mail_that_never_leaves_is_given_up() {
    let house = house(config()).await;
    std::fs::remove_dir(house.folder()).unwrap();
    house.send(note("a", "ada@example.com")).await.unwrap();
    let failed = house.listed("", all_in(proto::NotificationState::Failed, 1)).await;
    assert_eq!(failed[0].attempt_count, 3);
    assert!(!failed[0].last_error.is_empty());
}

#[tokio::test]
async fn an_erased_person_is_unreadable_and_gets_no_more_mail() {
    let house = house(config()).await;
    house.user("users/1", "ada@example.com").await;
    house.listed("", all_in(proto::NotificationState::Sent, 1)).await;
    let erased = identity::UserErased { user: "users/1".to_owned(), actor: "users/1".to_owned() };
    append(&house.identity, "users/1", "users/1", erased).await;
    let blank = |listed: &[proto::Notification]| listed.iter().all(|one| one.recipient.is_empty());
    let listed = house.listed("customer=users/1", blank).await;
    assert_eq!(listed[0].subject_line, "");
    house.place("orders/1", "users/1", "ada@example.com").await;
    house.confirm("orders/1", "users/1").await;
    let listed = house.listed("order=orders/1", |listed| listed.len() == 1).await;
    assert_eq!((listed[0].state(), listed[0].last_error.as_str()), (proto::NotificationState::Suppressed, "ERASED"));
}

#[tokio::test]
async fn messages_are_listed_newest_first_page_by_page() {
    let house = house(config()).await;
    let mut expected = vec![];
    for key in 0..5 {
        house.context.clock.advance(Duration::from_secs(1));
        let asked = house.send(note(&key.to_string(), "ada@example.com")).await.unwrap();
        expected.insert(0, asked.name);
    }
    let (mut found, mut page_token) = (vec![], String::new());
    loop {
        let page = house.list("", 2, &page_token).await.unwrap();
        found.extend(page.notifications.into_iter().map(|one| one.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let foreign = house.list("state=NOTIFICATION_STATE_SENT", 2, &page_token).await.unwrap_err();
        assert_eq!(foreign.code(), Code::InvalidArgument);
    }
    assert_eq!(found, expected);
    for bad in ["price=1", "state=NONSENSE", "order=' OR 1=1"] {
        assert_eq!(house.list(bad, 0, "").await.unwrap_err().code(), Code::InvalidArgument, "{bad}");
    }
}

/// A mail server that takes every mail, and refuses recipients that begin with `nobody`.
async fn mail_server() -> (String, tokio::sync::mpsc::Receiver<String>) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let (mails, received) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mails = mails.clone();
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                write.write_all(b"220 mail.example.com\r\n").await.unwrap();
                while let Ok(Some(line)) = lines.next_line().await {
                    let answer = match line.get(..4).unwrap_or_default() {
                        "RCPT" if line.contains("<nobody") => format!("550 5.1.1 {line} is unknown"),
                        "DATA" => {
                            write.write_all(b"354 go on\r\n").await.unwrap();
                            let mut mail = String::new();
                            while let Some(line) = lines.next_line().await.unwrap().filter(|line| line != ".") {
                                mail.push_str(&line);
                                mail.push('\n');
                            }
                            mails.send(mail).await.unwrap();
                            "250 taken".to_owned()
                        }
                        "QUIT" => return,
                        _ => "250 fine".to_owned(),
                    };
                    write.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
                }
            });
        }
    });
    (url, received)
}

#[tokio::test]
async fn mail_goes_to_a_mail_server_and_what_it_refuses_for_good_is_given_up_at_once() {
    let (url, mut received) = mail_server().await;
    let house = house(Config { transport: Transport::Smtp { url }, ..config() }).await;
    let sent = house.send(note("a", "ada@example.com")).await.unwrap();
    let mail = received.recv().await.unwrap();
    assert!(mail.contains(&format!("Message-ID: {}", sent.message_id)));
    house.listed("", all_in(proto::NotificationState::Sent, 1)).await;
    house.send(note("b", "nobody@example.com")).await.unwrap();
    let failed = house.listed("state=NOTIFICATION_STATE_FAILED", |listed| listed.len() == 1).await;
    assert_eq!(failed[0].attempt_count, 1);
    // Errors are stored in the clear, so they must not hold the address.
    assert!(failed[0].last_error.contains("the recipient"), "{}", failed[0].last_error);
    assert!(!failed[0].last_error.contains("nobody@"));
}

#[tokio::test]
async fn many_mails_cost_few_commits() {
    const MAILS: usize = 600;
    let house = house(Config { gather: Duration::from_millis(20), ..config() }).await;
    let writer = house.ordering.clone();
    let placed = house.ordering.store().write(site!("test.history"), async move |tx: &mut Tx| {
        for number in 0..MAILS {
            let order = format!("orders/{number}");
            let placed = ordering::OrderPlaced {
                order: order.clone(),
                customer: "guests/1".to_owned(),
                contact_email: "ada@example.com".to_owned(),
                ..Default::default()
            };
            let confirmed = ordering::OrderConfirmed { order: order.clone() };
            let events = vec![placed.into(), confirmed.into()];
            writer.append(tx, &order, 0, &Meta::default(), Some("guests/1"), events).await?;
        }
        Ok::<_, log::Error>(())
    });
    placed.await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut commits = house.context.hub.source("notification").unwrap().changed();
    let mut count = 0;
    while house.list("state=NOTIFICATION_STATE_SENT", 1000, "").await.unwrap().notifications.len() < MAILS {
        assert!(begun.elapsed() < Duration::from_secs(60));
        let _ = tokio::time::timeout(Duration::from_secs(1), commits.changed()).await;
        count += 1;
    }
    assert_eq!(files(&house.folder()).len(), MAILS);
    assert!(count < MAILS / 10, "{count} commits were seen");
}
