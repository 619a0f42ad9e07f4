//! Sagas that are still open: who waits is expected to, who is left is not.

use std::time::Duration;

use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{GetSagaRequest, ListDeadLettersRequest, ListSagasRequest, SagaPhase, StepOutcome};
use jiff::Timestamp;
use tonic::Status;

use super::findings::{Findings, Invariant};
use super::orders::SETTLING;
use crate::shop::{SERVICES, Shop, Unreached};

/// Looks at the open sagas and at the parked messages of every service.
pub(crate) async fn judge(shop: &Shop, now: Timestamp, findings: &mut Findings) -> anyhow::Result<()> {
    let (mut open, mut waiting) = (0, 0);
    for service in SERVICES {
        let failed = |status: Status| Unreached::or_said(service, &status);
        let mut client = OperationsServiceClient::new(shop.channel(service));
        let mut page_token = String::new();
        loop {
            let parent = format!("services/{service}");
            let asked = ListSagasRequest { parent, page_size: 1000, page_token, open_only: true, ..Default::default() };
            let page = client.list_sagas(Shop::by_operator(asked)).await.map_err(failed)?.into_inner();
            for saga in page.sagas {
                open += 1;
                let about = if saga.correlation_id.is_empty() { &saga.name } else { &saga.correlation_id };
                if saga.phase() == SagaPhase::Failed {
                    let why = format!("{} is stuck at {}: {}", saga.name, saga.step, saga.last_error);
                    findings.broken(Invariant::I5, about, why);
                    continue;
                }
                let name = saga.name.clone();
                let asked = Shop::by_operator(GetSagaRequest { name });
                let seen = client.get_saga(asked).await.map_err(failed)?.into_inner();
                let at_rest =
                    seen.steps.iter().any(|step| step.step == seen.step && step.outcome() == StepOutcome::Wait)
                        && time(seen.due_time).is_some_and(|due| due > now);
                let young = time(seen.create_time).is_some_and(|begun| older(begun, now) < SETTLING);
                if at_rest {
                    waiting += 1;
                } else if !young && seen.phase() != SagaPhase::Done {
                    let why = format!("{} is open at {}: {}", saga.name, saga.step, saga.last_error);
                    findings.broken(Invariant::I5, about, why);
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let parent = format!("services/{service}");
        let asked = ListDeadLettersRequest { parent, page_size: 100, ..Default::default() };
        let parked = client.list_dead_letters(Shop::by_operator(asked)).await.map_err(failed)?.into_inner();
        for letter in parked.dead_letters {
            let why = format!("{} could not apply version {}: {}", letter.consumer, letter.version, letter.error);
            findings.broken(Invariant::I5, &letter.stream, why);
        }
    }
    findings.checked(Invariant::I5, format!("no saga is stuck ({open} open, {waiting} of them waiting as they may)"));
    Ok(())
}

fn time(time: Option<contracts::wkt::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::try_from(time).ok())
}

fn older(than: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(than)).unwrap_or_default()
}
