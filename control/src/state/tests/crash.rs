//! Power cuts and full disks, at every step of every write.

use super::*;
use std::cell::Cell;
use std::rc::Rc;

/// A disk that does so many steps, then half a write, then nothing; and that sees to it that no file gets its name before its
/// content is on disk.
#[derive(Clone, Debug)]
struct Shaky {
    left: Rc<Cell<usize>>,
    unsynced: Rc<Cell<bool>>,
}

impl Shaky {
    fn lasting(steps: usize) -> Self {
        Self { left: Rc::new(Cell::new(steps)), unsynced: Rc::default() }
    }

    fn step(&self) -> io::Result<()> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Shaky {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        Quick.create(path)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let was = self.left.get();
        self.unsynced.set(true);
        if let Err(error) = self.step() {
            if was == 0 {
                Quick.write(file, &bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        Quick.write(file, bytes)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        self.step()?;
        self.unsynced.set(false);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        assert!(!self.unsynced.get(), "{} is not on disk yet", from.display());
        Quick.rename(from, to)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.step()
    }
}

/// Operations, and after which of them everything is saved.
fn script() -> Vec<(Operation, bool)> {
    let mut script = vec![
        (Operation::AddService(service(1), by(SchedulerName::Wrr)), true),
        (Operation::AddDestination(service(1), real(1), weighing(1)), false),
        (Operation::AddDestination(service(1), real(2), weighing(2)), false),
        (Operation::EditDestination(service(1), real(1), weighing(0)), true),
        (Operation::DeleteDestination(service(1), real(2)), false),
        (Operation::AddMark(rule(1)), false),
        (Operation::AddDestination(service(1), real(2), weighing(2)), true),
        (Operation::Flush, false),
    ];
    script.extend((2..5).map(|host| (Operation::AddService(service(host), by(SchedulerName::Rr)), false)));
    script
}

#[test]
fn after_a_power_cut_at_any_step_all_that_was_acknowledged_is_there() {
    let mut steps = 0;
    loop {
        let directory = TempDir::new().unwrap();
        let disk = Shaky::lasting(steps);
        let (mut store, _) = Store::open_on(disk, directory.path()).unwrap();
        let mut registry = registry();
        // What was acknowledged last, and what was being written when the power went.
        let mut acknowledged = kept(&registry);
        let mut attempted = acknowledged.clone();
        let mut cut = store.save(&registry).is_err();
        for (operation, whole) in script() {
            if cut {
                break;
            }
            operation.perform(&mut registry).unwrap();
            store.note(&operation);
            attempted = kept(&registry);
            cut = store.commit(&registry).is_err();
            if !cut {
                acknowledged.clone_from(&attempted);
            }
            cut = cut || whole && store.save(&registry).is_err();
        }
        drop(store);
        let (_, loaded) = open(directory.path());
        assert!(
            loaded.messages.iter().all(|message| message.contains("never acknowledged")),
            "{:?}",
            loaded.messages
        );
        let mut found = super::registry();
        assert_eq!(loaded.restore(&mut found), [""; 0], "after {steps} steps");
        let found = kept(&found);
        assert!(
            found == acknowledged || found == attempted,
            "after {steps} steps: {found}\nand not {acknowledged}"
        );
        if !cut {
            assert!(steps > 30, "the script has {steps} steps");
            return;
        }
        steps += 1;
    }
}

#[test]
fn a_full_disk_is_told_once_made_up_for_later_and_harms_nothing() {
    let directory = TempDir::new().unwrap();
    let disk = Shaky::lasting(usize::MAX);
    let (mut store, _) = Store::open_on(disk.clone(), directory.path()).unwrap();
    let mut registry = registry();
    store.save(&registry).unwrap();
    perform(&mut store, &mut registry, &[Operation::AddService(service(1), by(SchedulerName::Rr))]);
    let before = kept(&registry);
    for steps in 0..3 {
        disk.left.set(steps);
        let operation = Operation::AddMark(rule(1 + steps as u32));
        operation.perform(&mut registry).unwrap();
        store.note(&operation);
        let error = store.commit(&registry).unwrap_err().to_string();
        assert!(error.starts_with("the change was made, but is lost when the director ends"), "{error}");
        assert!(store.is_behind());
    }
    // Whoever would start now, finds what was acknowledged, and perhaps a change that was cut.
    let copy = TempDir::new().unwrap();
    for name in ["state.json", "state.log"] {
        std::fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    let mut found = super::registry();
    assert_eq!(open(copy.path()).1.restore(&mut found), [""; 0]);
    assert_eq!(kept(&found), before);
    disk.left.set(usize::MAX);
    perform(&mut store, &mut registry, &[Operation::AddMark(rule(9))]);
    assert!(!store.is_behind());
    drop(store);
    assert_eq!(kept(&reopened(directory.path())), kept(&registry));
}
