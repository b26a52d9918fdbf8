//! Configurations of other directors: Piranha's `lvs.cf`, which is read natively or converted, and keepalived's
//! `keepalived.conf`, whose virtual servers are converted once (the rest of it stays keepalived's).
//!
//! `text ─ its own reader ─ Draft (tables of xlvs's own format) ─ TOML, or a Configuration`
//!
//! The readers are functions from texts to what they say; only `marks` and `keepalived::include` open files.

mod draft;
mod format;
mod keepalived;
pub(super) mod lvs_cf;
pub(super) mod marks;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::error::{ConfigErrors, Finding, Findings, Places};
use super::{Configuration, Overrides};
use draft::{Draft, Table, Value};
pub(crate) use format::Format;
pub(crate) use lvs_cf::Role;
use marks::MarksFrom;

/// What a conversion comes to.
#[derive(Debug)]
pub(crate) struct Converted {
    /// The other file.
    pub(crate) text: String,
    /// What to know about it, a line each, ready to print.
    pub(crate) warnings: Vec<String>,
}

/// What a file of another format says, whatever that is.
struct Imported {
    draft: Draft,
    findings: Findings,
    worded: fn(Finding) -> Finding,
}

impl Imported {
    /// Reads the text of a file at `path`; `files` has what it includes.
    fn of(
        format: Format,
        name: &str,
        path: &Path,
        text: &str,
        id: &str,
        files: keepalived::Files<'_>,
    ) -> Result<Self, ConfigErrors> {
        match format {
            Format::LvsCf => Self::lvs_cf(name, text),
            Format::Keepalived => Self::keepalived(name, path, text, id, files),
            Format::Toml => {
                let message = "is neither lvs.cf nor keepalived.conf, allowed: one of both";
                Err(ConfigErrors::of_file(name, message.to_owned()))
            }
        }
    }

    fn lvs_cf(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut read = lvs_cf::read(name, text)?;
        read.tell_of_pair(name);
        Ok(Self { draft: read.draft, findings: read.findings, worded: lvs_cf::worded })
    }

    fn keepalived(
        name: &str,
        path: &Path,
        text: &str,
        id: &str,
        files: keepalived::Files<'_>,
    ) -> Result<Self, ConfigErrors> {
        let read = keepalived::read(name, path, text, id, files)?;
        Ok(Self { draft: read.draft, findings: read.findings, worded: keepalived::worded })
    }

    fn configuration(
        self,
        name: &str,
        overrides: &Overrides,
    ) -> Result<(Draft, Places, Configuration), ConfigErrors> {
        let Self { draft, mut findings, worded } = self;
        let configuration = draft.configuration(overrides, &mut findings, worded);
        let places = findings.places(name);
        Ok((draft, places, findings.finish(name, configuration)?))
    }
}

/// Reads a file of Piranha's.
///
/// # Errors
/// When it is wrong; all that is wrong is reported.
pub(super) fn lvs_cf(name: &str, text: &str, overrides: &Overrides) -> Result<Configuration, ConfigErrors> {
    let (.., configuration) = Imported::lvs_cf(name, text)?.configuration(name, overrides)?;
    Ok(configuration)
}

/// Reads a file of keepalived's, as far as it can be converted.
///
/// # Errors
/// When it is wrong; all that is wrong is reported.
pub(super) fn keepalived(
    name: &str,
    path: &Path,
    text: &str,
    overrides: &Overrides,
) -> Result<Configuration, ConfigErrors> {
    let (.., mut configuration) =
        Imported::keepalived(name, path, text, &overrides.config_id, &mut keepalived::from_disk)?
            .configuration(name, overrides)?;
    marks::add(name, overrides.marks.as_ref(), &mut configuration)?;
    Ok(configuration)
}

/// Converts a file of another format to xlvs's own. What the command line says is written down too.
///
/// # Errors
/// When it can't be read, is wrong, or is of that format already.
pub(crate) fn to_toml(path: &Path, overrides: &Overrides) -> Result<Converted, ConfigErrors> {
    let (name, text, format) = super::read_file(path)?;
    let (converted, _) = text_to_toml(format, &name, path, &text, overrides, &mut keepalived::from_disk)?;
    Ok(converted)
}

/// Converts the text of a file at `path`; what the file means is told besides. `files` has what it includes.
///
/// # Errors
/// When it is wrong, or of xlvs's own format.
pub(crate) fn text_to_toml(
    format: Format,
    name: &str,
    path: &Path,
    text: &str,
    overrides: &Overrides,
    files: keepalived::Files<'_>,
) -> Result<(Converted, Configuration), ConfigErrors> {
    let imported = Imported::of(format, name, path, text, &overrides.config_id, files)?;
    let (mut draft, places, mut configuration) = imported.configuration(name, overrides)?;
    marks::add(name, overrides.marks.as_ref(), &mut configuration)?;
    override_director(&mut draft.director, overrides);
    draft.tables.splice(0..0, mark_tables(overrides, &configuration));
    let text = draft.render(|at| places.shown(at)).0;
    Ok((Converted { text, warnings: configuration.warnings.clone() }, configuration))
}

/// Converts the pair of directors of a file of Piranha's to a configuration of keepalived.
///
/// # Errors
/// When it can't be read, is wrong, or describes no pair.
pub(crate) fn to_keepalived_vrrp(path: &Path, role: Role) -> Result<Converted, ConfigErrors> {
    let (name, text, format) = super::read_file(path)?;
    if format != Format::LvsCf {
        let message = "is no lvs.cf, allowed: one, as only that describes a pair of directors otherwise than keepalived";
        return Err(ConfigErrors::of_file(&name, message.to_owned()));
    }
    text_to_keepalived_vrrp(&name, &text, role)
}

/// Converts the pair of directors of a text of Piranha's.
///
/// # Errors
/// When it is wrong, or describes no pair.
pub(crate) fn text_to_keepalived_vrrp(name: &str, text: &str, role: Role) -> Result<Converted, ConfigErrors> {
    lvs_cf::read(name, text)?.vrrp(name, role)
}

fn override_director(director: &mut Table, overrides: &Overrides) {
    match overrides.interfaces.as_slice() {
        [] => {}
        names => {
            director.remove(&["interface", "interfaces"]);
            match names {
                [name] => director.key("interface", Value::shown(name), None),
                names => {
                    director.key("interfaces", Value::List(names.iter().map(Value::shown).collect()), None)
                }
            }
        }
    }
    if overrides.marks == Some(MarksFrom::Iptables) {
        director.key("marks", "iptables", None);
    }
}

fn mark_tables(overrides: &Overrides, configuration: &Configuration) -> Vec<Table> {
    let Some(MarksFrom::Script(script)) = &overrides.marks else { return Vec::new() };
    let mut from = Some(script.display().to_string());
    configuration.host_marks.iter().map(|rule| marks::table(rule, from.take())).collect()
}
