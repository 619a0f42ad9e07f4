//! What consumers keep: inbox, cursors, parking lot.

use std::time::Duration;

use store::{Site, Store, Tx};

use crate::inbox::{self, DealtWith, Seen};
use crate::parked::{self, Entry};
use crate::{Error, cursors, relays};

async fn write<T: Send + 'static>(
    store: &Store,
    body: impl AsyncFnMut(&mut Tx) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    store.write(Site::named("toy.consume"), body).await
}

pub(super) async fn the_inbox_tells_new_from_duplicate_from_gap(store: Store) {
    let seen = write(&store, async |tx| {
        let mut seen = Vec::new();
        for version in [1, 1, 2, 4, 3, 4, 2] {
            seen.push(inbox::accept(tx, "views", "toy", "accounts/a", version).await?);
        }
        seen.push(inbox::accept(tx, "mails", "toy", "accounts/a", 1).await?);
        Ok(seen)
    })
    .await
    .expect("accept");
    let (new, duplicate) = (Seen::New, Seen::Duplicate);
    let gap = Seen::Gap { from: 3 };
    assert_eq!(seen, [new, duplicate, new, gap, new, new, duplicate, new]);
}

pub(super) async fn the_inbox_is_listed_page_by_page(store: Store) {
    let listed = write(&store, async |tx| {
        for (consumer, stream) in [("views", "accounts/b"), ("mails", "accounts/a"), ("views", "accounts/a")] {
            inbox::record(tx, consumer, "toy", stream, 3).await?;
        }
        let (mut listed, mut after) = (Vec::new(), DealtWith::default());
        loop {
            let page = inbox::all(tx, &after, 2).await?;
            let Some(last) = page.last() else { break };
            after = last.clone();
            listed.extend(page.into_iter().map(|it| (it.consumer, it.stream, it.version)));
        }
        Ok(listed)
    })
    .await
    .expect("listed");
    let wanted = [("mails", "accounts/a", 3), ("views", "accounts/a", 3), ("views", "accounts/b", 3)];
    assert_eq!(listed, wanted.map(|(consumer, stream, version)| (consumer.to_owned(), stream.to_owned(), version)));
}

pub(super) async fn of_two_who_move_one_cursor_only_one_does(store: Store) {
    let moved = write(&store, async |tx| {
        Ok([
            cursors::advance(tx, "views", "toy", 0, 0, 5).await?,
            cursors::advance(tx, "views", "toy", 0, 0, 3).await?,
            cursors::advance(tx, "views", "toy", 0, 5, 9).await?,
            cursors::advance(tx, "views", "toy", 0, 5, 7).await?,
            cursors::advance(tx, "views", "toy", 1, 0, 1).await?,
        ])
    })
    .await
    .expect("advance");
    assert_eq!(moved, [true, false, true, false, true]);
    let position = write(&store, async |tx| cursors::get(tx, "views", "toy", 0).await).await;
    assert_eq!(position.expect("get"), 9);
}

fn entry(stream: &str, version: u64) -> Entry<'_> {
    let reason = if version == 1 { "broken" } else { "" };
    Entry { producer: "toy", stream, version, name: "stoa.toy.v1.Moved", reason }
}

pub(super) async fn the_lot_keeps_order_and_its_bound(store: Store) {
    write(&store, async |tx| {
        for (stream, version) in [("accounts/a", 1), ("accounts/b", 1), ("accounts/a", 2)] {
            parked::park(tx, "views", entry(stream, version), 3).await?;
        }
        Ok(())
    })
    .await
    .expect("park");
    let full = write(&store, async |tx| parked::park(tx, "views", entry("accounts/a", 3), 3).await).await;
    assert!(matches!(full, Err(Error::LotFull { limit: 3, .. })));

    let (listed, rest, first) = write(&store, async |tx| {
        let listed = parked::list(tx, "views", None, 2).await?;
        let after = Some(("toy", "accounts/a", 2));
        let rest = parked::list(tx, "views", after, 10).await?;
        let first = parked::first(tx, "views", "toy", "accounts/a").await?;
        Ok((listed, rest, first))
    })
    .await
    .expect("list");
    let addresses: Vec<_> = listed.iter().chain(&rest).map(|parked| (&*parked.stream, parked.version)).collect();
    assert_eq!(addresses, [("accounts/a", 1), ("accounts/a", 2), ("accounts/b", 1)]);
    assert_eq!(first.as_ref(), listed.first());

    let taken = write(&store, async |tx| {
        let first = parked::take(tx, "views", "toy", "accounts/a", 1).await?;
        let again = parked::take(tx, "views", "toy", "accounts/a", 1).await?;
        let still = parked::is_parked(tx, "views", "toy", "accounts/a").await?;
        parked::take(tx, "views", "toy", "accounts/a", 2).await?;
        Ok((first, again, still, parked::is_parked(tx, "views", "toy", "accounts/a").await?))
    })
    .await
    .expect("take");
    assert_eq!(taken, (true, false, true, false));
}

pub(super) async fn a_relay_that_lost_its_shard_cannot_move_on(store: Store) {
    let hold = async |holder: &'static str, length: Duration| {
        let hold = async move |tx: &mut Tx| relays::hold(tx, holder, 2, length).await;
        write(&store, hold).await.expect("hold")
    };
    let advance = async |lease: relays::Lease, position: u64| {
        write(&store, async move |tx: &mut Tx| relays::advance(tx, lease, position).await).await.expect("advance")
    };
    let (short, long) = (Duration::ZERO, Duration::from_secs(600));
    let first = hold("one", short).await;
    assert_eq!(first.iter().map(|lease| (lease.shard, lease.position)).collect::<Vec<_>>(), [(0, 0), (1, 0)]);
    let sleeper = first.into_iter().next().expect("a lease");
    assert!(advance(sleeper, 3).await);
    let sleeper = relays::Lease { position: 3, ..sleeper };

    // Its time is over, another takes both shards where they stand, and keeps them.
    let taken = hold("two", long).await;
    assert_eq!(taken.iter().map(|lease| lease.position).collect::<Vec<_>>(), [3, 0]);
    assert_eq!(hold("one", long).await, []);
    assert!(!advance(sleeper, 4).await, "its epoch is over");
    let taken = taken.into_iter().next().expect("a lease");
    assert!(!advance(relays::Lease { position: 2, ..taken }, 4).await, "it stands elsewhere");
    assert!(advance(taken, 4).await);

    // What is given up is free at once.
    write(&store, async |tx: &mut Tx| relays::release(tx, "two").await).await.expect("release");
    assert_eq!(hold("one", long).await.iter().map(|lease| lease.position).collect::<Vec<_>>(), [4, 0]);
}
