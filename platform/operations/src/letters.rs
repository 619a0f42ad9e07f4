//! What consumers parked: listed over all consumers of a service, and driven again.

use bus::{Consumer, DeadLetter, Error, Redriven};

/// Letters read at a time.
const PAGE: u32 = 256;

/// The place of a letter in the list of all: consumer, producer, stream, version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    consumer: String,
    producer: String,
    stream: String,
    version: u64,
}

impl Place {
    pub(crate) fn of(consumer: &Consumer, letter: &DeadLetter) -> Self {
        Self {
            consumer: consumer.name().to_owned(),
            producer: letter.producer.clone(),
            stream: letter.stream.clone(),
            version: letter.version,
        }
    }

    pub(crate) fn encode(&self) -> String {
        format!("{}\n{}\n{}\n{}", self.consumer, self.producer, self.stream, self.version)
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split('\n').map(str::to_owned);
        let (consumer, producer, stream) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { consumer, producer, stream, version: parts.next()?.parse().ok()? })
    }
}

/// The letters of these consumers after a place, at most `limit`.
pub(crate) async fn list<'a>(
    consumers: &[&'a Consumer],
    after: Option<&Place>,
    limit: usize,
) -> Result<Vec<(&'a Consumer, DeadLetter)>, Error> {
    let mut found = Vec::new();
    let begin = after.and_then(|place| consumers.iter().position(|it| it.name() == place.consumer)).unwrap_or(0);
    for consumer in consumers.iter().skip(begin) {
        let inside = after.filter(|place| place.consumer == consumer.name());
        let inside = inside.map(|place| (place.producer.clone(), place.stream.clone(), place.version));
        let left = u32::try_from(limit - found.len()).unwrap_or(u32::MAX);
        let letters = consumer.dead_letters(inside, left).await?;
        found.extend(letters.into_iter().map(|letter| (*consumer, letter)));
        if found.len() == limit {
            break;
        }
    }
    Ok(found)
}

/// How many letters of this stream (of any, where it is empty) a consumer has parked.
pub(crate) async fn count(consumer: &Consumer, stream: &str) -> Result<u64, Error> {
    let mut count = 0;
    let mut after = None;
    loop {
        let page = consumer.dead_letters(after, PAGE).await?;
        count += page.iter().filter(|letter| stream.is_empty() || letter.stream == stream).count() as u64;
        let Some(last) = page.last().filter(|_| page.len() == PAGE as usize) else { return Ok(count) };
        after = Some((last.producer.clone(), last.stream.clone(), last.version));
    }
}

/// Drives what a consumer parked of this stream (of all, where it is empty).
pub(crate) async fn redrive(consumer: &Consumer, stream: &str) -> Result<Redriven, Error> {
    if stream.is_empty() {
        return consumer.redrive_all().await;
    }
    let mut all = Redriven::default();
    for producer in consumer.producers() {
        let driven = consumer.redrive(producer, stream).await?;
        all.applied += driven.applied;
        all.stopped = driven.stopped.or(all.stopped);
    }
    Ok(all)
}
