//! nanny's way of finding out whether a server works, as a check of the director's own.
//!
//! nanny asks each server every `timeout` seconds, and gives each step of it as long. One failure takes a server out; it comes back
//! after `reentry` seconds of successes, at the start with the first. A program is asked instead if there is one; else what
//! comes is compared with `expect`; else a connection is enough, except on port 80, where nanny speaks HTTP by itself.

use xlvs_dataplane::flow::Protocol;

use super::ere;
use super::model::{CheckKeys, Virtual};
use crate::config::error::Position;
use crate::config::file::Raw;
use crate::config::import::draft::Value;
use crate::config::source::Source;

/// nanny's defaults, in seconds.
const TIMEOUT_S: u32 = 10;
const REENTRY_S: u32 = 180;
/// What nanny says on port 80, and what it wants to hear.
const HTTP: (&str, &str) = ("GET / HTTP/1.0\r\n\r\n", "HTTP");

/// What is content with any answer.
const ANY: &str = "*";

/// A key of a check: its name, value, where it is said, and what else to say of it.
pub(super) type CheckKey = (&'static str, Value, Option<Position>, Option<String>);

/// The check of the servers of a virtual one that it reaches on `port`; `told` is whether the port has to be said.
pub(super) fn check(virtual_server: &Virtual, port: u16, told: bool) -> Vec<CheckKey> {
    let keys = &virtual_server.check;
    let mut check = asked(keys, port);
    if told {
        let at = virtual_server.port.at();
        check.push(("port", port.into(), at, None));
    }
    let timeout = keys.timeout.or(TIMEOUT_S);
    let at = keys.timeout.at();
    check.push(("interval_s", timeout.into(), at, None));
    check.push(("timeout_s", timeout.into(), at, None));
    let reentry = keys.reentry.or(REENTRY_S);
    let note = "only successes for so long bring it back; the first is enough at the start".to_owned();
    check.push(("reentry_s", reentry.into(), keys.reentry.at(), Some(note)));
    check.push(("fall", 1_u32.into(), at, None));
    check
}

/// What is asked, and what is to be answered.
fn asked(keys: &CheckKeys, port: u16) -> Vec<CheckKey> {
    let text = |raw: &Raw<String>| raw.get().map(|text| text.value.clone());
    let expect = text(&keys.expect);
    let at = keys.expect.at();
    if let Some(program) = keys.send_program.get() {
        let words = command(&program.value).unwrap_or_default();
        let words = words.into_iter().map(Value::Text).collect();
        let mut check = vec![
            ("type", "program".into(), Some(program.at), None),
            ("command", Value::List(words), Some(program.at), None),
        ];
        let expect = expect.filter(|expect| expect != ANY);
        check.extend(expect.map(|expect| ("expect_output", expect.into(), at, None)));
        return check;
    }
    let send = text(&keys.send);
    if keys.expect.at().is_none() && send.is_none() {
        return if port == 80 {
            let note = "what nanny does on port 80 by itself".to_owned();
            vec![
                ("type", "send-expect".into(), None, Some(note)),
                ("send", HTTP.0.into(), None, None),
                ("expect", HTTP.1.into(), None, None),
            ]
        } else {
            vec![("type", "tcp".into(), None, None)]
        };
    }
    let mut check = vec![("type", "send-expect".into(), keys.send.at().or(at), None)];
    check.extend(send.map(|send| ("send", send.into(), keys.send.at(), None)));
    match expect {
        Some(expect) if keys.use_regex.or(false) && expect != ANY => {
            let note = format!("POSIX: {expect}");
            check.push(("expect_regex", ere::translate(&expect).unwrap_or_default().into(), at, Some(note)));
        }
        Some(expect) => check.push(("expect", expect.into(), at, None)),
        None => {}
    }
    check
}

/// The words of a program's command line. `%h` and `%p` mean the same in a check; any other `%` is itself.
fn command(line: &str) -> Option<Vec<String>> {
    let words = shlex::split(line)?;
    let percent = |word: &String| word.replace('%', "%%").replace("%%h", "%h").replace("%%p", "%p");
    (!words.is_empty()).then(|| words.iter().map(percent).collect())
}

/// Reports what of the keys can't be had, and what is odd about them.
pub(super) fn verify(source: &mut Source<'_>, its: &Virtual) {
    let keys = &its.check;
    if let Some(program) = keys.send_program.get() {
        let found = match command(&program.value) {
            None => "no command, or a quote that is not closed",
            Some(words) if !words.first().is_some_and(|first| first.starts_with('/')) => "no absolute path",
            Some(_) => "",
        };
        if !found.is_empty() {
            let message = format!(
                "found {found}, allowed: the absolute path of a program and its arguments, %h and %p in them"
            );
            source.findings.error(program.at, "virtual.send_program", message);
        }
        if let Some(at) = keys.send.at() {
            let message = "found beside send_program, which is asked instead".to_owned();
            source.findings.warning(at, "virtual.send", message);
        }
        if let Some(at) = keys.use_regex.get().filter(|regex| regex.value) {
            let message = "found 1 beside send_program, whose output is compared as a whole".to_owned();
            source.findings.warning(at.at, "virtual.use_regex", message);
        }
        return;
    }
    if let Some(protocol) = its.protocol.get().filter(|protocol| protocol.value == Protocol::Udp) {
        let message = "found udp without send_program: servers are checked by TCP, as nanny does".to_owned();
        source.findings.warning(protocol.at, "virtual.protocol", message);
    }
    if let (true, Some(expect)) = (keys.use_regex.or(false), keys.expect.get())
        && expect.value != ANY
        && let Err(why) = ere::translate(&expect.value).and_then(|translated| {
            regex::bytes::Regex::new(&translated).map_err(|_| "what is not well-formed".to_owned())
        })
    {
        let message = format!("found {why}, allowed: an extended regular expression (POSIX) without it");
        source.findings.error(expect.at, "virtual.expect", message);
    }
}
