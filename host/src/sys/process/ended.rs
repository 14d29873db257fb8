//! Whether a process is gone: dead, though its parent may not have asked for its status yet.
//!
//! *Runs in:* a process that was told of the death of another one. *Never:* waits.

/// Whether no instruction of that process will run any more. False if that cannot be told.
pub fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state stands behind the name, which may contain anything but is in parentheses.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_here_and_a_finished_one_is_gone() {
        assert!(!has_ended(std::process::id() as i32));
        let mut child = std::process::Command::new("true").stdin(std::process::Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        // Not asked for its status yet: it ends some time.
        while !has_ended(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(has_ended(pid));
    }
}
