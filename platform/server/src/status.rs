//! The statuses services answer with: a stable reason for programs, a sentence for people, nothing of our insides.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _, pb};

/// The domain of every reason.
pub const DOMAIN: &str = "stoa";

/// The domain said no: a code, a stable reason, a sentence, and what the reason is about.
pub fn rejected<'a>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (&'a str, String)>,
) -> Status {
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

/// One field is not acceptable.
pub fn invalid_argument(field: impl Into<String>, problem: impl Into<String>) -> Status {
    invalid_fields([(field.into(), problem.into())])
}

/// These fields are not acceptable.
pub fn invalid_fields(violations: impl IntoIterator<Item = (String, String)>) -> Status {
    let violations: Vec<FieldViolation> =
        violations.into_iter().map(|(field, problem)| FieldViolation::new(field, problem)).collect();
    let message = match violations.as_slice() {
        [] => "the request is not valid".to_owned(),
        [first, ..] => format!("{} {}", first.field, first.description),
    };
    let mut details = ErrorDetails::with_error_info("INVALID_FIELD", DOMAIN, HashMap::new());
    details.set_bad_request(violations);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// There is no such resource, or none the caller may know of: the answer is the same, byte for byte.
pub fn not_found(resource: &str) -> Status {
    rejected(Code::NotFound, "NOT_FOUND", format!("{resource} does not exist"), [("resource", resource.to_owned())])
}

/// The resource is in a state that does not allow this.
pub fn failed_precondition<'a>(
    reason: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (&'a str, String)>,
) -> Status {
    rejected(Code::FailedPrecondition, reason, message, metadata)
}

/// The resource has changed since the caller read it: its etag is stale.
pub fn stale_etag(resource: &str) -> Status {
    let message = format!("{resource} has changed since it was read");
    rejected(Code::Aborted, "STALE_ETAG", message, [("resource", resource.to_owned())])
}

/// The caller may not do this, whatever the resource.
pub fn permission_denied(reason: &str, message: impl Into<String>) -> Status {
    rejected(Code::PermissionDenied, reason, message, [])
}

/// Too much at once: come back after the pause.
pub fn overloaded(reason: &str, message: impl Into<String>, pause: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(pause));
    let mut status = Status::with_error_details(Code::ResourceExhausted, message, details);
    push_back(&mut status, pause);
    status
}

/// Cannot be served now, nothing was done: come back after the pause.
pub fn unavailable(message: impl Into<String>, pause: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info("UNAVAILABLE", DOMAIN, HashMap::new());
    details.set_retry_info(Some(pause));
    let mut status = Status::with_error_details(Code::Unavailable, message, details);
    push_back(&mut status, pause);
    status
}

/// Something of ours failed: what it was goes to the log, and the peer is told only that.
pub fn fault(what: &str, error: &(dyn std::error::Error + 'static)) -> Status {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    tracing::error!(what, error = %text, "a fault");
    rejected(Code::Internal, "INTERNAL", "an internal error; it has been logged", [])
}

/// The status of a fault of the store.
pub fn of_store(error: &store::Error) -> Status {
    match error {
        store::Error::Conflict { stream, .. } => rejected(
            Code::Aborted,
            "CONFLICT",
            format!("{stream} changed at the same time; try again"),
            [("resource", stream.clone())],
        ),
        store::Error::Busy { .. } => unavailable("the store is busy", Duration::from_millis(100)),
        store::Error::Full { service } => {
            tracing::error!(service, "the disk is full");
            rejected(
                Code::ResourceExhausted,
                "STORAGE_FULL",
                "there is no space left to store this; nothing was stored",
                [],
            )
        }
        store::Error::Stopped { reason } => {
            tracing::error!(reason, "the store is stopped");
            rejected(Code::Unavailable, "STORE_STOPPED", "the service is stopping", [])
        }
        store::Error::Corrupt { service, .. } | store::Error::Damaged { service, .. } => {
            tracing::error!(service, %error, "stored data is damaged");
            rejected(Code::DataLoss, "DATA_DAMAGED", "stored data is damaged and is not served", [])
        }
        _ => fault("store", error),
    }
}

/// The status of a fault of the log.
pub fn of_log(error: &log::Error) -> Status {
    match error {
        log::Error::Store(error) => of_store(error),
        log::Error::Conflict { stream, .. } => rejected(
            Code::Aborted,
            "CONFLICT",
            format!("{stream} changed at the same time; try again"),
            [("resource", stream.clone())],
        ),
        log::Error::RequestIdReused { key, .. } => rejected(
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
            "the request id was used for another request",
            [("request_id", key.clone())],
        ),
        _ => fault("log", error),
    }
}

/// A refusal as it is stored for repeats of its request.
pub fn refusal_of(status: &Status) -> log::Refusal {
    log::Refusal {
        code: i32::from(status.code()),
        message: status.message().to_owned(),
        details: status.details().to_vec(),
    }
}

/// The status of a stored refusal, equal to the first answer.
pub fn status_of(refusal: log::Refusal) -> Status {
    Status::with_details(Code::from_i32(refusal.code), refusal.message, refusal.details.into())
}

/// Adds a message of our own to a status, such as the new quote to `QUOTE_CHANGED`; `name` is the message's full name.
pub fn with_detail<M: prost::Message>(status: &Status, name: &str, detail: &M) -> Status {
    let mut whole = pb::Status::decode(status.details()).unwrap_or_default();
    whole.code = i32::from(status.code());
    whole.message = status.message().to_owned();
    whole
        .details
        .push(prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: detail.encode_to_vec() });
    let details = whole.encode_to_vec().into();
    Status::with_details_and_metadata(status.code(), status.message(), details, status.metadata().clone())
}

/// The stable reason of a status, if it has one.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}

/// Whether a status says that there is no answer: the peer is away, too busy or too late, or its connection broke. What it
/// failed at itself carries a reason of ours.
pub fn unreached(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => true,
        Code::Unknown | Code::Internal => reason(status).is_none(),
        _ => false,
    }
}

fn push_back(status: &mut Status, pause: Duration) {
    let pause_ms = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
    if let Ok(value) = pause_ms.to_string().parse() {
        status.metadata_mut().insert("grpc-retry-pushback-ms", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_carries_its_reason() {
        let status = failed_precondition("OUT_OF_STOCK", "no stock", [("sku", "A-1".to_owned())]);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str(), info.metadata["sku"].as_str()),
            ("OUT_OF_STOCK", "stoa", "A-1")
        );
        assert_eq!(reason(&status).as_deref(), Some("OUT_OF_STOCK"));
    }

    #[test]
    fn no_answer_is_told_from_a_bad_one() {
        let error = std::io::Error::other("a bug");
        assert!(unreached(&Status::unavailable("away")) && unreached(&Status::unknown("broken pipe")));
        assert!(unreached(&overloaded("BUSY", "later", Duration::from_secs(1))));
        assert!(!unreached(&fault("here", &error)) && !unreached(&not_found("orders/a")));
    }

    #[test]
    fn a_stored_refusal_answers_as_the_first_time() {
        let first = with_detail(
            &failed_precondition("QUOTE_CHANGED", "the quote has changed", []),
            "google.protobuf.Duration",
            &prost_types::Duration { seconds: 7, nanos: 0 },
        );
        let again = status_of(refusal_of(&first));
        assert_eq!(again.code(), first.code());
        assert_eq!(again.message(), first.message());
        assert_eq!(again.details(), first.details());
        assert_eq!(reason(&again).as_deref(), Some("QUOTE_CHANGED"));
        assert_eq!(pb::Status::decode(again.details()).unwrap().details.len(), 2);
    }

    #[test]
    fn a_fault_tells_the_peer_nothing_of_our_insides() {
        let error = std::io::Error::other("/var/lib/stoa/ordering.db: secret");
        let status = fault("store", &error);
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("secret"));
    }

    #[test]
    fn load_shedding_says_when_to_come_back() {
        let status = overloaded("OVERLOADED", "too many calls", Duration::from_millis(250));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "250");
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_bad_request_names_every_field() {
        let status = invalid_fields([
            ("items[0].quantity".to_owned(), "must be positive".to_owned()),
            ("sku".to_owned(), "is empty".to_owned()),
        ]);
        let fields: Vec<String> = status
            .get_details_bad_request()
            .unwrap()
            .field_violations
            .into_iter()
            .map(|violation| violation.field)
            .collect();
        assert_eq!(fields, ["items[0].quantity", "sku"]);
    }
}
