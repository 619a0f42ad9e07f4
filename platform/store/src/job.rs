//! A queued transaction: the body, its outcome once it ran, the caller who waits, and the queues to the threads.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    path::PathBuf,
    task::{Context, Poll, Waker},
    thread::JoinHandle,
};

use futures_util::{FutureExt as _, future::LocalBoxFuture};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{Error, Site, Tx, deadline};

/// Bodies that may wait; a caller beyond that waits for a place.
pub(crate) const QUEUE: usize = 1024;

/// What the threads take from their queues.
pub(crate) enum Message {
    Run(Box<dyn Job>),
    /// Everything queued before is run, nothing after.
    Close,
}

/// The queues of an open store and the threads behind them.
pub(crate) struct Threads {
    pub(crate) writer: mpsc::Sender<Message>,
    /// Many threads take from it: each message wakes one of them, and no other.
    pub(crate) readers: async_channel::Sender<Message>,
    /// The file, where the store is one.
    pub(crate) file: Option<PathBuf>,
    /// The writer's is the last.
    pub(crate) handles: Vec<JoinHandle<()>>,
}

/// A body of any type, as the engines see it.
pub(crate) trait Job: Send {
    /// Where in the program it was written; `None` for reads.
    fn site(&self) -> Option<&'static Site>;

    /// Whether it must not share a transaction: it cannot run twice.
    fn is_alone(&self) -> bool;

    /// Until when somebody waits for it; only an engine that others keep waiting asks.
    #[cfg_attr(not(feature = "fleet"), allow(dead_code))]
    fn deadline(&self) -> Option<Instant>;

    /// Runs the body and keeps its outcome; `true` if the body wants its work kept.
    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> LocalBoxFuture<'a, bool>;

    /// Replaces the outcome: what the body wanted did not happen.
    fn refuse(&mut self, error: Error);

    /// Tells the caller.
    fn answer(self: Box<Self>);
}

pub(crate) type Answer<T, E> = oneshot::Receiver<Result<T, E>>;

/// The queue entry for a body, and where its answer will come.
pub(crate) type Queued<T, E> = (Box<dyn Job>, Answer<T, E>);

/// Makes the queue entry for a body.
pub(crate) fn job<T, E, F>(site: Option<&'static Site>, alone: bool, body: F) -> Queued<T, E>
where
    F: AsyncFnMut(&mut Tx) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Work { site, alone, deadline: deadline::current(), body, outcome: None, reply }), answer)
}

/// Runs a body that has nothing to wait for: its transaction answers at once.
pub(crate) fn run_now(job: &mut dyn Job, tx: &mut Tx) -> bool {
    let ran = {
        let mut body = job.run(tx);
        body.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    match ran {
        Poll::Ready(keep) => keep,
        Poll::Pending => {
            tx.first_error = Some(Error::Suspended);
            job.refuse(Error::Suspended);
            false
        }
    }
}

struct Work<T, E, F> {
    site: Option<&'static Site>,
    alone: bool,
    deadline: Option<Instant>,
    body: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Work<T, E, F>
where
    F: AsyncFnMut(&mut Tx) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    fn site(&self) -> Option<&'static Site> {
        self.site
    }

    fn is_alone(&self) -> bool {
        self.alone
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> LocalBoxFuture<'a, bool> {
        Box::pin(async move {
            let ran = AssertUnwindSafe((self.body)(tx)).catch_unwind().await;
            #[cfg(feature = "planted-bugs")]
            let ran = match ran {
                Ok(Ok(value)) => Ok(crate::planted::write_as_later(tx).await.map(|()| value).map_err(E::from)),
                other => other,
            };
            let outcome = match ran {
                Ok(outcome) => outcome,
                Err(panic) => Err(E::from(Error::Panicked { message: message(panic.as_ref()) })),
            };
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        })
    }

    fn refuse(&mut self, error: Error) {
        self.outcome = Some(Err(E::from(error)));
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // A caller that has gone away does not want to know; what it asked for is done all the same.
            let _ = self.reply.send(outcome);
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
