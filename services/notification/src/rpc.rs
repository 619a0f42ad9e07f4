//! From wire to intent and back. No stored reply holds personal fields: `once` keeps the name, and what the caller is shown is
//! read after it.

use contracts::notification::v1 as proto;
use contracts::notification::v1::notification_service_server::NotificationService;
use jiff::Timestamp;
use log::Log;
use server::{Call, status};
use store::{Tx, site};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::intent::{self, House, Intent, Origin};
use crate::mail::{Template, Text, render};
use crate::{filter, store as rows, wire};

const DEFAULT_PAGE: u32 = 50;

/// The handlers. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) log: Log<proto::Event>,
    pub(crate) house: House,
}

/// One message as an operator sees it.
async fn shown(tx: &mut Tx, name: &str) -> Result<proto::Notification, Error> {
    match rows::get_notification(tx, name).await? {
        Some(stored) => Ok(wire::notification(tx, &stored).await?),
        None => Ok(proto::Notification::default()),
    }
}

#[tonic::async_trait]
impl NotificationService for Rpc {
    async fn send_notification(
        &self,
        request: Request<proto::SendNotificationRequest>,
    ) -> Result<Response<proto::SendNotificationResponse>, Status> {
        let call = Call::of(&request)?;
        let send = request.into_inner();
        let dry_run = send.validate_only;
        let key = call.request(&send, &send.request_id).filter(|_| !dry_run);
        let intent = Intent { actor: call.principal(), ..intent_of(send)? };
        let (rpc, meta) = (self.clone(), call.meta());
        call.detached(async move {
            let (log, house) = (rpc.log.clone(), rpc.house.clone());
            let stored: Result<proto::Notification, Error> = rpc
                .log
                .once(site!("notification.send_notification"), key, async move |tx: &mut Tx| {
                    let name = intent::request(&log, tx, &meta, &house, &intent).await?;
                    if dry_run {
                        return Err(Error::DryRun(Box::new(shown(tx, &name).await?)));
                    }
                    Ok(proto::Notification { name, ..Default::default() })
                })
                .await;
            let notification = match stored {
                Err(Error::DryRun(notification)) => *notification,
                stored => {
                    let name = stored?.name;
                    rpc.log.store().read(async move |tx: &mut Tx| shown(tx, &name).await).await?
                }
            };
            Ok(Response::new(proto::SendNotificationResponse { notification: Some(notification) }))
        })
        .await
    }

    async fn list_notifications(
        &self,
        request: Request<proto::ListNotificationsRequest>,
    ) -> Result<Response<proto::ListNotificationsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let invalid = |problem: String| status::invalid_argument("filter", problem);
        let conditions = filter::parse(&list.filter).map_err(invalid)?;
        let state = wire::state_filter(&conditions.state);
        let state = state.ok_or_else(|| invalid(format!("{:?} is no state", conditions.state)))?;
        let after = call.cursor(&list.filter, &list.page_token)?.and_then(|cursor| place_after(&cursor));
        let limit = page_size(list.page_size);
        let (mut notifications, cursor) = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                let after = after.as_ref().map(|(time, name)| (*time, name.as_str()));
                let mut stored = rows::list(tx, &conditions, state, after, limit + 1).await?;
                let more = stored.len() > limit as usize;
                stored.truncate(limit as usize);
                let last = stored.last().filter(|_| more);
                let cursor = last.map(|last| format!("{}\n{}", last.create_time.as_microsecond(), last.name));
                let mut notifications = vec![];
                for stored in &stored {
                    notifications.push(wire::notification(tx, stored).await?);
                }
                Ok::<_, Error>((notifications, cursor))
            })
            .await?;
        Ok(Response::new(proto::ListNotificationsResponse {
            notifications: std::mem::take(&mut notifications),
            next_page_token: call.page_token(&list.filter, cursor.as_deref()),
        }))
    }
}

/// What an operator asks for. Variables a text does not know are ignored; a free text needs its two.
fn intent_of(send: proto::SendNotificationRequest) -> Result<Intent, Status> {
    let template = wire::template(send.template())
        .ok_or_else(|| status::invalid_argument("template", "must be a text that can be sent"))?;
    let variables = send.variables.into_iter().collect();
    let text: Text = render(template, "", &send.order, &variables);
    let lacking = |name: &str| variables.get(name).is_none_or(String::is_empty);
    if template == Template::Note && (lacking("subject") || lacking("text")) {
        return Err(status::invalid_argument("variables", "must hold `subject` and `text` for a note"));
    }
    Ok(Intent {
        origin: Origin::Operator,
        dedupe_key: send.dedupe_key,
        template,
        recipient: send.recipient,
        text,
        order: send.order,
        customer: send.subject,
        actor: String::new(),
    })
}

fn place_after(cursor: &str) -> Option<(Timestamp, String)> {
    let (micros, name) = cursor.split_once('\n')?;
    Some((Timestamp::from_microsecond(micros.parse().ok()?).ok()?, name.to_owned()))
}

fn page_size(asked: i32) -> u32 {
    match u32::try_from(asked) {
        Ok(0) | Err(_) => DEFAULT_PAGE,
        Ok(size) => size,
    }
}
