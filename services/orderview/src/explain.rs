//! What happened to an order, asked of every service that had a part in it.
//!
//! The services are asked at the same time, each for so long and no longer. One that does not answer is named as missing and
//! the rest is told; one that knows nothing of the order had no part in it.

use std::future::Future;
use std::time::Duration;

use client::{Channel, Outgoing};
use contracts::inventory::v1 as inventory;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::notification::v1 as notification;
use contracts::notification::v1::notification_service_client::NotificationServiceClient;
use contracts::operations::v1 as operations;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::ordering::v1 as ordering;
use contracts::ordering::v1::ordering_service_client::OrderingServiceClient;
use contracts::orderview::v1 as proto;
use contracts::payment::v1 as payment;
use contracts::payment::v1::payment_service_client::PaymentServiceClient;
use contracts::shipping::v1 as shipping;
use contracts::shipping::v1::shipping_service_client::ShippingServiceClient;
use server::{Call, Context};
use tonic::{Code, Status};

use crate::steps;

/// Whom an explanation is asked of.
pub(crate) struct Desk {
    ordering: OrderingServiceClient<Channel>,
    sagas: OperationsServiceClient<Channel>,
    payment: PaymentServiceClient<Channel>,
    inventory: InventoryServiceClient<Channel>,
    shipping: ShippingServiceClient<Channel>,
    notification: NotificationServiceClient<Channel>,
    patience: Duration,
}

type Steps = Vec<proto::ExplainStep>;

/// Results asked for at a time, and pages asked for at most: an explanation is read by a person.
const PAGE: i32 = 1000;
const PAGES: usize = 10;

impl Desk {
    /// A desk that calls the services of a process.
    pub(crate) fn new(context: &Context, patience: Duration) -> Self {
        let caller = context.clients.as_caller("orderview");
        Self {
            ordering: OrderingServiceClient::new(caller.channel("ordering")),
            sagas: OperationsServiceClient::new(caller.channel("ordering")),
            payment: PaymentServiceClient::new(caller.channel("payment")),
            inventory: InventoryServiceClient::new(caller.channel("inventory")),
            shipping: ShippingServiceClient::new(caller.channel("shipping")),
            notification: NotificationServiceClient::new(caller.channel("notification")),
            patience,
        }
    }

    /// Everything that is known of an order, oldest first.
    pub(crate) async fn explain(&self, call: &Call, order: proto::OrderView) -> proto::ExplainOrderResponse {
        let ask = call.itself();
        let name = order.name.as_str();
        let id = name.strip_prefix("orders/").unwrap_or(name);
        let events = async {
            let events = self.asked("ordering", self.events(&ask, name)).await;
            let returns = events.as_ref().map(|(_, returns)| returns.clone()).unwrap_or_default();
            let sagas = self.asked("ordering", self.sagas(&ask, id, &order, &returns)).await;
            (events.map(|(steps, _)| steps), sagas)
        };
        let ((events, sagas), attempts, movements, shipments, messages) = tokio::join!(
            events,
            self.asked("payment", self.attempts(&ask, &order.payment)),
            self.asked("inventory", self.movements(&ask, id)),
            self.asked("shipping", self.shipments(&ask, name)),
            self.asked("notification", self.messages(&ask, name)),
        );
        let mut steps = vec![];
        let mut missing = vec![];
        for part in [events, sagas, attempts, movements, shipments, messages] {
            match part {
                Ok(told) => steps.extend(told),
                Err(service) => missing.push(service.to_owned()),
            }
        }
        // Stable: what happened at one moment stays in the order of the services above.
        steps.sort_by_key(|step| step.time.map(|time| (time.seconds, time.nanos)));
        missing.sort_unstable();
        missing.dedup();
        proto::ExplainOrderResponse { order: Some(order), steps, missing }
    }

    /// What a service tells, or its name if it does not in time.
    async fn asked<F, T>(&self, service: &'static str, asking: F) -> Result<T, &'static str>
    where
        F: Future<Output = Result<T, Status>>,
        T: Default,
    {
        match tokio::time::timeout(self.patience, asking).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(T::default()),
            Ok(Err(status)) => {
                tracing::warn!(service, code = ?status.code(), message = status.message(), "an explanation lacks a part");
                Err(service)
            }
            Err(_late) => {
                tracing::warn!(service, "an explanation lacks a part: no answer in time");
                Err(service)
            }
        }
    }

    /// The order's events, and the sagas of its returns.
    async fn events(&self, ask: &Outgoing, order: &str) -> Result<(Steps, Vec<String>), Status> {
        let (mut told, mut returns, mut page_token) = (vec![], vec![], String::new());
        for _ in 0..PAGES {
            let request = ordering::ListOrderEventsRequest { parent: order.to_owned(), page_size: PAGE, page_token };
            let page = self.ordering.clone().list_order_events(ask.request(request)).await?.into_inner();
            returns.extend(page.events.iter().filter_map(steps::saga_of_return));
            told.extend(page.events.iter().map(|event| steps::event(order, event)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok((told, returns))
    }

    /// The steps of every saga that may have worked on the order; one that never ran is unknown.
    async fn sagas(
        &self,
        ask: &Outgoing,
        id: &str,
        order: &proto::OrderView,
        returns: &[String],
    ) -> Result<Steps, Status> {
        let parcels = order.shipments.iter().map(|parcel| parcel.shipment.trim_start_matches("shipments/"));
        let parcels = parcels.map(|parcel| format!("fulfil-{parcel}"));
        let ids = [id.to_owned(), format!("cancel-{id}")].into_iter().chain(parcels).chain(returns.iter().cloned());
        let mut told = vec![];
        for saga in ids {
            let request = operations::GetSagaRequest { name: format!("services/ordering/sagas/{saga}") };
            match self.sagas.clone().get_saga(ask.request(request)).await {
                Ok(reply) => told.extend(steps::saga(&reply.into_inner())),
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        Ok(told)
    }

    async fn attempts(&self, ask: &Outgoing, payment: &str) -> Result<Steps, Status> {
        let (mut told, mut page_token) = (vec![], String::new());
        for _ in 0..PAGES {
            let request = payment::ListAttemptsRequest { parent: payment.to_owned(), page_size: PAGE, page_token };
            let page = self.payment.clone().list_attempts(ask.request(request)).await?.into_inner();
            told.extend(page.attempts.iter().map(steps::attempt));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(told)
    }

    async fn movements(&self, ask: &Outgoing, id: &str) -> Result<Steps, Status> {
        let (mut told, mut page_token) = (vec![], String::new());
        for _ in 0..PAGES {
            let reservation = format!("reservations/{id}");
            let request =
                inventory::ListMovementsRequest { reservation, page_size: PAGE, page_token, ..Default::default() };
            let page = self.inventory.clone().list_movements(ask.request(request)).await?.into_inner();
            told.extend(page.movements.iter().map(steps::movement));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(told)
    }

    async fn shipments(&self, ask: &Outgoing, order: &str) -> Result<Steps, Status> {
        let filter = format!("order=\"{order}\"");
        let request = shipping::ListShipmentsRequest { page_size: PAGE, filter, ..Default::default() };
        let page = self.shipping.clone().list_shipments(ask.request(request)).await?.into_inner();
        Ok(page.shipments.iter().flat_map(steps::shipment).collect())
    }

    async fn messages(&self, ask: &Outgoing, order: &str) -> Result<Steps, Status> {
        let filter = format!("order=\"{order}\"");
        let request = notification::ListNotificationsRequest { page_size: PAGE, filter, ..Default::default() };
        let page = self.notification.clone().list_notifications(ask.request(request)).await?.into_inner();
        Ok(page.notifications.iter().flat_map(steps::message).collect())
    }
}
