//! Process titles: what `ps` and `top` show.
//!
//! *Runs in:* every process; `prepare` at the very start of `main()`. *Never:* allocates after
//! `prepare`, writes to a page that does not hold the title.
//!
//! `ps` reads the memory in which `exec` put the arguments and, directly after them, the
//! environment:
//!
//! ```text
//! [ argc | argv | NULL | environ | NULL ][ arg \0 arg \0 | NAME=value \0 ... ][ path \0 ]
//!                                         ^ start          ^ args_end            ^ AT_EXECFN
//! ```
//!
//! [`prepare`] copies the strings that a title may overwrite and points argv and environ to the
//! copy.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::sys::fast_fork::child_calls;
use crate::sys::process::environment::require_one_thread;

/// The longest title with its NUL.
pub const TITLE_BYTES: usize = 256;
/// The longest short name with its NUL: the kernel's TASK_COMM_LEN.
const COMM_BYTES: usize = 16;
/// The kernel's limit for arguments and environment: a quarter of the stack, at most 6 MiB; twice
/// that leaves room for the lists.
const EXEC_AREA_MAX_BYTES: usize = 12 << 20;

static TITLE: OnceLock<TitleArea> = OnceLock::new();

/// Makes room for titles. `std::env` and C's `getenv` work as before.
///
/// # Errors
/// There is a second thread, the environment was moved before (a preloaded library may call
/// `setenv`), or there are no arguments. Titles then stay as they are.
pub fn prepare() -> Result<()> {
    if TITLE.get().is_some() {
        return Ok(());
    }
    // A library that was loaded before the program may have started a thread.
    require_one_thread()?;
    // SAFETY: there is one thread.
    let area = unsafe { move_strings(std::env::args_os().len()) }?;
    TITLE.get_or_init(|| area);
    Ok(())
}

/// Makes this the title of this process, cut to what fits. Does nothing before `prepare`.
pub fn set_title(title: &str) {
    let Some(area) = TITLE.get() else { return };
    let bytes = area.bytes();
    let text = title.as_bytes();
    let text = &text[..text.len().min(bytes.len() - 1)];
    let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    for (place, byte) in bytes.iter().zip(text[..length].iter().copied().chain(std::iter::repeat(0))) {
        place.store(byte, Relaxed);
    }
    // If the last byte of the arguments is not NUL, the kernel takes the area for a title that ends
    // at its first NUL; otherwise it shows the whole argument area. A title that reaches that byte
    // needs no mark. Written only when needed: it may be in another page.
    let mark = area.mark();
    if area.start + length < area.args_end - 1 && mark.load(Relaxed) == 0 {
        mark.store(b' ', Relaxed);
    }
}

/// A short name (`ps -o comm`, `top`, kernel messages). Made before a fork, so that the child only
/// passes it to the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Comm([u8; COMM_BYTES]);

impl Comm {
    /// Cut to 15 bytes, and at a NUL.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; COMM_BYTES];
        for (place, byte) in bytes[..COMM_BYTES - 1].iter_mut().zip(name.bytes().take_while(|byte| *byte != 0)) {
            *place = byte;
        }
        Self(bytes)
    }

    /// Makes it the name of this process.
    ///
    /// # Errors
    /// That of `prctl`.
    pub fn show(&self) -> Result<()> {
        child_calls::set_comm(&self.0).map_err(|errno| Error::failed("cannot set the process name").detail(errno))
    }
}

/// Memory that titles may overwrite after `prepare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TitleArea {
    start: usize,
    /// End of the arguments. May be past `end`.
    args_end: usize,
    /// End of the part that a title may use.
    end: usize,
}

impl TitleArea {
    fn bytes(&self) -> &'static [AtomicU8] {
        // SAFETY: start..end lies in the strings that exec put on the initial stack, mapped and
        // writable for the process's life. `move_strings` has changed every pointer of C and std
        // into it; the kernel only reads. Atomics, because two threads may set titles.
        unsafe { std::slice::from_raw_parts(self.start as *const AtomicU8, self.end - self.start) }
    }

    fn mark(&self) -> &'static AtomicU8 {
        // SAFETY: as in `bytes`: the last byte of the arguments, which were moved.
        unsafe { AtomicU8::from_ptr((self.args_end - 1) as *mut u8) }
    }
}

/// Copies every argument, and every variable that a title may overwrite, to memory that is never
/// freed, and points argv, environ and libc's two names of the program to the copies.
///
/// # Safety
/// No other thread exists.
unsafe fn move_strings(argument_count: usize) -> Result<TitleArea> {
    // SAFETY: a plain read of libc's variable; no other thread writes it. `getauxval` only reads.
    let (envp, path) = unsafe { (environ, libc::getauxval(libc::AT_EXECFN) as usize) };
    // SAFETY: libc's variable points to a list.
    let argv = unsafe { find_argv(envp, argument_count, path) }.ok_or_else(|| {
        Error::failed("cannot set process titles").detail("the environment was changed before, or there are no arguments")
    })?;
    // SAFETY: `find_argv` has checked this list of `argument_count` strings, at least one.
    let (start, last) = unsafe { (argv.read(), argv.add(argument_count - 1).read()) };
    // SAFETY: a NUL-terminated string that exec made.
    let args_end = last.addr() + unsafe { CStr::from_ptr(last) }.count_bytes() + 1;
    let area = TitleArea { start: start.addr(), args_end, end: path.min(start.addr() + TITLE_BYTES) };

    // The last string that a title may touch is copied to its end.
    // SAFETY: the bytes before `path` are strings of exec; the last of them ends with a NUL.
    let cut = unsafe { CStr::from_ptr(start.add(area.end - 1 - area.start)) }.count_bytes();
    let copied_bytes = args_end.max(area.end + cut) - area.start;
    // SAFETY: from the first argument to the end of a later string, all made by exec and not
    // overwritten yet.
    let copy = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), copied_bytes) }.to_vec().leak().as_mut_ptr();
    let redirect = |pointer: *mut *mut c_char| {
        // SAFETY: an entry of argv or environ, or a variable of libc; no other thread uses it. The
        // new string has the same bytes and lives for ever.
        unsafe {
            let offset = pointer.read().addr().wrapping_sub(area.start);
            if offset < copied_bytes {
                pointer.write(copy.add(offset).cast());
            }
        }
    };
    (0..argument_count).for_each(|index| redirect(argv.wrapping_add(index)));
    // SAFETY: entries up to the first null one are read: the list ends there.
    (0..).map(|index| envp.wrapping_add(index)).take_while(|entry| unsafe { !entry.read().is_null() }).for_each(redirect);
    redirect(&raw mut program_invocation_name);
    redirect(&raw mut program_invocation_short_name);
    Ok(area)
}

/// Finds the argument list that `exec` put on the stack, directly before that of the environment.
///
/// None if `envp` is elsewhere: after a `setenv`, glibc keeps the list on the heap. None, too, if
/// the words before it are not the argument count, that many strings between list and `path`, and
/// NULL.
///
/// # Safety
/// `envp` is null or points to a list. `path` is AT_EXECFN.
unsafe fn find_argv(envp: *mut *mut c_char, argument_count: usize, path: usize) -> Option<*mut *mut c_char> {
    let is_on_stack = path.checked_sub(envp.addr()).is_some_and(|distance| distance <= EXEC_AREA_MAX_BYTES);
    if !is_on_stack || argument_count == 0 {
        return None;
    }
    let argv = envp.wrapping_sub(argument_count + 1);
    // SAFETY: `envp` lies in the initial stack, below the program's path. What precedes a list
    // there is mapped: the kernel extends the stack on demand.
    let words = unsafe { std::slice::from_raw_parts(argv.wrapping_sub(1), argument_count + 2) };
    let [count, arguments @ .., end] = words else { return None };
    let strings = envp.addr()..path;
    let is_argv = count.addr() == argument_count
        && end.is_null()
        && arguments.iter().all(|argument| strings.contains(&argument.addr()))
        && arguments.is_sorted();
    is_argv.then_some(argv)
}

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
    static mut program_invocation_name: *mut c_char;
    static mut program_invocation_short_name: *mut c_char;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Titles need a process with one thread, and the harness has more. So this program is started
    /// again, and [`BEFORE_MAIN`] runs the test before its `main`.
    fn in_another_process(test: &str, arguments: &[&str]) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env_clear()
            .envs([("FIRST", "1"), ("LONG", &*"x".repeat(3000)), ("NOTIFY_SOCKET", "/run/x"), (TEST, test)])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout == b"all well\n", "{text}");
    }

    #[test]
    fn titles_of_any_length_show_and_the_environment_survives() {
        in_another_process("titles", &["run", "-c", "modhost.toml"]);
        in_another_process("titles", &["run", "-c", &"long/".repeat(100)]);
    }

    #[test]
    fn an_environment_that_was_moved_is_refused() {
        in_another_process("moved", &["run"]);
    }

    const TEST: &str = "MODHOST_TITLE_TEST";

    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEFORE_MAIN: extern "C" fn() = {
        extern "C" fn before_main() {
            match std::env::var(TEST).as_deref() {
                Ok("titles") => titles(),
                Ok("moved") => moved(),
                _ => return,
            }
            println!("all well");
            std::process::exit(0);
        }
        before_main
    };

    fn titles() {
        let shown = || {
            let bytes = std::fs::read("/proc/self/cmdline").unwrap();
            String::from_utf8(bytes).unwrap().trim_end_matches('\0').to_string()
        };
        let arguments: Vec<_> = std::env::args().collect();
        set_title("too early");
        assert_eq!(shown().split('\0').collect::<Vec<_>>(), arguments);
        prepare().unwrap();
        assert_eq!(shown().split('\0').collect::<Vec<_>>(), arguments);

        let long = "modhost: worker 3 udp [2001:db8::1]:5060 ".repeat(20);
        for title in ["m", "modhost: worker 3 udp 127.0.0.1:5060", &long, "short again", &long[..200], "", "end"] {
            set_title(title);
            assert_eq!(shown(), title[..title.len().min(TITLE_BYTES - 1)], "{title}");
        }
        let args_end = TITLE.get().unwrap().args_end - TITLE.get().unwrap().start;
        for length in args_end.saturating_sub(2)..(args_end + 3).min(TITLE_BYTES) {
            set_title(&long[..length]);
            assert_eq!(shown(), long[..length]);
        }

        assert_eq!(std::env::args().collect::<Vec<_>>(), arguments);
        assert_eq!(std::env::var("FIRST").as_deref(), Ok("1"));
        assert_eq!(std::env::var("LONG").map(|value| value.len()), Ok(3000));
        assert_eq!(std::env::var(TEST).as_deref(), Ok("titles"));
        // SAFETY: libc's variable points to a NUL-terminated string.
        let name = unsafe { CStr::from_ptr(program_invocation_name) };
        assert_eq!(name.to_str().ok(), arguments.first().map(String::as_str));

        // The environment can be changed as before.
        assert_eq!(crate::sys::process::environment::take("NOTIFY_SOCKET").unwrap().unwrap(), "/run/x");
        assert_eq!(crate::sys::process::environment::take("NOTIFY_SOCKET").unwrap(), None);
        assert_eq!(
            Command::new("/usr/bin/env").output().unwrap().stdout.iter().filter(|byte| **byte == b'\n').count(),
            std::env::vars().count()
        );

        Comm::new("modhost-w3 and more than fits").show().unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/comm").unwrap(), "modhost-w3 and \n");
        prepare().unwrap();
    }

    fn moved() {
        let path = program_path();
        // SAFETY: each list is readable where `find_argv` looks, and there is one thread.
        unsafe {
            assert!(find_argv(environ, std::env::args_os().len(), path).is_some());
            assert!(find_argv(environ, std::env::args_os().len() + 1, path).is_none(), "another count");
            assert!(find_argv(environ, 0, path).is_none(), "no arguments");
            assert!(find_argv(std::ptr::null_mut(), 1, path).is_none(), "no environment");
            // A list on the stack, after words that are no strings.
            let mut words: [*mut c_char; 6] = [1, 2, 8, 16, 0, 0].map(std::ptr::without_provenance_mut);
            assert!(find_argv(&raw mut words[5], 2, path).is_none(), "not the list of exec");
            words[2] = environ.read();
            assert!(find_argv(&raw mut words[5], 2, path).is_none(), "one string is not enough");
            std::env::set_var("SECOND", "2");
        }
        assert!(prepare().unwrap_err().to_string().contains("the environment was changed before"));
        set_title("not shown");
        assert_eq!(std::env::var("FIRST").as_deref(), Ok("1"));
    }

    fn program_path() -> usize {
        // SAFETY: only reads what the kernel passed to this program.
        unsafe { libc::getauxval(libc::AT_EXECFN) as usize }
    }
}
