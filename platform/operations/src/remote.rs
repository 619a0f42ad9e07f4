//! The log of a service in another process, as a source for the consumers of this one.
//!
//! A watch over the network says that there is more, as the store's own does in one process; what there is is then read
//! from where each consumer stands. The watch is a hint and may be lost: consumers look by themselves now and then. So
//! nothing here needs to be kept, and a producer that went away is simply read again when it is back.

use std::sync::Arc;
use std::time::Duration;

use bus::{BoxFuture, Error, Message, Source};
use client::Channel;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{LogRecord, ReadLogRequest, ReadLogResponse, ReadStreamRequest};
use jiff::Timestamp;
use log::backoff;
use server::status;
use tokio::sync::watch;
use tonic::{Request, Status, Streaming};

/// Between two attempts to watch a producer that is away.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);

/// A service's log elsewhere.
#[derive(Clone)]
pub struct Remote {
    service: &'static str,
    client: OperationsServiceClient<Channel>,
    changed: Arc<watch::Sender<u64>>,
}

impl Remote {
    /// The log of `service`, read through a channel to it.
    pub fn new(service: &'static str, channel: Channel) -> Self {
        Self { service, client: OperationsServiceClient::new(channel), changed: Arc::new(watch::Sender::new(0)) }
    }

    /// Passes on that the log has grown, until it is dropped; consumers are slower without it, not wrong.
    pub async fn watch(self) {
        let mut attempt = 0;
        loop {
            match self.told(ReadLogRequest { follow: true, ..self.heads_only() }).await {
                Ok(mut answers) => {
                    while let Ok(Some(_)) = answers.message().await {
                        attempt = 0;
                        self.changed.send_modify(|changes| *changes += 1);
                    }
                }
                Err(status) => tracing::debug!(service = self.service, %status, "its log cannot be watched"),
            }
            attempt += 1;
            tokio::time::sleep(backoff::jittered(attempt, FIRST, MOST)).await;
        }
    }

    fn heads_only(&self) -> ReadLogRequest {
        ReadLogRequest { parent: self.parent(), heads_only: true, ..ReadLogRequest::default() }
    }

    fn parent(&self) -> String {
        format!("services/{}", self.service)
    }

    async fn told(&self, asked: ReadLogRequest) -> Result<Streaming<ReadLogResponse>, Status> {
        Ok(self.client.clone().read_log(Request::new(asked)).await?.into_inner())
    }

    async fn records(&self, asked: ReadLogRequest) -> Result<Vec<LogRecord>, Status> {
        let mut answers = self.told(asked).await?;
        let mut records = Vec::new();
        while let Some(answer) = answers.message().await? {
            records.extend(answer.records);
        }
        Ok(records)
    }

    async fn versions(&self, asked: ReadStreamRequest) -> Result<Vec<LogRecord>, Status> {
        let mut answers = self.client.clone().read_stream(Request::new(asked)).await?.into_inner();
        let mut records = Vec::new();
        while let Some(answer) = answers.message().await? {
            records.extend(answer.records);
        }
        Ok(records)
    }

    fn failed(&self, reason: &str) -> Error {
        Error::Remote { service: self.service.to_owned(), reason: reason.to_owned() }
    }

    fn said(&self, status: &Status) -> Error {
        let (service, reason) = (self.service.to_owned(), format!("{:?}, {}", status.code(), status.message()));
        if status::unreached(status) { Error::Away { service, reason } } else { Error::Remote { service, reason } }
    }

    fn messages(&self, records: Vec<LogRecord>) -> Result<Vec<Message>, Error> {
        records.into_iter().map(|record| self.message(record)).collect()
    }

    fn message(&self, record: LogRecord) -> Result<Message, Error> {
        let number = |value: i64| u64::try_from(value).map_err(|_| self.failed("a position or version is negative"));
        let time = record.occur_time.and_then(|time| Timestamp::try_from(time).ok());
        Ok(Message {
            service: self.service.to_owned(),
            shard: record.shard,
            position: number(record.position)?,
            stream: record.stream,
            version: number(record.version)?,
            name: record.r#type,
            schema: record.schema_version,
            occur_time: time.ok_or_else(|| self.failed("an event has no time"))?,
            causation: record.causation_id,
            correlation: record.correlation_id,
            traceparent: record.traceparent,
            subject: Some(record.subject).filter(|subject| !subject.is_empty()),
            payload: record.payload,
        })
    }
}

impl Source for Remote {
    fn service(&self) -> &str {
        self.service
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<u64>, Error>> {
        Box::pin(async move {
            let answer = async { self.told(self.heads_only()).await?.message().await };
            let answer = answer.await.map_err(|status| self.said(&status))?;
            let heads = answer.map(|answer| answer.heads).filter(|heads| !heads.is_empty());
            let heads = heads.ok_or_else(|| self.failed("it names no shard"))?;
            let number = |head| u64::try_from(head).map_err(|_| self.failed("a head is negative"));
            heads.into_iter().map(number).collect()
        })
    }

    fn read(&self, shard: u32, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<Message>, Error>> {
        Box::pin(async move {
            let asked = ReadLogRequest {
                parent: self.parent(),
                shard,
                after: i64::try_from(after).map_err(|_| self.failed("no log is that long"))?,
                limit: i32::try_from(limit).unwrap_or(i32::MAX),
                ..ReadLogRequest::default()
            };
            let records = self.records(asked).await.map_err(|status| self.said(&status))?;
            self.messages(records)
        })
    }

    fn read_stream<'a>(&'a self, stream: &'a str, from: u64, limit: u32) -> BoxFuture<'a, Result<Vec<Message>, Error>> {
        Box::pin(async move {
            let version = |version: u64| i64::try_from(version).map_err(|_| self.failed("no stream is that long"));
            let asked = ReadStreamRequest {
                parent: self.parent(),
                stream: stream.to_owned(),
                from_version: version(from)?,
                to_version: version(from.max(1) + u64::from(limit.max(1)) - 1)?,
            };
            let records = self.versions(asked).await.map_err(|status| self.said(&status))?;
            self.messages(records)
        })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Remote({})", self.service)
    }
}
