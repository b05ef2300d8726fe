//! The data path allocates nothing: every allocation of this process is counted.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod counting;
mod scripted;

use counting::allocations;
use fulmar::{Action, Offer};
use scripted::start;

#[test]
fn publishing_and_polling_allocate_nothing_in_steady_state() {
    let (mut driver, client, _) = start();
    let (publication, shared) = driver.add_publication(&client, 1, 10, 1 << 40);
    let (mut exclusive, own) = driver.add_exclusive_publication(&client, 2, 10, 1 << 40);
    let mut subscription = driver.add_subscription(&client, 10, &[&shared, &own]);
    assert_eq!(subscription.image_count(), 2);

    let message = vec![7u8; 3000];
    let mut bytes = 0;
    let mut round = |count: usize| {
        for _ in 0..count {
            for length in [0, 32, 3000] {
                assert!(matches!(
                    publication.offer(&message[..length]),
                    Offer::Position(_)
                ));
                assert!(matches!(exclusive.offer(&message[..length]), Offer::Position(_)));
            }
            assert!(
                publication
                    .offer_parts(&[&message[..10], &message[..20]])
                    .is_accepted()
            );
            let batch: [&[u8]; 3] = [&message[..10], &message[..20], &message[..30]];
            assert_eq!(publication.offer_batch(&batch).accepted, 3);
            assert_eq!(exclusive.offer_batch(&batch).accepted, 3);
            assert_eq!(publication.offer_batch_of(&message[..96], 32).accepted, 3);
            assert_eq!(exclusive.offer_batch_of(&message[..96], 32).accepted, 3);
            let mut claim = publication.try_claim(100).unwrap();
            claim.copy_from_slice(&message[..100]);
            claim.commit().unwrap();
            exclusive.try_claim(100).unwrap().abort();
            subscription.poll(|payload, _| bytes += payload.len(), 7);
            subscription.controlled_poll(
                |payload, _| {
                    bytes += payload.len();
                    Action::Commit
                },
                100,
            );
        }
    };
    // The first round makes what is kept: staging, assembly buffers, the lists.
    round(1);
    let before = allocations();
    round(8);
    assert_eq!(allocations() - before, 0);
    assert_eq!(bytes, 9 * (2 * 3032 + 30 + 2 * (60 + 96) + 100));
}
