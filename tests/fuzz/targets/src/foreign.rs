//! Files of other directors, Piranha's lvs.cf and keepalived.conf: any text is converted to a file of xlvs's own that means the same,
//! or every mistake has its place. The same text always comes to the same.

use xlvs_control::fuzzing::{Finding, Foreign, convert, convert_pair};

/// Converts a lvs.cf, and its pair of directors.
pub fn lvs_cf(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    check(text, Foreign::LvsCf);
    match convert_pair(text) {
        Ok([primary, backup]) => {
            for (file, state) in [(&primary, "state MASTER"), (&backup, "state BACKUP")] {
                assert!(file.contains(state), "no {state}: {file}");
                let control = file.chars().any(|c| c.is_control() && c != '\n');
                assert!(!control, "a terminal would obey: {file:?}");
            }
        }
        Err(findings) => placed(text, findings),
    }
}

/// Converts a keepalived.conf.
pub fn keepalived_conf(input: &[u8]) {
    check(&String::from_utf8_lossy(input), Foreign::Keepalived);
}

fn check(text: &str, format: Foreign) {
    match convert(format, text) {
        Ok((converted, warnings)) => {
            let control = converted.chars().any(|c| c.is_control() && c != '\n');
            assert!(!control, "a terminal would obey: {converted:?}");
            for warning in warnings {
                assert!(warning.starts_with("f:"), "a warning without a place: {warning}");
                assert!(!warning.chars().any(char::is_control), "a terminal would obey: {warning:?}");
            }
        }
        Err(findings) => placed(text, findings),
    }
}

/// Every mistake stands in the text.
pub(crate) fn placed(text: &str, findings: Vec<Finding>) {
    let lines = text.split('\n').count();
    assert!(!findings.is_empty(), "wrong, and nobody says why");
    for (place, message) in findings {
        let (line, column) = place.unwrap_or_else(|| panic!("no place: {message}"));
        let written = line >= 1 && line as usize <= lines && column >= 1;
        assert!(written, "{line}:{column} is not in the file: {message}");
        assert!(!message.chars().any(char::is_control), "a terminal would obey: {message:?}");
    }
}
