//! A million connections over the kernel's TCP.

use tokio::net::TcpListener;

use super::*;

const MILLION: u32 = 1_000_000;

struct Numbered;

impl Source for Numbered {
    fn count(&self) -> u64 {
        MILLION.into()
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Entry> + Send> {
        Box::new((0..MILLION).map(numbered))
    }
}

#[tokio::test]
async fn a_million_connections_arrive_in_their_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peers = vec![listener.local_addr().unwrap()];
    let server =
        Server::new(key(1), SYNC_ID, Instance::random(), ServerLimits::default(), Arc::new(Numbered));
    let serving = tokio::spawn(Arc::clone(&server).run(listener));
    let (to, mut from) = mpsc::channel(16);
    let (progress, seen) = watch::channel(Progress::Idle);
    let client = Client { peers, ..client() };
    let catching_up = tokio::spawn(async move { client.catch_up(&to, &progress).await });
    let (mut next, mut slices) = (0, 0);
    while let Some(slice) = from.recv().await {
        slices += 1;
        for entry in slice {
            assert!(entry == numbered(next), "{next}: {entry:?}");
            next += 1;
        }
    }
    let summary = catching_up.await.unwrap().unwrap();
    assert_eq!((next, summary.entries), (MILLION, MILLION.into()));
    assert_eq!(*seen.borrow(), Progress::Done(summary));
    println!("{MILLION} connections in {:.2} s, in {slices} slices", summary.took.as_secs_f64());
    serving.abort();
}
