//! Which peer is asked, how often, and what is shown of it. Real sockets.

use tokio::net::TcpListener;

use super::*;

/// An address at which nobody listens, for now.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn listening(server: &Arc<Server>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Arc::clone(server).run(listener));
    address
}

#[tokio::test]
async fn the_next_peer_is_asked_when_one_has_not_sent_all() {
    let other_id =
        Server::new(key(1), 9, Instance::random(), ServerLimits::default(), Arc::new(Table(entries(1, 9))));
    let (good, spare) = (server(entries(2, 100)), server(entries(3, 100)));
    let peers =
        vec![nobody().await, listening(&other_id).await, listening(&good).await, listening(&spare).await];
    let (to, mut from) = mpsc::channel(100);
    let (progress, seen) = watch::channel(Progress::Idle);
    let summary = Client { peers: peers.clone(), ..client() }.catch_up(&to, &progress).await.unwrap();
    assert_eq!((summary.peer, summary.entries), (peers[2], 100));
    assert_eq!(*seen.borrow(), Progress::Done(summary));
    assert_eq!(from.recv().await.unwrap(), entries(2, 100));
    // It counts the client when it has told it, which goes on meanwhile.
    let counted = async {
        while other_id.served() == Served::default() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted).await.unwrap();
    assert_eq!((other_id.served().refused, spare.served()), (1, Served::default()));
}

#[tokio::test]
async fn it_is_told_why_no_peer_has_sent_its_connections() {
    let other_key =
        Server::new(key(2), SYNC_ID, Instance::random(), ServerLimits::default(), Arc::new(Table(vec![])));
    let peers = vec![nobody().await, listening(&other_key).await];
    let (to, _from) = mpsc::channel(1);
    let (progress, seen) = watch::channel(Progress::Idle);
    let client = Client { peers: peers.clone(), ..client() };
    let told = client.catch_up(&to, &progress).await.unwrap_err().to_string();
    let [first, second] = [0, 1].map(|at| format!("{}: ", peers[at]));
    assert!(told.contains(&format!("{first}can't be reached")), "{told}");
    assert!(told.contains(&second) && told.contains("has another key"), "{told}");
    assert_eq!(*seen.borrow(), Progress::Failed { why: told, retry_in: None });
}

#[tokio::test]
async fn without_peers_there_is_nobody_to_ask() {
    let (to, _from) = mpsc::channel(1);
    let (progress, seen) = watch::channel(Progress::Idle);
    let client = Client { peers: vec![], rounds: None, ..client() };
    assert!(matches!(client.catch_up(&to, &progress).await, Err(CatchUpError::NoPeers)));
    assert!(matches!(&*seen.borrow(), Progress::Failed { retry_in: None, .. }));
}

#[tokio::test]
async fn all_are_asked_again_until_one_answers() {
    let peer = nobody().await;
    let (to, mut from) = mpsc::channel(100);
    let (progress, mut seen) = watch::channel(Progress::Idle);
    let client = Client { peers: vec![peer], rounds: None, ..client() };
    let catching_up = tokio::spawn(async move { client.catch_up(&to, &progress).await });
    let waits = |shown: &Progress| match shown {
        Progress::Failed { why, retry_in } => {
            assert_eq!(*retry_in, Some(Duration::from_secs(1)));
            assert!(why.contains("can't be reached"), "{why}");
            true
        }
        _ => false,
    };
    seen.wait_for(waits).await.unwrap();
    let server = server(entries(2, 50));
    tokio::spawn(Arc::clone(&server).run(TcpListener::bind(peer).await.unwrap()));
    let within = tokio::time::timeout(Duration::from_secs(60), catching_up).await.expect("it is asked again");
    assert_eq!(within.unwrap().unwrap().entries, 50);
    assert_eq!(from.recv().await.unwrap(), entries(2, 50));
}

#[tokio::test]
async fn it_does_not_wait_to_ask_again_when_nobody_takes_the_entries() {
    let (to, from) = mpsc::channel(1);
    let (progress, mut seen) = watch::channel(Progress::Idle);
    let client = Client { peers: vec![nobody().await], rounds: None, ..client() };
    let catching_up = tokio::spawn(async move { client.catch_up(&to, &progress).await });
    seen.wait_for(|shown| matches!(shown, Progress::Failed { .. })).await.unwrap();
    drop(from);
    assert!(matches!(catching_up.await.unwrap(), Err(CatchUpError::NotTaken)));
}
