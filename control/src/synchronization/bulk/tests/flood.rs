//! Those who connect and prove nothing keep nobody out. Real sockets.

use tokio::net::{TcpListener, TcpStream};

use super::*;

#[test]
fn the_oldest_makes_room() {
    let door = door::Door::new(2);
    let (mut first, had_to) = door.enter();
    assert!(!had_to);
    let (mut second, had_to) = door.enter();
    assert!(!had_to);
    let is_out = |guest: &mut door::Guest| futures_util::FutureExt::now_or_never(guest.shown_out()).is_some();
    let (third, had_to) = door.enter();
    assert!(had_to && is_out(&mut first) && !is_out(&mut second));
    drop(third);
    let (_fourth, had_to) = door.enter();
    assert!(!had_to && !is_out(&mut second), "a place was free");
}

#[tokio::test]
async fn a_flood_of_those_who_say_nothing_keeps_no_director_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ServerLimits { handshakes: 16, ..ServerLimits::default() };
    let server =
        Server::new(key(1), SYNC_ID, Instance::random(), limits, Arc::new(Table(entries(1, 20_000))));
    let serving = tokio::spawn(Arc::clone(&server).run(listener));
    // It goes on while the director asks: up to 200 connections are held at a time.
    let flooding = tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            let Ok(stream) = TcpStream::connect(address).await else { continue };
            held.push_back(stream);
            if held.len() > 200 {
                held.pop_front();
            }
        }
    });
    let limit = Duration::from_secs(60);
    let flooded = async {
        while server.served().shown_out < 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(limit, flooded).await.expect("the flood shows");
    let (to, mut from) = mpsc::channel(4);
    let client = Client { peers: vec![address], rounds: NonZeroU32::new(5), ..client() };
    let idle = watch::channel(Progress::Idle).0;
    let caught_up = async {
        let to = to;
        client.catch_up(&to, &idle).await
    };
    let taken = async {
        let mut taken = 0;
        while let Some(slice) = from.recv().await {
            taken += slice.len();
        }
        taken
    };
    let both = async { tokio::join!(caught_up, taken) };
    let (summary, taken) = tokio::time::timeout(limit, both).await.expect("the director gets in");
    assert_eq!(summary.unwrap().entries, 20_000);
    assert_eq!(taken, 20_000);
    flooding.abort();
    serving.abort();
}
