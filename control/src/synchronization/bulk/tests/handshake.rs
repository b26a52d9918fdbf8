//! Who doesn't have the key learns nothing, and changes nothing.

use proptest::prelude::*;

use super::*;

fn strangers(count: u64) -> Served {
    Served { strangers: count, ..Served::default() }
}

#[tokio::test(start_paused = true)]
async fn another_key_on_either_side_is_refused_and_told_and_nothing_is_answered() {
    let server = server(entries(1, 10));
    let mut answered = 0;
    let count = |_, _: &mut Vec<u8>| {
        answered += 1;
        true
    };
    let came = exchange_over(&server, &Client { key: key(2), ..client() }, |_, _| true, count).await;
    let told = told(came);
    assert!(told.contains("has another key") && told.contains("the same file"), "{told}");
    assert_eq!(server.served(), strangers(1));
    assert_eq!(answered, 0);
}

/// Who answers a director's handshake without the key.
#[tokio::test(start_paused = true)]
async fn a_server_without_the_key_is_not_believed() {
    for (answer, words) in [
        (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], "another protocol"),
        (&[&[0, 48][..], &[9; 48]].concat(), "it has another key"),
        (&[0, 48, 1], "hung up during the handshake"),
        (&[], "hung up during the handshake"),
    ] {
        let (ours, mut theirs) = tokio::io::duplex(ROOM);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let told = told(fetch(&client(), ours).await);
        assert!(told.contains(words), "{told}");
    }
}

/// A handshake's first message that somebody has recorded gets an answer, and no more.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_sent_again_leads_to_nothing() {
    let server = server(entries(1, 10));
    let mut recorded = Vec::new();
    let record = |_, frame: &mut Vec<u8>| {
        recorded.push(frame.clone());
        true
    };
    exchange_over(&server, &client(), record, |_, _| true).await.0.unwrap();
    assert_eq!(recorded.len(), 2, "handshake and hello");
    let (mut ours, theirs) = tokio::io::duplex(ROOM);
    let again = async {
        ours.write_all(&recorded.concat()).await.unwrap();
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let ((), answer) = tokio::join!(attend(&server, theirs), again);
    assert_eq!(answer.len(), 50);
    let served = server.served();
    assert_eq!((served.strangers, served.complete, served.entries), (1, 1, 10));
}

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..200);
    (any::<bool>(), any_bytes).prop_map(
        |(is_long_enough, bytes)| {
            if is_long_enough { [vec![0, 48], bytes].concat() } else { bytes }
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_pass_for_a_handshake(bytes in garbage()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let server = server(entries(1, 10));
            let (mut ours, theirs) = tokio::io::duplex(ROOM);
            let stranger = async {
                ours.write_all(&bytes).await.unwrap();
                ours.shutdown().await.unwrap();
                let mut answer = Vec::new();
                ours.read_to_end(&mut answer).await.unwrap();
                answer
            };
            let ((), answer) = tokio::join!(attend(&server, theirs), stranger);
            assert!(answer.is_empty(), "{answer:?}");
            assert_eq!(server.served(), strangers(1));

            let (ours, mut theirs) = tokio::io::duplex(ROOM);
            theirs.write_all(&bytes).await.unwrap();
            theirs.shutdown().await.unwrap();
            told(fetch(&client(), ours).await);
        });
    }

    #[test]
    fn any_bytes_of_who_has_the_key_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(frame) = Frame::read(&bytes) {
            // Of other versions only what is the same in all is read.
            if !matches!(frame, Frame::Hello(Versioned::Other(_)) | Frame::Welcome(Versioned::Other(_))) {
                let again = super::bytes(&frame);
                prop_assert_eq!(Frame::read(&again), Ok(frame));
            }
        }
    }
}
