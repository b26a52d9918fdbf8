//! Processes that can't take over, or end while they do: the director that runs goes on, with all its connections, and both say so.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use xlvs_tests::traffic::only_failed_in;
use xlvs_tests::{Capture, Config, Daemon, Download, Lab, Running, Traffic, within};

use super::{SERVERS, SOON, downloads, take_over, took_over_from, unharmed};

/// How often a successor is killed.
const KILLS: u32 = 20;

/// The director is still this process, and serves.
#[track_caller]
fn goes_on(lab: &Lab, daemon: &mut Daemon<'_>, pid: u32) {
    let ((), _) = within("the former process answers", SOON, || {
        let status = daemon.try_status()?;
        if status["pid"] == pid { Ok(()) } else { Err(status["pid"].to_string()) }
    });
    assert_eq!(daemon.pid(), pid);
    assert!(!daemon.has_ended(), "{}", daemon.log());
    for vip in [lab.v4("vip"), lab.v6("vip")] {
        lab.get(vip, "/", 5).unwrap();
    }
}

/// Whether a text stands in a process's log.
fn logs(running: &Running, text: &str) -> bool {
    running.stderr().contains(text)
}

#[test]
fn a_successor_that_can_not_take_over_says_why_and_changes_nothing() {
    let lab = Lab::with_web(&[]);
    let config = Config::web(&lab, &SERVERS);
    let mut daemon = Daemon::start(&lab, &config);
    let pid = daemon.pid();
    let steering = lab.xdp_on("eth0");
    // A file that is wrong; by SIGUSR2 the running one says so too.
    daemon.write(&config.text().replace("\"rr\"", "\"lightest-moon\""));
    let ended = daemon.successor(&[]).finish(SOON);
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    daemon.signal(Signal::SIGUSR2);
    within("it says that nobody took over", SOON, || {
        let log = daemon.log();
        let told = log.contains("nobody took over: process") && log.contains("ended with exit status: 2");
        if told && log.contains("lightest-moon") { Ok(()) } else { Err(log) }
    });
    goes_on(&lab, &mut daemon, pid);
    // Other connections, another state, no rights to load a program, not root. What each says, and the director.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let without = ["setpriv", "--bounding-set=-all,+dac_override", "--inh-caps=-all"];
    let cases: [(&str, &[&str], i32, &str, &str); 4] = [
        ("connections_file = \"none\"", &[], 1, "connections_file is none", "connections_file is none"),
        ("interface = \"eth9\"", &[], 1, "eth9", "ended before it could"),
        ("", &without, 3, "CAP_", "ended before it could"),
        ("", &nobody, 1, "Permission denied", ""),
    ];
    for (line, wrapper, code, said, told) in cases {
        let changed = match line.starts_with("interface") {
            true => config.text().replace("interface = \"eth0\"", line),
            false => config.clone().with(line).text(),
        };
        daemon.write(&changed);
        let before = daemon.log().len();
        let ended = daemon.successor(wrapper).finish(SOON);
        assert_eq!(ended.code, Some(code), "{ended:#?}");
        assert!(ended.stderr.contains(said), "{said}: {ended:#?}");
        within("the director says it too", SOON, || {
            let log = daemon.log();
            if log[before..].contains(told) { Ok(()) } else { Err(format!("no {told} in {log}")) }
        });
        goes_on(&lab, &mut daemon, pid);
    }
    assert_eq!(lab.xdp_on("eth0"), steering, "its own program stayed attached");
    let status = daemon.status();
    assert!(status["takeover"]["failed"].as_u64().unwrap() >= 3, "{:#}", status["takeover"]);
    assert_eq!(status["takeover"]["from"], serde_json::Value::Null);
    // One that can does so afterwards.
    daemon.write(&config.text());
    let _ = take_over(&mut daemon);
    lab.get(lab.v4("vip"), "/", 5).unwrap();
    // Without a director there is nobody to take over from.
    let _ = daemon.stop();
    let ended = daemon_less(&lab, &config);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("there is no director to take over from"), "{ended:#?}");
}

fn daemon_less(lab: &Lab, config: &Config) -> xlvs_tests::Finished {
    let file = lab.dir().join("alone.toml");
    std::fs::write(&file, config.text()).unwrap();
    let (xlvs, socket) = (xlvs_tests::lab::xlvs(), lab.dir().join("alone.sock"));
    let words =
        [xlvs.as_os_str(), "run".as_ref(), "--takeover".as_ref(), "--config".as_ref(), file.as_os_str()];
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
    lab.exec("director", &[&words[..], &["--socket", socket.to_str().unwrap()]].concat())
}

#[test]
fn a_successor_that_is_killed_at_any_time_leaves_the_old_one_running() {
    let lab = Lab::with_web(&[]);
    let config = Config::web(&lab, &SERVERS);
    let mut daemon = Daemon::start(&lab, &config);
    let mut resets = Capture::resets(&lab);
    let each = Download { bytes: 20 << 20, rate: "600K", limit_s: 60 };
    let downloads = downloads(&lab, &daemon, 20, each);
    // How long one takes from the start, to choose times of killing by.
    let began = Instant::now();
    let _ = take_over(&mut daemon);
    let whole = began.elapsed();
    let (mut before, mut amid, mut served) = (0, 0, 0);
    for kill in 0..KILLS {
        let pid = daemon.pid();
        let mut successor = daemon.successor(&[]);
        if kill % 3 == 0 {
            std::thread::sleep(whole * kill / KILLS);
        } else {
            // Between the hand-over and its service, which are not far from each other.
            let deadline = Instant::now() + SOON;
            while !logs(&successor, "has handed over") && Instant::now() < deadline {
                std::hint::spin_loop();
            }
            std::thread::sleep(Duration::from_millis(2) * kill);
        }
        successor.signal(Signal::SIGKILL);
        within("it is gone", SOON, || if successor.has_ended() { Ok(()) } else { Err("it runs") });
        let log = successor.stderr();
        // It had said that it serves if the former one has ended; then it is the director that was killed.
        let over = within("it is clear who serves", SOON, || {
            let told = daemon.log().contains(&format!("process {} serves", successor.pid()));
            match (told, daemon.try_status().is_ok()) {
                (true, _) if daemon.has_ended() => Ok(true),
                (false, true) => Ok(false),
                _ => Err(daemon.log()),
            }
        });
        if over.0 {
            served += 1;
            let _ = daemon.succeeded_by(successor);
            daemon.respawn();
            daemon.wait_ready(true);
            continue;
        }
        if log.contains("has handed over") {
            amid += 1;
        } else {
            before += 1;
        }
        goes_on(&lab, &mut daemon, pid);
        // Requests of the test itself have ended, or their ends are still on their way.
        downloads.wait(&daemon);
    }
    println!(
        "killed before the hand-over {before} times, after it {amid} times, when it served {served} times"
    );
    assert!(before > 0 && amid > 0, "{before}, {amid}, {served}");
    unharmed(downloads, &daemon, &mut resets);
}

/// A successor that the director has agreed to, and that stands still before it is ready.
#[track_caller]
fn stopped_amid_its_preparations(daemon: &Daemon<'_>) -> Running {
    // It takes some tries to stop one just then; one that is too late fails as it ends, and the director goes on.
    let (stopped, _) = within("a successor stands still amid its preparations", SOON, || {
        let mut successor = daemon.successor(&[]);
        let deadline = Instant::now() + SOON;
        while !logs(&successor, "taking over from process") && Instant::now() < deadline {
            std::hint::spin_loop();
        }
        successor.signal(Signal::SIGSTOP);
        let log = successor.stderr();
        if log.contains("ready; process") { Err(log) } else { Ok(successor) }
    });
    stopped
}

#[test]
fn a_second_take_over_at_once_is_refused_and_the_first_goes_on() {
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    let former = daemon.pid();
    let traffic = Traffic::start(&lab, &xlvs_tests::lab::url(vip, "/"), 2, 20);
    traffic.wait(5);
    let mut first = stopped_amid_its_preparations(&daemon);

    let found =
        format!("process {} is just taking over: wait until it has, or end it if it hangs", first.pid());
    for _ in 0..3 {
        let second = daemon.successor(&[]);
        let pid = second.pid();
        let second = second.finish(SOON);
        assert_eq!(second.code, Some(1), "{second:#?}");
        let said =
            format!("the director on {} does not hand over, and goes on: {found}", daemon.socket().display());
        assert!(second.stderr.contains(&said), "no {said:?} in {second:#?}");
        assert!(
            daemon.log().contains(&format!("process {pid} can't take over: {found}")),
            "{}",
            daemon.log()
        );
    }
    // By SIGUSR2 too.
    daemon.signal(Signal::SIGUSR2);
    within("the one that SIGUSR2 starts is refused too", SOON, || {
        let log = daemon.log();
        if log.contains("nobody took over: process") && log.matches(&found).count() >= 4 {
            Ok(())
        } else {
            Err(log)
        }
    });
    goes_on(&lab, &mut daemon, former);
    traffic.wait(5);

    first.signal(Signal::SIGCONT);
    within("the first takes over", SOON, || {
        assert!(!first.has_ended(), "{}", first.stderr());
        if daemon.has_ended() { Ok(()) } else { Err(daemon.log()) }
    });
    let _ = daemon.succeeded_by(first);
    took_over_from(&daemon, former);
    // The place is free again, in the new director.
    let _ = take_over(&mut daemon);
    traffic.wait(5);
    let requests = traffic.finish();
    only_failed_in(&[], &requests);
    assert!(requests.len() > 15, "{} requests", requests.len());
}

/// Each of them takes over from whoever serves then, or is refused; at the end one serves, and nobody noticed.
#[test]
fn of_several_that_want_to_take_over_at_once_one_serves_in_the_end() {
    const AT_ONCE: usize = 5;
    let lab = Lab::with_web(&[]);
    let vip = lab.v4("vip");
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    let mut resets = Capture::resets(&lab);
    let traffic = Traffic::start(&lab, &xlvs_tests::lab::url(vip, "/"), 2, 20);
    traffic.wait(5);
    let (mut served, mut refused) = (0, 0);
    for _ in 0..3 {
        let mut all: Vec<Running> = (0..AT_ONCE).map(|_| daemon.successor(&[])).collect();
        within("all but one have ended", SOON * 3, || {
            let ended = all.iter_mut().filter_map(|one| one.has_ended().then_some(())).count();
            if ended + usize::from(daemon.has_ended()) == AT_ONCE {
                Ok(())
            } else {
                Err(format!("{ended} have"))
            }
        });
        let last = all.iter_mut().position(|one| !one.has_ended());
        let last = last.expect("none of them took over");
        let last = all.swap_remove(last);
        for other in all {
            let other = other.finish(SOON);
            match other.code {
                Some(0) => served += 1,
                Some(1) if other.stderr.contains("is just taking over: wait until it has") => refused += 1,
                _ => panic!("{other:#?}"),
            }
        }
        served += 1;
        let _ = daemon.succeeded_by(last);
        within("the last one serves", SOON, || daemon.try_status().map(drop));
        traffic.wait(2);
    }
    println!("{served} took over, {refused} were refused");
    assert!(refused > 0, "no two were at it at once");
    only_failed_in(&[], &traffic.finish());
    assert!(resets.frames().is_empty(), "somebody was reset");
}

#[test]
fn a_successor_that_hangs_is_killed() {
    let lab = Lab::with_web(&[]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &SERVERS));
    // It takes some tries to stop one just then.
    let ((), _) = within("a successor hangs after the hand-over", Duration::from_secs(60), || {
        let pid = daemon.pid();
        let mut successor = daemon.successor(&[]);
        let deadline = Instant::now() + SOON;
        while !logs(&successor, "has handed over") && Instant::now() < deadline {
            std::hint::spin_loop();
        }
        successor.signal(Signal::SIGSTOP);
        let told = within("one of them goes", SOON, || {
            if successor.has_ended() || daemon.has_ended() { Ok(()) } else { Err(daemon.log()) }
        });
        if daemon.has_ended() {
            successor.signal(Signal::SIGCONT);
            let _ = daemon.succeeded_by(successor);
            return Err("it served already");
        }
        println!("killed after {:?}", told.1);
        goes_on(&lab, &mut daemon, pid);
        let log = daemon.log();
        assert!(log.contains("did not serve within 1000 ms, and was killed"), "{log}");
        let status = daemon.status();
        assert_eq!(status["takeover"]["failed"], 1, "{:#}", status["takeover"]);
        Ok(())
    });
}
