//! Files as hands and disks spoil them, and what holds of each, in every format.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::config::ConfigErrors;

/// A reading never panics. What it says has a place in the text, and shows nothing that a terminal obeys.
pub(in crate::config) fn survived(
    text: &str,
    warnings: Result<Vec<String>, ConfigErrors>,
) -> Result<(), TestCaseError> {
    let errors = match warnings {
        Ok(warnings) => {
            let placed = warnings.iter().all(|warning| warning.starts_with("f:"));
            prop_assert!(placed, "{:?}", warnings);
            return Ok(());
        }
        Err(errors) => errors,
    };
    prop_assert!(!errors.findings.is_empty());
    let lines = text.split('\n').count();
    for finding in &errors.findings {
        let within =
            finding.position.is_some_and(|at| at.line >= 1 && at.line as usize <= lines && at.column >= 1);
        prop_assert!(within, "{finding:?}");
    }
    let escapes = errors.to_string().contains('\x1b');
    prop_assert!(!escapes);
    Ok(())
}

/// Characters to replace, remove and double.
pub(in crate::config) fn edits() -> impl Strategy<Value = Vec<(Index, u8, char)>> {
    prop::collection::vec((any::<Index>(), 0..3_u8, any::<char>()), 1..12)
}

/// A text with these edits.
pub(in crate::config) fn edited(text: &str, edits: Vec<(Index, u8, char)>) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for (at, kind, with) in edits {
        let at = at.index(text.len());
        match kind {
            0 => text[at] = with,
            1 => drop(text.remove(at)),
            _ => text.insert(at, text[(at * 7) % text.len()]),
        }
    }
    text.into_iter().collect()
}

/// Lines to remove, double and swap.
pub(in crate::config) fn moves() -> impl Strategy<Value = Vec<(Index, u8, Index)>> {
    prop::collection::vec((any::<Index>(), 0..3_u8, any::<Index>()), 1..12)
}

/// A text with its lines moved so.
pub(in crate::config) fn moved(text: &str, moves: Vec<(Index, u8, Index)>) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    for (at, kind, with) in moves {
        let (at, with) = (at.index(lines.len()), with.index(lines.len()));
        match kind {
            0 => drop(lines.remove(at)),
            1 => lines.insert(with, lines[at]),
            _ => lines.swap(at, with),
        }
    }
    lines.join("\n")
}
