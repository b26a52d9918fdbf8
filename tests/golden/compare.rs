//! Comparing what a command printed with what was captured: to the byte, but for the order where the kernel's hash tables decide
//! it, a second that has passed, and the words that `waivers.toml` names.

use crate::Difference;
use crate::machine::Done;
use crate::waivers::Waivers;

/// What a comparison says.
#[derive(Debug)]
pub enum Verdict {
    /// The same; but for differences with these reasons.
    Same(Vec<String>),
    /// Another output.
    Differs(Difference),
    /// Other numbers or connections, which may become the same.
    MovesOn(Difference),
    /// The same, but that its connections have as many seconds more to live.
    TooYoung(Difference, u64),
}

/// Compares what a command left.
pub fn compare(command: &str, expected: &Done, got: &Done, waivers: &Waivers) -> Verdict {
    let quoted = |text: &str| format!("{text:?}");
    if expected.code != got.code {
        let told = format!("{}, {}", got.code, quoted(&(got.out.clone() + &got.err)));
        return Verdict::Differs(Difference::new("exit code", expected.code, told));
    }
    let mut reasons = Vec::new();
    for (what, expected, got) in
        [("standard output", &expected.out, &got.out), ("standard error", &expected.err, &got.err)]
    {
        let texts = Texts { command, expected: lines(command, expected), got: lines(command, got) };
        match texts.compare(waivers, &mut reasons) {
            Ok(0) => {}
            Ok(seconds) => {
                let difference = Difference::new(what, quoted(expected), quoted(got));
                return Verdict::TooYoung(difference, seconds);
            }
            Err([expected, got]) => {
                let difference = Difference::new(what, quoted(expected), quoted(got));
                let moves = lists_connections(command) || without_numbers(expected) == without_numbers(got);
                return if moves { Verdict::MovesOn(difference) } else { Verdict::Differs(difference) };
            }
        }
    }
    reasons.sort();
    reasons.dedup();
    Verdict::Same(reasons)
}

/// Whether a hash table decides the order of what a command lists.
fn is_hashed(command: &str) -> bool {
    lists_connections(command)
        || command.contains("--nosort")
        || command.split_whitespace().any(|word| word == "/proc/net/ip_vs")
}

fn lists_connections(command: &str) -> bool {
    let mut words = command.split_whitespace();
    match words.next() {
        Some("ipvsadm") => words.any(|word| {
            word == "--connection"
                || word.starts_with('-')
                    && word.contains(['L', 'l'])
                    && word.contains('c')
                    && !word.starts_with("--")
        }),
        Some("cat") => words.any(|word| word.starts_with("/proc/net/ip_vs_conn")),
        _ => false,
    }
}

/// The lines of an output, with their ends; in an order of their own where none is promised.
fn lines<'t>(command: &str, text: &'t str) -> Vec<&'t str> {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if !is_hashed(command) {
        return lines;
    }
    let is_last_of_head =
        |line: &&str| ["pro ", "Pro ", "  -> RemoteAddress"].iter().any(|head| line.starts_with(head));
    let body = lines.split_off(lines.iter().position(is_last_of_head).map_or(0, |last| last + 1));
    // A service with its destinations, or a connection.
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for line in body {
        match blocks.last_mut() {
            Some(block) if line.starts_with("  ->") => block.push(line),
            _ => blocks.push(vec![line]),
        }
    }
    if lists_connections(command) {
        // By who is connected: seconds and destinations may differ.
        blocks.sort_by_key(|block| ends(block[0]));
    } else {
        blocks.sort();
    }
    lines.extend(blocks.concat());
    lines
}

/// The words with client and virtual address of a line of connections.
fn ends(line: &str) -> Vec<&str> {
    let is_hex = |word: &str| word.len() == 8 && u32::from_str_radix(word, 16).is_ok();
    let is_address = |word: &&str| word.contains(['.', ':']) || is_hex(word);
    let words = line.split_whitespace().filter(|word| seconds(word).is_none());
    words.skip(1).skip_while(|word| !is_address(word)).take(4).collect()
}

/// `MM:SS`.
fn seconds(word: &str) -> Option<u64> {
    let (minutes, seconds) = word.split_once(':')?;
    if word.len() != 5 {
        return None;
    }
    Some(minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?)
}

/// Two outputs, line by line.
struct Texts<'t> {
    command: &'t str,
    expected: Vec<&'t str>,
    got: Vec<&'t str>,
}

impl<'t> Texts<'t> {
    /// How many seconds more the connections have to live, at most; the first lines that are not the same, if there are such.
    fn compare(&self, waivers: &Waivers, reasons: &mut Vec<String>) -> Result<u64, [&'t str; 2]> {
        let has_lives = lists_connections(self.command);
        let (mut expected, mut got) = (self.expected.iter().peekable(), self.got.iter().peekable());
        let mut younger_s = 0;
        while expected.peek().is_some() || got.peek().is_some() {
            let one = expected.peek().map_or("", |line| **line);
            let other = got.peek().map_or("", |line| **line);
            let mut same = same_line(one, other, has_lives);
            if same.is_some() {
                waivers.was_the_same(one);
            } else {
                let other = words(other).join(" ");
                let mut instead = waivers.instead(one).filter(|it| !it.ours.is_empty());
                let found =
                    instead.find_map(|it| Some((same_line(&it.put_into(one), &other, has_lives)?, it)));
                same = found.map(|(seconds, it)| {
                    waivers.was_needed(&it);
                    reasons.push(it.reason.to_owned());
                    seconds
                });
            }
            if let Some(seconds) = same {
                younger_s = seconds.max(younger_s);
                expected.next();
                got.next();
            } else if let Some(it) = waivers.instead(one).find(|it| it.ours.is_empty()) {
                waivers.was_needed(&it);
                reasons.push(it.reason.to_owned());
                expected.next();
            } else if let Some(it) = waivers.additional(other) {
                waivers.was_needed(&it);
                reasons.push(it.reason.to_owned());
                got.next();
            } else {
                return Err([one, other]);
            }
        }
        Ok(younger_s)
    }
}

/// How many seconds more the connection of a line has than the captured one, if all else is the same. A second less is none: the
/// captured list was made within that second, and there is no asking for it again.
fn same_line(expected: &str, got: &str, has_life: bool) -> Option<u64> {
    if expected == got {
        return Some(0);
    }
    if !has_life {
        return None;
    }
    let ((begin, life, end), (its_begin, its_life, its_end)) = (life(expected)?, life(got)?);
    if (begin, end) != (its_begin, its_end) || life > its_life + 1 {
        return None;
    }
    Some(its_life.saturating_sub(life))
}

/// A line of connections around the seconds that it has to live.
fn life(line: &str) -> Option<(&str, u64, &str)> {
    let word = line.split_whitespace().find(|word| seconds(word).is_some());
    if let Some((word, life)) = word.and_then(|word| Some((word, seconds(word)?))) {
        let (begin, end) = line.split_once(word)?;
        return Some((begin, life, end));
    }
    // The files have it last.
    let word = line.split_whitespace().next_back()?;
    Some((line.trim_end().strip_suffix(word)?.trim_end(), word.parse().ok()?, ""))
}

/// A line's words, each number made the same.
fn without_numbers(line: &str) -> Vec<&str> {
    words(line)
        .into_iter()
        .map(|word| if u64::from_str_radix(word, 16).is_ok() { "0" } else { word })
        .collect()
}

/// The words of a line.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
