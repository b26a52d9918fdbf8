//! The cases that the director differs from on purpose: `waivers.toml`, id and reason.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    waiver: Vec<Waiver>,
}

#[derive(Deserialize)]
struct Waiver {
    id: String,
    reason: String,
}

/// Reasons by case.
pub struct Waivers(BTreeMap<String, String>);

impl Waivers {
    /// Those of `waivers.toml`.
    pub fn read() -> Self {
        let file: File =
            toml::from_str(include_str!("waivers.toml")).expect("waivers.toml: [[waiver]] id, reason");
        Self(file.waiver.into_iter().map(|waiver| (waiver.id, waiver.reason)).collect())
    }

    /// Why a case is waived.
    pub fn reason(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}
