//! `HTTP_GET` and `SSL_GET`: pages of a web server. keepalived asks for them in turn, and all must be right; here each is a check.

use super::block::{Block, Notes, number};
use super::checker::{Around, Check, Checker};
use super::words::{Node, Word};
use crate::config::error::Position;
use crate::config::file::{At, Raw};
use crate::config::import::draft::Value;

/// The most pages of a checker.
const MOST_PAGES: usize = 16;

/// The checks of a checker.
pub(super) fn checks(path: &'static str, node: &Node, around: &Around<'_>, notes: &mut Notes) -> Vec<Check> {
    let is_tls = path == "SSL_GET";
    let mut checker = Checker::new(path, node, around, notes).defaults(1, Some(3000));
    let host = checker.block.text(notes, &["virtualhost"]);
    let host =
        host.get().map(|host| host.value.clone()).or_else(|| around.virtualhost.map(ToOwned::to_owned));
    checker.block.lose(notes, &["http_protocol"], "HTTP/1.1 is spoken");
    // Each page is asked for by itself, so that there is nothing to hurry.
    checker.block.flag(notes, &["fast_recovery"]);
    if is_tls {
        // The name goes with the host.
        checker.block.flag(notes, &["enable_sni"]);
    }
    let pages: Vec<&Node> = checker.block.all(&["url"]).collect();
    if pages.is_empty() {
        let message = "found none, allowed: at least one url { path … }";
        notes.findings.error(node.at(), format!("{path}.url"), message.to_owned());
    }
    if let Some(page) = pages.get(MOST_PAGES) {
        let message = format!("found {}, allowed: at most {MOST_PAGES}", pages.len());
        notes.findings.error(page.at(), format!("{path}.url"), message);
    }
    let kind = if is_tls { "https" } else { "http" };
    let mut checks = Vec::new();
    for page in pages.into_iter().take(MOST_PAGES) {
        let own = url(page, host.as_deref(), notes);
        let mut check = checker.keys(kind, own);
        check.at = page.at();
        checks.push(check);
    }
    checker.block.finish(notes);
    checks
}

fn url(node: &Node, host: Option<&str>, notes: &mut Notes) -> Vec<(&'static str, Value, Option<Position>)> {
    let mut block = Block::new("url", node.nodes());
    let path = block.text(notes, &["path"]);
    let own_host = block.text(notes, &["virtualhost"]);
    let status = block.read(notes, &["status_code"], "statuses and ranges such as 200 or 200-299", statuses);
    let digest = block.word(notes, &["digest"], "32 hexadecimal digits, as genhash prints them", |word| {
        (word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| word.to_ascii_lowercase())
    });
    block.lose(
        notes,
        &["regex_min_offset", "regex_max_offset", "regex_stack"],
        "the whole page is looked through",
    );
    let regex = block.text(notes, &["regex"]);
    let no_match = block.flag(notes, &["regex_no_match"]);
    let options = block.read(notes, &["regex_options"], "options of PCRE2", |words| {
        Some(words.iter().map(|word| word.text.clone()).collect::<Vec<_>>())
    });
    block.finish(notes);
    if path.at().is_none() {
        let message = "found nothing, allowed: the path of the page, such as /";
        notes.findings.error(node.at(), "url.path", message.to_owned());
    }
    let mut own = vec![("path", Value::Text(path.or("/".to_owned())), path.at())];
    match (own_host.get(), host) {
        (Some(host), _) => own.push(("host", host.value.clone().into(), Some(host.at))),
        (None, Some(host)) => own.push(("host", host.into(), None)),
        (None, None) => {}
    }
    if let Some(status) = status.get() {
        own.push(("status", Value::List(status.value.clone()), Some(status.at)));
    }
    if let Some(digest) = digest.get() {
        own.push(("body_md5", digest.value.clone().into(), Some(digest.at)));
    }
    if let Some(regex) = regex.get() {
        match expression(&regex.value, &options) {
            Ok(expression) => {
                let key = if no_match.or(false) { "body_not_regex" } else { "body_regex" };
                own.push((key, expression.into(), Some(regex.at)));
            }
            Err(why) => {
                notes.lose(
                    regex.at,
                    format!("regex has no counterpart ({why}): the page's text is not looked at"),
                );
            }
        }
    }
    own
}

fn statuses(words: &[Word]) -> Option<Vec<Value>> {
    let range = |word: &str| -> Option<Value> {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (number(first, 100..=999_u16)?, number(last, 100..=999_u16)?);
        if first == last { Some(first.into()) } else { (first < last).then(|| word.into()) }
    };
    let ranges: Option<Vec<Value>> = words.iter().map(|word| range(&word.text)).collect();
    ranges.filter(|ranges| !ranges.is_empty())
}

/// PCRE2's expression with its options, in the words of the `regex` crate.
fn expression(regex: &str, options: &Raw<Vec<String>>) -> Result<String, String> {
    let mut flags = String::new();
    for option in options.get().map_or(&[][..], |At { value, .. }| value) {
        match option.as_str() {
            "caseless" => flags.push('i'),
            "multiline" => flags.push('m'),
            "dotall" => flags.push('s'),
            "extended" => flags.push('x'),
            "ungreedy" => flags.push('U'),
            // These change nothing about whether there is a match.
            "auto_callout" | "no_auto_capture" | "no_auto_possess" | "no_dotstar_anchor"
            | "no_start_optimize" | "never_backslash_c" | "dupnames" => {}
            other => return Err(format!("the option {}", crate::config::source::plain(other))),
        }
    }
    let expression = if flags.is_empty() { regex.to_owned() } else { format!("(?{flags}){regex}") };
    match regex::bytes::Regex::new(&expression) {
        Ok(_) => Ok(expression),
        Err(_) => Err("it looks around, refers back or is not well-formed".to_owned()),
    }
}
