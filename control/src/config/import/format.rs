//! Which format a file is of: told by its name where that is plain, else by its first line that says something.

use std::path::Path;

use super::lvs_cf;

/// The formats of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// xlvs's own; what is of no other format too.
    Toml,
    /// Piranha's.
    LvsCf,
    /// keepalived's.
    Keepalived,
}

impl Format {
    /// The format of the text of a file of this name.
    ///
    /// A name that ends in `.toml` or `.cf` decides. Else the first line does that is neither empty nor a comment: `[…]` is TOML;
    /// `key = value` is lvs.cf if it is a key of its, else TOML; `virtual NAME {` and `server NAME {` are lvs.cf; what else ends in `{`,
    /// and what begins with one of keepalived's words, is keepalived's.
    pub(crate) fn of(path: &Path, text: &str) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => return Self::Toml,
            Some("cf") => return Self::LvsCf,
            _ => {}
        }
        let text = text.trim_start_matches('\u{feff}');
        let is_comment = |line: &&str| line.is_empty() || line.starts_with(['#', '!']);
        let Some(line) = text.lines().map(str::trim).find(|line| !is_comment(line)) else {
            // Only keepalived knows comments with `!`.
            let keepalived = text.lines().any(|line| line.trim_start().starts_with('!'));
            return if keepalived { Self::Keepalived } else { Self::Toml };
        };
        let first =
            line.split(|c: char| c.is_whitespace() || c == '=' || c == '{').next().unwrap_or_default();
        if line.starts_with('[') {
            return Self::Toml;
        }
        if line.starts_with(['$', '@', '~']) {
            return Self::Keepalived;
        }
        if line[first.len()..].trim_start().starts_with('=') {
            let is_its = lvs_cf::GLOBAL_KEYS.contains(&first);
            return if is_its { Self::LvsCf } else { Self::Toml };
        }
        if matches!(first, "virtual" | "server" | "failover") {
            return Self::LvsCf;
        }
        let statement = line.split(['#', '!']).next().unwrap_or_default().trim_end();
        let directive =
            matches!(first, "include" | "includea" | "includer" | "includem" | "includew" | "includeb");
        if statement.ends_with('{') || directive {
            return Self::Keepalived;
        }
        let is_its = path.file_name().is_some_and(|name| name.to_string_lossy().contains("keepalived"));
        if is_its { Self::Keepalived } else { Self::Toml }
    }
}
