//! The configuration file: any text is a configuration that the registry takes whole, or every mistake has its place.

use xlvs_control::fuzzing::check_configuration;

/// Checks a file.
pub fn run(input: &[u8]) {
    // What isn't UTF-8 is refused before anything looks at it.
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines = text.split('\n').count();
    match check_configuration(text) {
        Ok(warnings) => {
            for warning in warnings {
                assert!(warning.starts_with("f:"), "a warning without a place: {warning}");
            }
        }
        Err(findings) => {
            assert!(!findings.is_empty(), "wrong, and nobody says why");
            for (place, message) in findings {
                let (line, column) = place.unwrap_or_else(|| panic!("no place: {message}"));
                let written = line >= 1 && line as usize <= lines && column >= 1;
                assert!(written, "{line}:{column} is not in the file: {message}");
                assert!(!message.chars().any(char::is_control), "a terminal would obey: {message:?}");
            }
        }
    }
}
