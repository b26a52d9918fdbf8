//! The configuration file: any text is a configuration that the registry takes whole, or every mistake has its place.

use xlvs_control::fuzzing::check_configuration;

use crate::foreign::placed;

/// Checks a file.
pub fn run(input: &[u8]) {
    // What isn't UTF-8 is refused before anything looks at it.
    let Ok(text) = std::str::from_utf8(input) else { return };
    match check_configuration(text) {
        Ok(warnings) => {
            for warning in warnings {
                assert!(warning.starts_with("f:"), "a warning without a place: {warning}");
            }
        }
        Err(findings) => placed(text, findings),
    }
}
