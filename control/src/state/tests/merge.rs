//! What a restart makes of tools' changes and the file's: the same as a reload.

use super::*;
use crate::registry::Owner;

/// Ends the daemon of `registry`, and starts the next one with this file.
fn restarted(directory: &Path, configuration: &Configuration) -> Registry {
    let (mut store, loaded) = open(directory);
    let mut registry = registry();
    assert_eq!(loaded.restore(&mut registry), [""; 0]);
    assert_eq!(registry.apply(configuration).1, []);
    store.save(&registry).unwrap();
    registry
}

fn owners(registry: &Registry) -> Vec<(SocketAddr, Owner, u32)> {
    let destinations = registry.service(&service(1)).unwrap().destinations();
    destinations.iter().map(|entry| (entry.real(), entry.owner(), entry.spec().weight)).collect()
}

#[test]
fn a_tools_things_stay_in_their_places_and_the_files_are_as_the_file_says() {
    let directory = TempDir::new().unwrap();
    let before = file(&web(&[(11, 1), (12, 1)]));
    let mut registry = restarted(directory.path(), &before);
    let (mut store, _) = open(directory.path());
    perform(
        &mut store,
        &mut registry,
        &[
            Operation::AddDestination(service(1), real(20), weighing(3)),
            Operation::AddService(service(2), by(SchedulerName::Lblcr)),
            Operation::AddDestination(service(2), real(21), weighing(4)),
            Operation::EditDestination(service(2), real(21), weighing(0)),
            Operation::EditDestination(service(1), real(11), weighing(9)),
        ],
    );
    let after = file(&web(&[(11, 1), (12, 1), (13, 1)]));
    registry.apply(&after);
    // The reload puts the file's newest first, and the others where they were.
    store.save(&registry).unwrap();
    let (lists_before, kept_before) = (lists(&mut registry), kept(&registry));
    drop(store);
    let mut registry = restarted(directory.path(), &after);
    assert_eq!(kept(&registry), kept_before);
    assert_eq!(lists(&mut registry), lists_before);
    let expected = [
        (real(13), Owner::File, 1),
        (real(20), Owner::Tool, 3),
        (real(12), Owner::File, 1),
        (real(11), Owner::File, 1),
    ];
    assert_eq!(owners(&registry), expected);
    let quiesced = &lists(&mut registry)[1].destinations;
    assert_eq!(*quiesced, [("10.0.1.21".to_owned(), 0, 4)], "its weight before is known");
}

#[test]
fn what_left_the_file_while_no_daemon_ran_goes_with_what_was_in_it() {
    let directory = TempDir::new().unwrap();
    let mut registry = restarted(directory.path(), &file(&web(&[(11, 1)])));
    let (mut store, _) = open(directory.path());
    perform(
        &mut store,
        &mut registry,
        &[
            Operation::AddDestination(service(1), real(20), weighing(3)),
            Operation::AddService(service(2), by(SchedulerName::Rr)),
        ],
    );
    drop(store);
    let registry = restarted(directory.path(), &file(""));
    assert_eq!(registry.services().map(|(key, _)| *key).collect::<Vec<_>>(), [service(2)]);
}

#[test]
fn what_the_file_took_over_from_a_tool_goes_with_it() {
    let directory = TempDir::new().unwrap();
    let mut registry = restarted(directory.path(), &file(""));
    let (mut store, _) = open(directory.path());
    perform(&mut store, &mut registry, &[Operation::AddService(service(1), by(SchedulerName::Rr))]);
    drop(store);
    let registry = restarted(directory.path(), &file(&web(&[])));
    assert_eq!(registry.service(&service(1)).unwrap().owner(), Owner::File);
    assert_eq!(restarted(directory.path(), &file("")).services().count(), 0);
}

#[test]
fn settings_and_timeouts_of_tools_stay_unless_the_file_changed_its_mind_meanwhile() {
    let directory = TempDir::new().unwrap();
    let before = "[timeouts]\ntcp_s = 500\n";
    let mut registry = restarted(directory.path(), &file(before));
    let (mut store, _) = open(directory.path());
    let change = TimeoutsChange { udp_s: Some(60), tcp_s: Some(70), ..TimeoutsChange::default() };
    let operations = [
        Operation::SetSetting("sloppy_tcp".to_owned(), 1),
        Operation::SetSetting("am_droprate".to_owned(), 20),
        Operation::SetTimeouts(change),
    ];
    perform(&mut store, &mut registry, &operations);
    drop(store);
    let now = |registry: &Registry| {
        let (settings, timeouts) = (registry.settings(), registry.timeouts());
        (settings.sloppy_tcp, settings.am_droprate, timeouts.udp.as_secs(), timeouts.tcp.as_secs())
    };
    let registry = restarted(directory.path(), &file("[settings]\nam_droprate = 30\n"));
    assert_eq!(now(&registry), (true, 30, 60, 900), "the file took its 500 s back, and says 30 now");
    let registry = restarted(directory.path(), &file(""));
    assert_eq!(now(&registry), (true, 10, 60, 900));
}

#[test]
fn the_same_change_again_after_a_reload_undid_it_is_kept() {
    let directory = TempDir::new().unwrap();
    let configuration = file(&web(&[(11, 1)]));
    let mut registry = restarted(directory.path(), &configuration);
    let (mut store, _) = open(directory.path());
    let quiesce = [Operation::EditDestination(service(1), real(11), weighing(0))];
    perform(&mut store, &mut registry, &quiesce);
    registry.apply(&configuration);
    store.save(&registry).unwrap();
    perform(&mut store, &mut registry, &quiesce);
    drop(store);
    assert_eq!(kept(&reopened(directory.path())), kept(&registry));
}

#[test]
fn a_second_director_is_refused_the_directory_until_the_first_has_ended() {
    let directory = TempDir::new().unwrap();
    let (store, _) = open(directory.path());
    let refused = Store::open(directory.path()).unwrap_err().to_string();
    let expected = format!("another director (process {}) keeps its state in ", std::process::id());
    assert!(refused.starts_with(&expected) && refused.contains("--state-dir"), "{refused}");
    drop(store);
    assert!(Store::open(directory.path()).is_ok());
}

#[test]
fn what_is_made_is_for_its_owner_alone() {
    let directory = TempDir::new().unwrap();
    let inner = directory.path().join("a/b");
    let (mut store, _) = open(&inner);
    let mut registry = registry();
    store.save(&registry).unwrap();
    perform(&mut store, &mut registry, &[Operation::AddMark(rule(1))]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&inner), mode(&inner.join("state.json"))), (0o700, 0o600));
    assert_eq!((mode(&inner.join("state.log")), mode(&inner.join("lock"))), (0o600, 0o600));
}
