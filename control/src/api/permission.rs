//! Who may use the control socket, and for what. The daemon's own user and root may do everything. A group of users may be given
//! the same, a second one may ask and change nothing; nobody else is answered.
//!
//! A client is who the kernel says it is (SO_PEERCRED): a user, and the group that its process runs with. The other groups of that
//! user are those of the group database. As a file's mode knows one group only, the socket is open to all as soon as there is a
//! group that may only ask, and the daemon turns away whom it doesn't serve.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio_seqpacket::UCred;

use super::ipvs::Access;
use crate::config::GroupName;

/// Who may use the socket besides the daemon's user and root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permissions {
    /// May do everything.
    full: Option<Gid>,
    /// May ask.
    read: Option<Gid>,
}

/// A group that isn't there.
#[derive(Debug, thiserror::Error)]
#[error(
    "{key}: found {name:?}, which is no group of this host ({cause}); `getent group` lists them, and a number is taken too"
)]
pub(crate) struct NoSuchGroup {
    key: &'static str,
    name: String,
    cause: String,
}

impl Permissions {
    /// Those that the configuration names.
    ///
    /// # Errors
    /// When there is no such group.
    pub(crate) fn of(full: Option<&GroupName>, read: Option<&GroupName>) -> Result<Self, NoSuchGroup> {
        let gid = |key, name: Option<&GroupName>| name.map(|name| gid(key, name)).transpose();
        Ok(Self { full: gid("socket_group", full)?, read: gid("socket_read_group", read)? })
    }

    /// Lets those connect who may, and with `read` everybody.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn apply(self, socket: &Path) -> io::Result<()> {
        if let Some(group) = self.full {
            chown(socket, None, Some(group.as_raw()))?;
        }
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(self.mode()))
    }

    fn mode(self) -> u32 {
        match self {
            Self { full: None, read: None } => 0o600,
            Self { full: Some(_), read: None } => 0o660,
            Self { read: Some(_), .. } => 0o666,
        }
    }

    /// Whether it is the daemon's own user, or root.
    pub(super) fn is_owner(user: &UCred) -> bool {
        let uid = Uid::from_raw(user.uid());
        uid.is_root() || uid == Uid::effective()
    }

    /// What another may do; `None`: nothing. Asks the group database, which may take its time.
    pub(super) fn of_user(self, user: &UCred) -> Option<Access> {
        self.of_groups(&groups(user))
    }

    fn of_groups(self, groups: &[Gid]) -> Option<Access> {
        let has = |group: Option<Gid>| group.is_some_and(|group| groups.contains(&group));
        if has(self.full) {
            Some(Access::Full)
        } else if has(self.read) {
            Some(Access::ReadOnly)
        } else {
            None
        }
    }
}

fn gid(key: &'static str, name: &GroupName) -> Result<Gid, NoSuchGroup> {
    let text = name.as_str();
    if let Ok(number) = text.parse() {
        return Ok(Gid::from_raw(number));
    }
    let refused = |cause| NoSuchGroup { key, name: text.to_owned(), cause };
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(refused("the group database has none of that name".to_owned())),
        Err(error) => Err(refused(format!("the group database can't be read: {error}"))),
    }
}

/// The groups of a client: the one that it runs with, and those that the database gives to its user.
fn groups(client: &UCred) -> Vec<Gid> {
    let mut groups = vec![Gid::from_raw(client.gid())];
    if let Ok(Some(user)) = User::from_uid(Uid::from_raw(client.uid())) {
        let listed = CString::new(user.name).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
        groups.extend(listed.unwrap_or_default());
    }
    groups
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn permissions(full: Option<&str>, read: Option<&str>) -> Result<Permissions, NoSuchGroup> {
        let name = |text: &str| text.parse::<GroupName>().unwrap();
        Permissions::of(full.map(name).as_ref(), read.map(name).as_ref())
    }

    #[test]
    fn each_group_may_what_it_was_given() {
        let both = permissions(Some("1001"), Some("1002")).unwrap();
        let of = |gids: &[u32]| both.of_groups(&gids.iter().copied().map(Gid::from_raw).collect::<Vec<_>>());
        assert_eq!(of(&[1000, 1001]), Some(Access::Full));
        assert_eq!(of(&[1002, 1000]), Some(Access::ReadOnly));
        assert_eq!(of(&[1002, 1001]), Some(Access::Full));
        assert_eq!(of(&[1000]), None);
        assert_eq!(Permissions::default().of_groups(&[Gid::from_raw(0)]), None);
    }

    #[test]
    fn the_file_lets_in_who_may_be_served_and_no_more_without_need() {
        let mode = |full, read| permissions(full, read).unwrap().mode();
        assert_eq!(mode(None, None), 0o600);
        assert_eq!(mode(Some("1001"), None), 0o660);
        assert_eq!(mode(None, Some("1001")), 0o666);
        assert_eq!(mode(Some("1001"), Some("1002")), 0o666);
    }

    #[test]
    fn groups_are_found_by_name_and_a_wrong_one_is_told() {
        assert_eq!(permissions(Some("root"), None).unwrap(), permissions(Some("0"), None).unwrap());
        let error = permissions(None, Some("no-such-group")).unwrap_err().to_string();
        assert!(
            error.starts_with("socket_read_group: found \"no-such-group\", which is no group"),
            "{error}"
        );
    }

    #[test]
    fn a_users_groups_are_those_it_runs_with_and_those_of_the_database() {
        let roots = groups(&UCred::new(0, 4711, 1));
        assert!(roots.contains(&Gid::from_raw(4711)) && roots.contains(&Gid::from_raw(0)), "{roots:?}");
        assert_eq!(groups(&UCred::new(3_999_999_999, 4711, 1)), [Gid::from_raw(4711)]);
    }
}
