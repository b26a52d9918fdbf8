//! Whole tables arrive exactly.

use proptest::prelude::*;

use super::*;

fn at_rest<T>(done: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(done)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_table_arrives_as_it_is(seed: u64, count in 0..9000_usize, per_second in 1000..2_000_000_u32) {
        let table = entries(seed, count);
        let limits = ServerLimits {
            entries_per_second: NonZeroU32::new(per_second).unwrap(),
            ..ServerLimits::default()
        };
        let source = Arc::new(Table(table.clone()));
        let server = Server::new(key(1), SYNC_ID, Instance::random(), limits, source);
        let (summary, came) = at_rest(exchange(&server, &client()));
        let summary = summary.unwrap();
        prop_assert!(came == table);
        prop_assert_eq!((summary.entries, summary.skipped), (count as u64, 0));
        let served = Served { complete: 1, entries: count as u64, ..Served::default() };
        prop_assert_eq!(server.served(), served);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_come_in_a_second_than_are_allowed() {
    let limits =
        ServerLimits { entries_per_second: NonZeroU32::new(1000).unwrap(), ..ServerLimits::default() };
    let source = Arc::new(Table(entries(1, 5000)));
    let server = Server::new(key(1), SYNC_ID, Instance::random(), limits, source);
    let took = exchange(&server, &client()).await.0.unwrap().took;
    assert!((Duration::from_millis(4800)..Duration::from_millis(5200)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_slowest_pace_is_not_taken_for_silence() {
    let limits = ServerLimits { entries_per_second: NonZeroU32::MIN, ..ServerLimits::default() };
    let source = Arc::new(Table(entries(1, 60)));
    let server = Server::new(key(1), SYNC_ID, Instance::random(), limits, source);
    assert_eq!(exchange(&server, &client()).await.0.unwrap().entries, 60);
}

#[tokio::test(start_paused = true)]
async fn who_takes_them_slowly_gets_all_and_holds_few_in_memory() {
    let table: Vec<Entry> = (0..100_000).map(numbered).collect();
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let (to, mut from) = mpsc::channel(1);
    let server = server(table.clone());
    let client = client();
    let fetched = async {
        let to = to;
        client.fetch(ours, PEER, Instant::now(), &to, &watch::channel(Progress::Idle).0).await
    };
    let taken = async {
        let mut taken = Vec::new();
        while let Some(slice) = from.recv().await {
            assert!(slice.len() <= 4350, "{}", slice.len());
            taken.extend(slice);
            let ahead = server.served().entries.saturating_sub(taken.len() as u64);
            assert!(ahead <= 20_000, "{ahead} were sent that wait to be taken");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        taken
    };
    let ((), fetched, taken) = tokio::join!(attend(&server, theirs), fetched, taken);
    assert_eq!(fetched.unwrap().entries, 100_000);
    assert!(taken == table);
}

/// A sync id of 0 takes any server's.
#[tokio::test(start_paused = true)]
async fn who_asks_for_any_sync_id_gets_what_there_is() {
    let table = entries(3, 300);
    let (summary, came) = exchange(&server(table.clone()), &Client { sync_id: 0, ..client() }).await;
    assert_eq!(summary.unwrap().entries, 300);
    assert!(came == table);
}
