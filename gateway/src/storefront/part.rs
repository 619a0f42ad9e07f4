//! One part of a page: live, or what was last answered and since when, or missing; always marked, always with the reason.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use contracts::{
    google::rpc,
    storefront::v1::{PartMark, PartStatus},
};
use jiff::Timestamp;
use tonic::{Code, Response, Status};

/// The clock; the context's.
pub(super) type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// The most answers of one kind that are kept.
const MOST: usize = 1024;

/// A part and how good it is.
pub(super) struct Answered<T> {
    pub(super) mark: PartMark,
    pub(super) value: Option<T>,
}

impl<T> Answered<T> {
    pub(super) fn live(service: &str, now: &Now, value: T) -> Self {
        Answered { mark: mark(PartStatus::Live, service, Some(now()), ""), value: Some(value) }
    }

    pub(super) fn missing(service: &str, reason: &str) -> Self {
        Answered { mark: mark(PartStatus::Missing, service, None, reason), value: None }
    }
}

/// What was last answered, by key; bounded, the oldest answer goes first.
pub(super) struct Kept<T> {
    answers: Mutex<HashMap<String, (Timestamp, T)>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { answers: Mutex::default() }
    }
}

impl<T: Clone> Kept<T> {
    fn put(&self, key: String, at: Timestamp, value: T) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST && !answers.contains_key(&key) {
            let oldest = answers.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| answers.remove(&oldest));
        }
        answers.insert(key, (at, value));
    }

    fn get(&self, key: &str) -> Option<(Timestamp, T)> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

/// An answer, or what stands in for it.
pub(super) fn fallback<T: Clone>(
    service: &str,
    now: &Now,
    kept: Option<(&Kept<T>, String)>,
    answer: Result<T, Status>,
) -> Answered<T> {
    match (answer, kept) {
        (Ok(value), kept) => {
            let at = now();
            if let Some((kept, key)) = kept {
                kept.put(key, at, value.clone());
            }
            Answered { mark: mark(PartStatus::Live, service, Some(at), ""), value: Some(value) }
        }
        (Err(status), kept) => {
            let reason = reason(&status);
            tracing::debug!(service, reason, "a part of a page is not live");
            match kept.and_then(|(kept, key)| kept.get(&key)) {
                Some((at, value)) => {
                    Answered { mark: mark(PartStatus::Stale, service, Some(at), &reason), value: Some(value) }
                }
                None => Answered::missing(service, &reason),
            }
        }
    }
}

/// Tells a definite refusal, which is the page's answer too, from a service that does not answer.
pub(super) fn definite<T>(answer: Result<Response<T>, Status>) -> Result<Result<T, Status>, Status> {
    match answer {
        Ok(value) => Ok(Ok(value.into_inner())),
        Err(status) => match status.code() {
            Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => Err(status),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Ok(Err(status)),
        },
    }
}

fn mark(status: PartStatus, service: &str, at: Option<Timestamp>, reason: &str) -> PartMark {
    PartMark {
        status: status.into(),
        as_of_time: at.map(Into::into),
        service: service.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The service's own reason, or the name of the code.
fn reason(status: &Status) -> String {
    let code = || rpc::Code::try_from(i32::from(status.code())).map_or("UNKNOWN", |code| code.as_str_name());
    server::status::reason(status).unwrap_or_else(|| code().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Now {
        Box::new(move || Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_part_is_live_then_stale_then_never_mistaken_for_another() {
        let kept = Kept::default();
        let live = fallback("catalog", &at(1), Some((&kept, "a".to_owned())), Ok(7));
        assert_eq!((live.mark.status(), live.value), (PartStatus::Live, Some(7)));
        let stale = fallback("catalog", &at(2), Some((&kept, "a".to_owned())), Err(Status::unavailable("")));
        assert_eq!(
            (stale.mark.status(), stale.value, stale.mark.reason.as_str()),
            (PartStatus::Stale, Some(7), "UNAVAILABLE")
        );
        assert_eq!(stale.mark.as_of_time.map(|time| time.seconds), Some(1));
        let missing = fallback("catalog", &at(2), Some((&kept, "b".to_owned())), Err(Status::deadline_exceeded("")));
        assert_eq!(
            (missing.mark.status(), missing.value, missing.mark.reason.as_str()),
            (PartStatus::Missing, None, "DEADLINE_EXCEEDED")
        );
        let unkept = fallback("cart", &at(2), None, Err::<i32, _>(Status::internal("")));
        assert_eq!((unkept.mark.status(), unkept.mark.as_of_time), (PartStatus::Missing, None));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let kept = Kept::default();
        for n in 0..=MOST {
            kept.put(n.to_string(), Timestamp::from_second(i64::try_from(n).unwrap()).unwrap(), n);
        }
        assert!(kept.get("0").is_none() && kept.get("1").is_some() && kept.get(&MOST.to_string()).is_some());
    }
}
