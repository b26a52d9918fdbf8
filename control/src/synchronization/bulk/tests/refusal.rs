//! Who gets no entries is told why, if it has the key.

use super::*;

fn refused(count: u64) -> Served {
    Served { refused: count, ..Served::default() }
}

#[tokio::test(start_paused = true)]
async fn another_sync_id_is_told() {
    let server = server(entries(1, 10));
    let told = told(exchange(&server, &Client { sync_id: 9, ..client() }).await);
    assert!(told.contains("its sync id is 7") && told.contains("give both the same"), "{told}");
    assert_eq!(server.served(), refused(1));
}

#[tokio::test(start_paused = true)]
async fn a_director_that_asks_itself_is_told() {
    let server = server(entries(1, 10));
    let told = told(exchange(&server, &Client { instance: server.instance(), ..client() }).await);
    assert!(told.contains("this director itself") && told.contains("out of the peers"), "{told}");
    assert_eq!(server.served(), refused(1));
}

#[tokio::test(start_paused = true)]
async fn a_client_of_another_version_is_told_ours() {
    let server = server(entries(1, 10));
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let asks = async {
        let mut channel = Channel::connect(ours, &key(1)).await.unwrap();
        channel.push(&[1, 2, b'?']).unwrap();
        channel.flush(IDLE_LIMIT).await.unwrap();
        assert_eq!(channel.receive(IDLE_LIMIT).await.unwrap(), Some(&[3, 1, 1][..]));
        assert_eq!(channel.receive(IDLE_LIMIT).await.unwrap(), None);
    };
    tokio::join!(attend(&server, theirs), asks);
    assert_eq!(server.served(), refused(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_of_another_version_is_told_of() {
    let newer = "version 2 of bulk synchronisation, this director";
    for (answer, words) in [(&[3, 1, 2][..], newer), (&[2, 2], newer), (&[3, 99, 0], "number 99")] {
        let (ours, theirs) = tokio::io::duplex(ROOM);
        let client = client();
        let (_channel, came) = tokio::join!(answering(theirs, answer), fetch(&client, ours));
        let told = told(came);
        assert!(told.contains(words), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_welcomes_with_another_sync_id_is_not_believed() {
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let client = Client { sync_id: 9, ..client() };
    let (_channel, came) = tokio::join!(welcoming(theirs, 10), fetch(&client, ours));
    assert!(told(came).contains("its sync id is 7"));
}

#[tokio::test(start_paused = true)]
async fn more_than_the_server_may_serve_at_a_time_are_told_and_served_later() {
    let limits = ServerLimits { clients: 1, ..ServerLimits::default() };
    let source = Arc::new(Table(entries(1, 10_000)));
    let server = Server::new(key(1), SYNC_ID, Instance::random(), limits, source);
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    // Takes nothing, so that the server waits for it.
    let serving = tokio::spawn({
        let server = Arc::clone(&server);
        async move { attend(&server, theirs).await }
    });
    let mut first = Channel::connect(ours, &key(1)).await.unwrap();
    let hello = Frame::Hello(Versioned::Ours(frame::Hello { sync_id: 0, instance: Instance::random() }));
    first.push(&bytes(&hello)).unwrap();
    first.flush(IDLE_LIMIT).await.unwrap();
    first.receive(IDLE_LIMIT).await.unwrap().unwrap();
    assert_eq!(server.served().serving, 1);

    let told = told(exchange(&server, &client()).await);
    assert!(told.contains("to 1 directors already"), "{told}");
    drop(first);
    serving.await.unwrap();
    assert_eq!(exchange(&server, &client()).await.0.unwrap().entries, 10_000);
    let served = server.served();
    assert_eq!((served.serving, served.refused, served.broken_off, served.complete), (0, 1, 1, 1));
}
