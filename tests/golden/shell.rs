//! The captures' commands: ipvsadm, and the few others that set its stage. Just enough of a shell for them: `;`, `&&`, `|`,
//! `<`, `>`, `$?`, and `for` over words. Files are the machine's own, in memory.

use std::collections::BTreeMap;

use xlvs_dataplane::settings::Settings;

use crate::machine::{Done, Machine};

/// The files that commands wrote.
pub type Files = BTreeMap<String, String>;

/// Runs a line; its output is that of all commands together.
pub fn run(machine: &mut Machine, line: &str, input: &str) -> Done {
    let mut all = Done::default();
    if let Some(rest) = line.strip_prefix("for i in ")
        && let Some((words, body)) = rest.split_once("; do ")
        && let Some(body) = body.strip_suffix("; done")
    {
        for word in words.split_whitespace() {
            all.join(run(machine, &body.replace("$i", word), input));
        }
        return all;
    }
    for sequence in split(line, ";") {
        let mut goes_on = true;
        for command in split(sequence, "&&") {
            if goes_on {
                let done = pipeline(machine, &command.replace("$?", &all.code.to_string()), input);
                goes_on = done.code == 0;
                all.join(done);
            }
        }
    }
    all
}

/// The parts of a line between separators that stand outside of quotes.
fn split<'l>(line: &'l str, separator: &str) -> Vec<&'l str> {
    let (mut parts, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None if at >= start && line[at..].starts_with(separator) => {
                parts.push(line[start..at].trim());
                start = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(line[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Commands whose output is the next one's input.
fn pipeline(machine: &mut Machine, line: &str, input: &str) -> Done {
    let mut done = Done { out: input.to_owned(), ..Done::default() };
    for command in split(line, "|") {
        let err = std::mem::take(&mut done.err);
        done = redirected(machine, command, &done.out);
        done.err = err + &done.err;
    }
    done
}

fn redirected(machine: &mut Machine, line: &str, input: &str) -> Done {
    let mut words: Vec<String> = split(line, " ").into_iter().map(unquoted).collect();
    let mut take = |sign: &str| {
        let at = words.iter().position(|word| word == sign)?;
        let file = words.get(at + 1).cloned()?;
        words.drain(at..at + 2);
        Some(file)
    };
    let (from, to) = (take("<"), take(">"));
    let join = words.iter().position(|word| word == "2>&1").map(|at| words.remove(at)).is_some();
    let read = from.map(|file| machine.files.get(&file).cloned().unwrap_or_default());
    let mut done = command(machine, &words, read.as_deref().unwrap_or(input));
    if join {
        done.out += &std::mem::take(&mut done.err);
    }
    if let Some(file) = to {
        machine.files.insert(file, std::mem::take(&mut done.out));
    }
    done
}

fn unquoted(word: &str) -> String {
    word.trim_matches(['\'', '"']).to_owned()
}

fn says(out: impl Into<String>) -> Done {
    Done { out: out.into(), ..Done::default() }
}

fn command(machine: &mut Machine, words: &[String], input: &str) -> Done {
    let rest = || words[1..].join(" ");
    match words.first().map(String::as_str) {
        Some("ipvsadm") => machine.ipvsadm(&words[1..], input),
        Some("ipvsadm-save") => machine.ipvsadm(&[&["-S".to_owned()], &words[1..]].concat(), input),
        Some("ipvsadm-restore") => machine.restore(input),
        Some("iptables" | "ip6tables") => crate::iptables::run(machine, words),
        Some("sysctl") => sysctl(machine, words),
        Some("cat") => cat(machine, words, input),
        Some("echo") => says(rest() + "\n"),
        Some("uname") => says("6.12.95+deb12-amd64\n"),
        Some("ls") if words.get(1).is_some_and(|folder| folder == "/proc/sys/net/ipv4/vs") => {
            says(settings(machine).into_iter().map(|(name, _)| format!("{name}\n")).collect::<String>())
        }
        // Routes and rules of the host: the director serves what its marks name.
        Some("ip" | "modprobe" | "true" | "sleep") => says(""),
        Some("grep") => grep(machine, words, input),
        Some("sort") => {
            let mut lines: Vec<&str> = input.lines().collect();
            lines.sort_unstable();
            says(lines.into_iter().map(|line| format!("{line}\n")).collect::<String>())
        }
        Some("head") => {
            let count = words.last().and_then(|word| word.trim_start_matches('-').parse().ok()).unwrap_or(10);
            says(input.lines().take(count).map(|line| format!("{line}\n")).collect::<String>())
        }
        Some("wc") => says(format!("{}\n", input.lines().count())),
        Some("diff") => {
            let file = words.iter().skip(1).find(|word| *word != "-").map_or("", String::as_str);
            let same = machine.files.get(file).map(String::as_str) == Some(input);
            Done { code: i32::from(!same), ..Done::default() }
        }
        _ => Done { code: 127, err: format!("{}: command not found\n", words.join(" ")), ..Done::default() },
    }
}

/// `grep [-v] [-c] [-e] PATTERN [FILE]`, where the pattern has no signs of its own.
fn grep(machine: &Machine, words: &[String], input: &str) -> Done {
    let has = |option: &str| words.iter().any(|word| word == option);
    let mut named = words[1..].iter().filter(|word| !["-v", "-c", "-e", "-i"].contains(&word.as_str()));
    let pattern = named.next().map_or("", String::as_str);
    let text = named.next().map_or(input, |file| machine.files.get(file).map_or("", String::as_str));
    let lines = text.lines().filter(|line| line.contains(pattern) != has("-v"));
    if has("-c") {
        return says(format!("{}\n", lines.count()));
    }
    says(lines.map(|line| format!("{line}\n")).collect::<String>())
}

/// The setting of `/proc/sys/net/ipv4/vs/NAME` or `net.ipv4.vs.NAME`.
fn setting(name: &str) -> Option<&str> {
    name.strip_prefix("/proc/sys/net/ipv4/vs/").or_else(|| name.strip_prefix("net.ipv4.vs."))
}

/// All settings, by name.
fn settings(machine: &Machine) -> Vec<(&'static str, u32)> {
    let mut settings: Vec<_> =
        Settings::BOUNDS.iter().filter_map(|(name, ..)| Some((*name, machine.setting(name)?))).collect();
    settings.sort_unstable();
    settings
}

fn sysctl(machine: &mut Machine, words: &[String]) -> Done {
    if words[1..] == ["net.ipv4.vs"] {
        let lines =
            settings(machine).into_iter().map(|(name, value)| format!("net.ipv4.vs.{name} = {value}\n"));
        return says(lines.collect::<String>());
    }
    for word in words[1..].iter().filter(|word| !word.starts_with('-')) {
        let done = match word.split_once('=') {
            Some((name, value)) => setting(name)
                .zip(value.parse().ok())
                .is_some_and(|(name, value)| machine.set(name, value).is_ok()),
            None => setting(word).is_some(),
        };
        if !done {
            return Done { code: 255, err: format!("sysctl: {word}: no such setting\n"), ..Done::default() };
        }
    }
    says("")
}

fn cat(machine: &mut Machine, words: &[String], input: &str) -> Done {
    let Some(file) = words.get(1) else { return says(input) };
    if let Some(text) = machine.files.get(file) {
        return says(text.clone());
    }
    if let Some(value) = setting(file).and_then(|name| machine.setting(name)) {
        return says(format!("{value}\n"));
    }
    match file.strip_prefix("/proc/net/").and_then(|name| machine.proc(name)) {
        Some(text) => says(text),
        None => Done { code: 1, err: format!("cat: {file}: No such file or directory\n"), ..Done::default() },
    }
}
