//! The adapters in memory keep the promises of the suite.

use cache::{Buckets, MemoryBuckets, MemoryMarks, conformance};
use proptest::prelude::*;

#[tokio::test]
async fn buckets_in_memory_conform() {
    conformance::buckets(&MemoryBuckets::new(conformance::LIMIT)).await;
}

#[tokio::test]
async fn marks_in_memory_conform() {
    conformance::marks(&MemoryMarks::default()).await;
}

proptest! {
    /// Whoever asks at most as often as the limit allows is never refused, whatever happened to other keys.
    #[test]
    fn nobody_within_the_limit_is_refused(steps in proptest::collection::vec((0_u8..8, 0_u32..100_000_000), 1..200)) {
        let buckets = MemoryBuckets::new(conformance::LIMIT);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut now = jiff::Timestamp::UNIX_EPOCH;
        let mut last = [None::<jiff::Timestamp>; 8];
        for (key, passed) in steps {
            now += std::time::Duration::from_micros(passed.into());
            let taken = runtime.block_on(buckets.take(&[key], now)).expect("memory");
            let rested = last[usize::from(key)].is_none_or(|last| now.duration_since(last).as_secs() >= 100);
            prop_assert!(taken.is_ok() || !rested);
            last[usize::from(key)] = Some(now);
        }
    }
}
