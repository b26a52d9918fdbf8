//! Nobody is waited for longer than a limit. Time is the tests'.

use super::*;

/// A peer that accepts and says no more after so many steps: the connection, the handshake, the welcome.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    for (steps, words, seconds) in [
        (0, "within 5 s", 5),
        (1, "within 5 s", 5),
        (2, "nothing came from it, or could be sent to it, for 10 s", 10),
    ] {
        let (ours, theirs) = tokio::io::duplex(ROOM);
        let begin = Instant::now();
        let stalls = async {
            match steps {
                0 => (Some(theirs), None),
                1 => (None, Some(Channel::accept(theirs, &key(1)).await.unwrap())),
                _ => (None, Some(welcoming(theirs, 10).await)),
            }
        };
        let client = client();
        let (_kept, came) = tokio::join!(stalls, fetch(&client, ours));
        let told = told(came);
        assert!(told.contains(words), "{steps}: {told}");
        let took = begin.elapsed();
        assert!((seconds..=seconds + 1).contains(&took.as_secs()), "{steps}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_prove_in_time_that_it_has_the_key_is_hung_up_on() {
    let server = server(entries(1, 10));
    // Nothing at all, and a byte each second of what could be a handshake.
    for slowly in [false, true] {
        let begin = Instant::now();
        let (mut ours, theirs) = tokio::io::duplex(ROOM);
        let stranger = async {
            while slowly && ours.write_all(&[0, 48]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(ours.read(&mut [0]).await.unwrap_or(0), 0);
        };
        tokio::join!(attend(&server, theirs), stranger);
        assert!((5..=7).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    }
    assert_eq!(server.served(), Served { strangers: 2, ..Served::default() });
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    let server = server(entries(1, 10_000));
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let begin = Instant::now();
    let stalls = async {
        let mut channel = Channel::connect(ours, &key(1)).await.unwrap();
        let hello = Frame::Hello(Versioned::Ours(frame::Hello { sync_id: 0, instance: Instance::random() }));
        channel.push(&bytes(&hello)).unwrap();
        channel.flush(IDLE_LIMIT).await.unwrap();
        channel
    };
    let ((), _kept) = tokio::join!(attend(&server, theirs), stalls);
    assert!((10..12).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert_eq!(server.served(), Served { broken_off: 1, ..Served::default() });
}

/// The director ends while it still catches up.
#[tokio::test(start_paused = true)]
async fn when_nobody_takes_the_entries_it_ends() {
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let (to, from) = mpsc::channel(1);
    drop(from);
    let (server, client, idle) = (server(entries(1, 10_000)), client(), watch::channel(Progress::Idle).0);
    let fetched = client.fetch(ours, PEER, Instant::now(), &to, &idle);
    let ((), fetched) = tokio::join!(attend(&server, theirs), fetched);
    assert!(matches!(fetched, Err(FetchError::NotTaken)), "{fetched:?}");
}
