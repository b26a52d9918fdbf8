//! netfilter's rules: any text gives rules that the registry takes, and refusals that can be shown.

use std::sync::LazyLock;

use xlvs_control::adm::names::Ports;
use xlvs_control::iptables::parse;
use xlvs_control::registry::{MAX_MARK_RULES, Registry};

use crate::names::FixedNames;

/// The most characters of a refusal: its text and its reason, each shortened.
const MAX_SHOWN_CHARS: usize = 700;

/// Imports a text.
pub fn run(input: &[u8]) {
    static PORTS: LazyLock<Ports> = LazyLock::new(|| FixedNames::new().0);
    let text = String::from_utf8_lossy(input);
    let lines = text.split('\n').count();
    let imported = parse(&text, &PORTS);
    assert!(imported.rules.len() <= MAX_MARK_RULES);
    let mut registry = Registry::new(1, 7);
    for (rule, line) in &imported.rules {
        assert!((1..=lines).contains(line), "line {line} of {lines}: {rule}");
        registry.add_mark(rule).unwrap_or_else(|error| panic!("{rule} is refused: {error}"));
    }
    for refusal in &imported.refused {
        assert!(refusal.line <= lines, "line {} of {lines}", refusal.line);
        let shown = refusal.to_string();
        assert!(!shown.chars().any(char::is_control), "a terminal would obey: {shown:?}");
        assert!(shown.chars().count() <= MAX_SHOWN_CHARS, "{shown}");
        assert!(!refusal.why.is_empty(), "refused without a reason: {shown}");
    }
}
