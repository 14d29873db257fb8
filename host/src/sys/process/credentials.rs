//! Users, groups, and giving up the starting identity for good.
//!
//! *Runs in:* supervisor (look-ups), main (the drop). *Never:* leaves a way back.

use std::ffi::CString;

use nix::sys::prctl;
use nix::unistd::{self, Gid, Group, Uid, User};

use crate::error::{Error, Result};

/// The user and group that main and all its children run as.
#[derive(Debug, Clone)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    /// For `initgroups`. None if only a number is known; then there are no supplementary groups.
    pub name: Option<CString>,
}

/// The id that `setresuid` and `setresgid` take as "leave unchanged".
const NOBODY: u32 = u32::MAX;

fn unusable(kind: &str, name: &str) -> Error {
    Error::config(format!("nobody can be {kind} \"{name}\"")).detail(format!("host.{kind}: the number {NOBODY} means no {kind}"))
}

/// Whether this process may change its identity.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Looks up the configured user and its group, by name or number.
pub fn identity(user: &str) -> Result<Identity> {
    let entry = User::from_name(user).map_err(|errno| Error::failed(format!("cannot look up user \"{user}\"")).detail(errno))?;
    let (uid, gid, name) = match (entry, user.parse::<u32>()) {
        (Some(entry), _) => (entry.uid, entry.gid, CString::new(entry.name).ok()),
        (None, Ok(NOBODY)) => return Err(unusable("user", user)),
        (None, Ok(number)) => match User::from_uid(Uid::from_raw(number)) {
            Ok(Some(entry)) => (entry.uid, entry.gid, CString::new(entry.name).ok()),
            _ => (Uid::from_raw(number), Gid::from_raw(number), None),
        },
        (None, Err(_)) => {
            return Err(Error::config(format!("unknown user \"{user}\""))
                .detail("host.user: the user database has no such name")
                .hint("create the user, or name an existing one"));
        }
    };
    Ok(Identity { uid, gid, name })
}

/// The user of this process, with another group.
pub fn own_identity(gid: Gid) -> Identity {
    let uid = Uid::current();
    let name = User::from_uid(uid).ok().flatten().and_then(|entry| CString::new(entry.name).ok());
    Identity { uid, gid, name }
}

/// Looks up a group by name or number.
pub fn group_id(group: &str) -> Result<Gid> {
    match (Group::from_name(group), group.parse::<u32>()) {
        (Ok(Some(entry)), _) => Ok(entry.gid),
        (_, Ok(NOBODY)) => Err(unusable("group", group)),
        (_, Ok(number)) => Ok(Gid::from_raw(number)),
        (Err(errno), _) => Err(Error::failed(format!("cannot look up group \"{group}\"")).detail(errno)),
        (Ok(None), Err(_)) => Err(Error::config(format!("unknown group \"{group}\""))
            .detail("host.group: the group database has no such name")
            .hint("create the group, or name an existing one")),
    }
}

/// Takes on that identity, with its supplementary groups or none, and checks that the old one
/// cannot be taken back.
pub fn give_up_privileges(identity: &Identity) -> Result<()> {
    let failed = |call: &str, errno: nix::errno::Errno| {
        Error::failed(format!("cannot become user {} group {}", identity.uid, identity.gid)).detail(format!("{call}: {errno}"))
    };
    match &identity.name {
        Some(name) => unistd::initgroups(name, identity.gid).map_err(|errno| failed("initgroups", errno))?,
        None => unistd::setgroups(&[]).map_err(|errno| failed("setgroups", errno))?,
    }
    unistd::setresgid(identity.gid, identity.gid, identity.gid).map_err(|errno| failed("setresgid", errno))?;
    unistd::setresuid(identity.uid, identity.uid, identity.uid).map_err(|errno| failed("setresuid", errno))?;
    if !identity.uid.is_root() && unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(Error::fault("the starting identity could be taken back after it was given up"));
    }
    // The change made this process and its children undumpable: stacks, cores and memory figures
    // would be unreadable.
    prctl::set_dumpable(true).map_err(|errno| failed("prctl(PR_SET_DUMPABLE)", errno))
}
