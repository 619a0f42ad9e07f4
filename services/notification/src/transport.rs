//! How mail leaves: into a folder, or to a mail server.
//!
//! A mail has the same name and the same bytes on every attempt, so a folder holds one file of it however often it was handed
//! over, and a mail server's readers can tell a repeat by its Message-ID.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use lettre::message::{Mailbox, header::ContentType};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use crate::config;
use crate::error::Error;

/// How long a mail server may take for one command.
const SMTP_TIMEOUT: Duration = Duration::from_secs(20);

/// A mail as it is known before it is a message.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    /// Name of its file, without the ending.
    pub(crate) id: String,
    pub(crate) message_id: String,
    pub(crate) recipient: String,
    pub(crate) subject_line: String,
    pub(crate) body: String,
    pub(crate) time: Timestamp,
    /// The story it belongs to.
    pub(crate) traceparent: String,
}

/// Why a mail did not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Trying again may help.
    Transient(String),
    /// It will never leave.
    Permanent(String),
}

/// The way out.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Folder(PathBuf),
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
}

impl Transport {
    /// The transport of a configuration; none where mail is off.
    pub(crate) fn open(config: &config::Transport, data: &Path) -> Result<Option<Self>, Error> {
        match config {
            config::Transport::Off => Ok(None),
            config::Transport::Folder(folder) => {
                let folder = data.join(folder);
                std::fs::create_dir_all(&folder)
                    .map_err(|error| Error::Configuration(format!("{}: {error}", folder.display())))?;
                Ok(Some(Transport::Folder(folder)))
            }
            config::Transport::Smtp { url } => {
                // The error of lettre repeats the address, which may hold a password.
                let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
                    .map_err(|_| Error::Configuration("the address of the mail server is not valid".to_owned()))?;
                Ok(Some(Transport::Smtp(Box::new(builder.timeout(Some(SMTP_TIMEOUT)).build()))))
            }
        }
    }

    /// Hands mails over, `concurrency` at a time; one outcome each, in their order.
    pub(crate) async fn deliver(
        &self,
        from: &Mailbox,
        mails: Vec<Mail>,
        concurrency: usize,
    ) -> Vec<Result<(), Failure>> {
        match self {
            Transport::Folder(folder) => {
                let (folder, from, count) = (folder.clone(), from.clone(), mails.len());
                let written = tokio::task::spawn_blocking(move || {
                    mails.iter().map(|mail| write(&folder, &message(&from, mail)?, &mail.id)).collect()
                });
                written.await.unwrap_or_else(|error| vec![Err(Failure::Transient(error.to_string())); count])
            }
            Transport::Smtp(smtp) => {
                let sending = mails.into_iter().map(|mail| async move {
                    let message = message(from, &mail)?;
                    match smtp.send(message).await {
                        Ok(_) => Ok(()),
                        Err(error) if error.is_permanent() => Err(Failure::Permanent(plain(&error, &mail.recipient))),
                        Err(error) => Err(Failure::Transient(plain(&error, &mail.recipient))),
                    }
                });
                stream::iter(sending).buffered(concurrency.max(1)).collect().await
            }
        }
    }
}

fn message(from: &Mailbox, mail: &Mail) -> Result<Message, Failure> {
    let never = |_| Failure::Permanent("the address is not valid".to_owned());
    let recipient = mail.recipient.parse().map_err(never)?;
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, recipient))
        .subject(mail.subject_line.clone())
        .message_id(Some(mail.message_id.clone()))
        .date(SystemTime::UNIX_EPOCH + Duration::from_micros(mail.time.as_microsecond().try_into().unwrap_or_default()))
        .header(ContentType::TEXT_PLAIN)
        .body(mail.body.clone())
        .map_err(|error| Failure::Permanent(error.to_string()))
}

/// Writes a file that is there whole or not at all. Not flushed: until the mail is marked as sent it would be written again,
/// and after that a crash of the machine may lose it, as it may on its way through any mail server.
fn write(folder: &Path, message: &Message, id: &str) -> Result<(), Failure> {
    let (begun, done) = (folder.join(format!(".{id}.part")), folder.join(format!("{id}.eml")));
    std::fs::write(&begun, message.formatted())
        .and_then(|()| std::fs::rename(&begun, &done))
        .map_err(|error| Failure::Transient(error.to_string()))
}

/// What went wrong, without the address, because errors are stored unsealed.
fn plain(error: &lettre::transport::smtp::Error, recipient: &str) -> String {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text = format!("{text}: {source}");
    }
    text.replace(recipient, "the recipient").chars().filter(|character| !character.is_control()).take(300).collect()
}
