//! What the sagas of ordering have in common: whom they call, how an answer becomes an outcome, how the order is told.

use cart_client::CartServiceClient;
use client::{Channel, Outgoing};
use contracts::cart::v1::cart_service_client as cart_client;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::ordering::v1::Event as StoredEvent;
use contracts::payment::v1::payment_service_client::PaymentServiceClient;
use contracts::shipping::v1::shipping_service_client::ShippingServiceClient;
use log::{Log, Meta};
use saga::{Attempt, Definition, Effect, Outcome, Refusal, Stop};
use server::{Context, Windows, status};
use store::Tx;
use telemetry::Trace;
use tonic::{Code, Request, Status};

use crate::error::Error;
use crate::order::{Command, Rejection};
use crate::recent::Recent;
use crate::store::{self as rows, Loaded};

/// What every step is given: the log of orders and the services it calls.
pub(crate) struct Desk {
    pub(crate) log: Log<StoredEvent>,
    pub(crate) recent: Recent,
    pub(crate) inventory: InventoryServiceClient<Channel>,
    pub(crate) payment: PaymentServiceClient<Channel>,
    pub(crate) cart: CartServiceClient<Channel>,
    pub(crate) shipping: ShippingServiceClient<Channel>,
    pub(crate) windows: Windows,
}

/// All tables, for the runner.
pub(crate) fn definitions() -> Vec<&'static Definition<Desk>> {
    vec![
        &crate::checkout::CHECKOUT,
        &crate::fulfilment::FULFILMENT,
        &crate::cancellation::CANCELLATION,
        &crate::returning::RETURNING,
    ]
}

/// The saga of an order's checkout has the order's id.
pub(crate) fn checkout_saga(order: &str) -> String {
    id(order).to_owned()
}

/// The saga that charges and releases a packed parcel.
pub(crate) fn fulfilment_saga(shipment: &str) -> String {
    format!("fulfil-{}", id(shipment))
}

/// The saga that undoes a confirmed order.
pub(crate) fn cancellation_saga(order: &str) -> String {
    format!("cancel-{}", id(order))
}

/// The saga that gives back the money and the goods of a return.
pub(crate) fn return_saga(return_id: &str) -> String {
    format!("return-{return_id}")
}

/// What a saga is about: the order, and a part of it.
pub(crate) fn data(order: &str, part: &str) -> Vec<u8> {
    format!("{order}\n{part}").into_bytes()
}

/// The last part of a resource name.
pub(crate) fn id(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, id)| id)
}

/// The order an attempt is about.
pub(crate) fn order_name(attempt: &Attempt) -> String {
    let text = String::from_utf8_lossy(&attempt.data);
    text.split('\n').next().unwrap_or_default().to_owned()
}

/// The part of the order an attempt is about.
pub(crate) fn part(attempt: &Attempt) -> String {
    let text = String::from_utf8_lossy(&attempt.data);
    text.split('\n').nth(1).unwrap_or_default().to_owned()
}

impl Desk {
    /// A desk that calls the services of a process.
    pub(crate) fn new(log: Log<StoredEvent>, context: &Context) -> Self {
        let caller = context.clients.as_caller("ordering");
        Self {
            log,
            recent: Recent::default(),
            inventory: InventoryServiceClient::new(caller.channel("inventory")),
            payment: PaymentServiceClient::new(caller.channel("payment")),
            cart: CartServiceClient::new(caller.channel("cart")),
            shipping: ShippingServiceClient::new(caller.channel("shipping")),
            windows: context.windows.clone(),
        }
    }

    /// The order an attempt is about, as it is; an outcome if it cannot be read.
    pub(crate) async fn order(&self, attempt: &Attempt) -> Result<Loaded, Outcome> {
        match self.read(&order_name(attempt)).await {
            Ok(Some(loaded)) => Ok(loaded),
            Ok(None) => Err(Outcome::Retry("the order of the saga does not exist".to_owned())),
            Err(error) => Err(Outcome::Retry(error.to_string())),
        }
    }

    /// An order as it is, kept for whoever needs it next.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Loaded>, Error> {
        let (log, recent, wanted) = (self.log.clone(), self.recent.clone(), name.to_owned());
        let read = async move |tx: &mut Tx| rows::load_on(&log, &recent, tx, &wanted).await;
        let loaded = self.log.store().read(read).await?;
        if let Some(loaded) = &loaded {
            self.recent.keep(name, loaded);
        }
        Ok(loaded)
    }

    /// The effect that tells the order what happened; commands that changed nothing cause nothing.
    pub(crate) fn tell(&self, attempt: &Attempt, commands: Vec<Command>) -> Effect {
        let (log, recent) = (self.log.clone(), self.recent.clone());
        let (name, meta) = (order_name(attempt), meta(attempt));
        Box::new(async move |tx: &mut Tx| {
            for command in &commands {
                rows::execute(&log, &recent, tx, &name, &meta, command.clone()).await.map_err(stop)?;
            }
            Ok(())
        })
    }

    /// Done, and the order is told.
    pub(crate) fn done(&self, attempt: &Attempt, commands: Vec<Command>) -> Outcome {
        Outcome::Done(Some(self.tell(attempt, commands)))
    }
}

/// A call of a step: on ordering's own business, in the story of the request that started the saga, within the attempt.
pub(crate) fn call<T>(attempt: &Attempt, message: T) -> Request<T> {
    let trace = Trace::parse(&attempt.traceparent).unwrap_or_else(|_| Trace::new_root());
    let left = attempt.until.duration_since(attempt.now);
    let left = std::time::Duration::try_from(left).unwrap_or_default();
    Outgoing::itself(trace).within(left).request(message)
}

/// What a callee's refusal means for a step: a definite no, or not known.
pub(crate) fn outcome(error: &Status) -> Outcome {
    match error.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::OutOfRange => {
            let reason = status::reason(error).unwrap_or_else(|| "REFUSED".to_owned());
            Outcome::Refused(Refusal::new(reason, error.message()))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Outcome::Retry(format!("{:?}: {}", error.code(), error.message())),
    }
}

/// The circumstances of events that a saga's step causes.
pub(crate) fn meta(attempt: &Attempt) -> Meta {
    Meta {
        causation: format!("saga/{}/{}", attempt.saga, attempt.step),
        correlation: attempt.correlation.clone(),
        traceparent: attempt.traceparent.clone(),
    }
}

fn stop(error: Error) -> Stop {
    match error {
        Error::Rejected { rejection: Rejection::CancelRequested, .. } => {
            Stop::Refused(Refusal::new("CANCEL_REQUESTED", "the order is being cancelled"))
        }
        Error::Rejected { rejection, .. } => Stop::Refused(Refusal::new("WRONG_STATE", rejection.to_string())),
        Error::Stale(_) | Error::Replayed(_) | Error::Unreadable { .. } | Error::Log(_) => {
            Stop::Fault(error.to_string())
        }
    }
}

/// The unwinding of a saga that has nothing to undo.
pub(crate) fn nothing(_: &Desk, _: &Attempt, _: &Refusal) -> Effect {
    Box::new(async |_: &mut Tx| Ok(()))
}

/// A saga past its pivot cannot go on: an operator is told by the order.
pub(crate) fn needs_attention(desk: &Desk, attempt: &Attempt, refusal: &Refusal) -> Effect {
    let detail = format!("{}: {}", attempt.step, refusal.detail);
    desk.tell(attempt, vec![Command::RaiseAttention { reason: refusal.reason.clone(), detail }])
}
