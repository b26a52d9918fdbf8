//! Settings and timeouts: the file's values, and those that tools gave.
//!
//! The file owns a value that it declares: one that is not the default, or that differs from what it said before. Any other
//! value that a tool gave stays.

use std::sync::Arc;
use std::time::Duration;

use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::overload::{SourceLimit, SourceRate, WhenFull};
use xlvs_dataplane::settings::{SettingError, Settings};

use super::spec::MAX_TIMEOUT_S;
use super::{Registry, RegistryError};

/// New timeouts in seconds; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeoutsChange {
    /// ESTABLISHED.
    pub tcp_s: Option<u32>,
    /// FIN_WAIT.
    pub tcp_fin_s: Option<u32>,
    /// UDP.
    pub udp_s: Option<u32>,
}

/// Whether what the file says now, after what it said before, is the file's word.
fn is_declared<T: PartialEq>(before: Option<T>, now: T, default: T) -> bool {
    now != default || before.is_some_and(|before| before != now)
}

impl Registry {
    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The timeouts.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Says what becomes of new flows in a full table, and how many connections a source may open; what sources have opened so far
    /// counts while that stays the same.
    pub(crate) fn set_overload(&mut self, when_full: WhenFull, rate: Option<SourceRate>) {
        self.when_full = when_full;
        if self.source_limit.as_ref().map(|limit| limit.rate()) != rate {
            self.source_limit = rate.map(|rate| Arc::new(SourceLimit::new(rate, self.seed)));
        }
    }

    /// Changes a setting.
    ///
    /// # Errors
    /// When there is no such setting, or the value is out of its bounds.
    pub fn set_setting(&mut self, name: &str, value: u32) -> Result<(), RegistryError> {
        let known = Settings::BOUNDS.iter().find(|(its, ..)| *its == name);
        let (known, ..) = known.ok_or_else(|| RegistryError::NoSuchSetting(name.to_owned()))?;
        self.settings.set(known, value).map_err(|source| match source {
            SettingError::Unknown => RegistryError::NoSuchSetting(name.to_owned()),
            source @ SettingError::OutOfBounds { .. } => {
                RegistryError::SettingOutOfBounds { name: name.to_owned(), value, source }
            }
        })?;
        self.settings_of_tools.insert(known);
        Ok(())
    }

    /// Changes timeouts, for packets from now on.
    ///
    /// # Errors
    /// When one is 0 or longer than 31 days; then none is changed.
    pub fn set_timeouts(&mut self, change: TimeoutsChange) -> Result<(), RegistryError> {
        for (what, seconds) in [("tcp", change.tcp_s), ("tcp_fin", change.tcp_fin_s), ("udp", change.udp_s)] {
            if let Some(found) = seconds.filter(|&s| s == 0 || u64::from(s) > MAX_TIMEOUT_S) {
                let allowed = format!("1 to {MAX_TIMEOUT_S} seconds");
                return Err(RegistryError::Invalid { what, found: found.to_string(), allowed });
            }
        }
        let tools = &mut self.timeouts_of_tools;
        for (change, place, tool) in [
            (change.tcp_s, &mut self.timeouts.tcp, &mut tools.tcp_s),
            (change.tcp_fin_s, &mut self.timeouts.tcp_fin, &mut tools.tcp_fin_s),
            (change.udp_s, &mut self.timeouts.udp, &mut tools.udp_s),
        ] {
            if let Some(seconds) = change {
                *place = Duration::from_secs(seconds.into());
                *tool = change;
            }
        }
        Ok(())
    }

    /// Takes over what the file says of settings and timeouts.
    pub(super) fn apply_settings(&mut self, settings: Settings, timeouts: Timeouts) {
        let before = self.file.replace((settings, timeouts));
        let default = Settings::default();
        for &(name, ..) in Settings::BOUNDS {
            let now = settings.get(name);
            let was = before.map(|(before, _)| before.get(name));
            let tools = self.settings_of_tools.contains(name) && !is_declared(was, now, default.get(name));
            if let Some(value) = now.filter(|_| !tools) {
                self.settings_of_tools.remove(name);
                // The value comes out of settings, so its name and bounds are right.
                let _ = self.settings.set(name, value);
            }
        }
        let (was, tools) = (before.map(|(_, before)| before), &mut self.timeouts_of_tools);
        let default = Timeouts::default();
        for (place, tool, was, now, default) in [
            (&mut self.timeouts.tcp, &mut tools.tcp_s, was.map(|was| was.tcp), timeouts.tcp, default.tcp),
            (
                &mut self.timeouts.tcp_fin,
                &mut tools.tcp_fin_s,
                was.map(|was| was.tcp_fin),
                timeouts.tcp_fin,
                default.tcp_fin,
            ),
            (&mut self.timeouts.udp, &mut tools.udp_s, was.map(|was| was.udp), timeouts.udp, default.udp),
        ] {
            if tool.is_none() || is_declared(was, now, default) {
                *tool = None;
                *place = now;
            }
        }
    }
}
