//! Ten thousand services with ten destinations each.

use super::*;

fn many() -> Registry {
    let mut registry = registry();
    for number in 0..10_000_u32 {
        let address = SocketAddr::from(((0x0a00_0000 + number).to_be_bytes(), 80));
        let key = ServiceKey::Address { protocol: xlvs_dataplane::flow::Protocol::Tcp, address };
        registry.add_service(key, by(SchedulerName::Wlc)).unwrap();
        for host in 1..=10 {
            registry.add_destination(&key, real(host), weighing(u32::from(host))).unwrap();
        }
    }
    registry
}

#[test]
fn a_change_among_a_hundred_thousand_destinations_costs_its_own_line_only() {
    let directory = TempDir::new().unwrap();
    let mut registry = many();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    let size = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().len();
    let began = std::time::Instant::now();
    store.save(&registry).unwrap();
    println!(
        "10,000 services, 100,000 destinations: {} KiB in {:?}",
        size("state.json") >> 10,
        began.elapsed()
    );
    let key = *registry.services().next().unwrap().0;
    let operations = |weight| [Operation::EditDestination(key, real(1), weighing(weight))];
    perform(&mut store, &mut registry, &operations(77));
    let inode = || std::fs::metadata(directory.path().join("state.json")).unwrap().ino();
    let (before, state) = (size("state.log"), inode());
    perform(&mut store, &mut registry, &operations(78));
    assert!(size("state.log") - before < 200, "{}", size("state.log") - before);
    let after = size("state.log");
    perform(&mut store, &mut registry, &operations(78));
    assert_eq!((size("state.log"), inode()), (after, state), "the same again is not written");
    drop(store);
    let began = std::time::Instant::now();
    assert_eq!(kept(&reopened(directory.path())), kept(&registry));
    println!("read in {:?}", began.elapsed());
}

#[test]
fn a_journal_as_long_as_the_state_is_folded_into_it() {
    let directory = TempDir::new().unwrap();
    let mut registry = registry();
    let (mut store, _) = open(directory.path());
    store.save(&registry).unwrap();
    let size = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().len();
    perform(&mut store, &mut registry, &[Operation::AddService(service(1), by(SchedulerName::Rr))]);
    perform(&mut store, &mut registry, &[Operation::AddDestination(service(1), real(1), weighing(0))]);
    let mut longest = 0;
    for weight in 1..=25_000 {
        perform(
            &mut store,
            &mut registry,
            &[Operation::EditDestination(service(1), real(1), weighing(weight))],
        );
        longest = longest.max(size("state.log"));
    }
    assert!(longest > JOURNAL_BYTES / 2 && longest <= JOURNAL_BYTES + 200, "{longest}");
    drop(store);
    assert_eq!(kept(&reopened(directory.path())), kept(&registry));
}

#[test]
fn what_is_on_disk_already_is_not_written_again() {
    let directory = TempDir::new().unwrap();
    let registry = small(&directory);
    let path = directory.path().join("state.json");
    let facts = || std::fs::metadata(&path).map(|facts| (facts.ino(), facts.mtime_nsec())).unwrap();
    let (mut store, _) = open(directory.path());
    store.save(&registry).unwrap();
    let before = facts();
    store.save(&registry).unwrap();
    store.commit(&registry).unwrap();
    drop(store);
    let (mut store, loaded) = open(directory.path());
    let mut again = super::registry();
    loaded.restore(&mut again);
    store.save(&again).unwrap();
    assert_eq!(facts(), before);
}
