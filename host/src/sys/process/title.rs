//! Process titles: what `ps` shows.
//!
//! *Runs in:* every process; `prepare` at the very start of `main()`. *Never:* allocates after `prepare`, touches more than the title's own page.
//!
//! The kernel shows the memory in which `exec` put the arguments, and after them the environment:
//! ```text
//! [ arg \0 arg \0 ... arg \0 ][ NAME=value \0 NAME=value \0 ... ]
//!   ^ start           args_end ^            ^ end: as much of it as a title may use
//! ```
//! What stands before `end` is moved to the heap, then titles may overwrite it.

use crate::error::{Error, Result};
use crate::sys::fast_fork::child_calls;
use crate::sys::process::environment::require_one_thread;
use std::ffi::{CStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The longest title with its NUL.
pub const TITLE_BYTES: usize = 256;
/// The longest short name with its NUL: the kernel's TASK_COMM_LEN.
const COMM_BYTES: usize = 16;
/// The kernel's limit for arguments and environment: a quarter of the stack, at most 6 MiB; twice
/// that leaves room for the lists.
const EXEC_AREA_MAX_BYTES: usize = 12 << 20;

/// Makes room for titles. `std::env` and C's `getenv` work on as before.
///
/// # Errors
/// There are threads already, the environment was changed before, or there are no arguments: titles then stay as they are.
pub fn prepare() -> Result<()> {
    if AREA.get().is_some() {
        return Ok(());
    }
    // A library that was loaded before the program may have started one.
    require_one_thread()?;
    // SAFETY: there is one thread, and nothing has changed the strings: `find_argv` checks it.
    let area = unsafe { move_strings_away() }?;
    AREA.get_or_init(|| area);
    Ok(())
}

/// Shows `title` for this process, cut to what fits. Nothing happens before `prepare`.
pub fn set_title(title: &str) {
    let Some(area) = AREA.get() else { return };
    let bytes = area.bytes();
    let text = title.as_bytes();
    let text = &text[..text.len().min(bytes.len() - 1)];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    for (place, byte) in bytes.iter().zip(text[..end].iter().copied().chain(std::iter::repeat(0))) {
        place.store(byte, Relaxed);
    }
    // A last argument byte other than NUL tells the kernel that this is a title and ends at its first NUL; else it would show
    // the whole argument area. A title that ends exactly there needs no mark. Only written when needed: it may be in another page.
    let mark = area.mark();
    if area.start + end < area.args_end - 1 && mark.load(Relaxed) == 0 {
        mark.store(b' ', Relaxed);
    }
}

/// A short name (`ps -o comm`, `top`, the kernel's messages). Made before a fork, so that the child has nothing to copy together.
#[derive(Debug, Clone, Copy)]
pub struct Comm([u8; COMM_BYTES]);

impl Comm {
    /// Cut to 15 bytes, and before a NUL.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; COMM_BYTES];
        for (place, byte) in bytes[..COMM_BYTES - 1].iter_mut().zip(name.bytes().take_while(|byte| *byte != 0)) {
            *place = byte;
        }
        Self(bytes)
    }

    /// Makes it that of this process.
    ///
    /// # Errors
    /// That of `prctl`.
    pub fn show(&self) -> Result<()> {
        child_calls::set_comm(&self.0).map_err(|errno| Error::failed("cannot set the process name").detail(errno))
    }
}

static AREA: OnceLock<Area> = OnceLock::new();

/// Memory that titles own after `prepare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    start: usize,
    args_end: usize,
    end: usize,
}

impl Area {
    fn bytes(&self) -> &'static [AtomicU8] {
        // SAFETY: start..end is inside the strings that exec put on the initial stack, mapped and writable for the process's life.
        // Only `prepare` makes an Area that is stored, after all pointers that C and std have into it were changed; the kernel only reads.
        // Atomics, because two threads may set titles.
        unsafe { std::slice::from_raw_parts(self.start as *const AtomicU8, self.end - self.start) }
    }

    fn mark(&self) -> &'static AtomicU8 {
        // SAFETY: as in `bytes`; the last byte of the argument area belongs to an argument that was moved.
        unsafe { AtomicU8::from_ptr((self.args_end - 1) as *mut u8) }
    }
}

/// The strings from the first one on that follow each other without a gap: where they end.
fn end_of_run(start: usize, strings: impl Iterator<Item = (usize, usize)>) -> usize {
    strings.fold(start, |end, (at, bytes)| if at == end { end + bytes } else { end })
}

impl Area {
    /// The arguments, and the environment if it follows them directly, as the kernel demands too.
    fn of(arguments: &[Pointer], variables: &[Pointer]) -> Result<Self> {
        let start = arguments.first().ok_or_else(|| cannot().detail("the program was started without its name"))?.string.addr();
        let args_end = end_of_run(start, arguments.iter().map(Pointer::extent));
        let all_end = end_of_run(args_end, variables.iter().map(Pointer::extent));
        Ok(Self { start, args_end, end: all_end.min(start.saturating_add(TITLE_BYTES)) })
    }
}

/// The argument list that `exec` put on the stack, right before the environment's list.
///
/// The kernel puts the strings after both lists, and the program's path (`AT_EXECFN`) after the
/// strings; all of it is at most [`EXEC_AREA_MAX_BYTES`]. A list elsewhere was moved by `setenv`.
fn find_argv() -> Result<*mut *mut c_char> {
    // SAFETY: a plain read of libc's variable; no other thread writes it.
    let envp = unsafe { environ };
    // SAFETY: `getauxval` only reads what the kernel passed to this program.
    let path_addr = unsafe { libc::getauxval(libc::AT_EXECFN) } as usize;
    let argument_count = std::env::args_os().len();
    let before_env = (argument_count + 1) * size_of::<usize>();
    if path_addr.checked_sub(envp.addr()).is_none_or(|distance| distance > EXEC_AREA_MAX_BYTES) || argument_count == 0 {
        return Err(cannot().detail("the environment was changed before, or there are no arguments"));
    }
    let argv = envp.wrapping_byte_sub(before_env);
    // SAFETY: the lists are on the stack, argv right before environ, and the list ends with a null pointer.
    let (list, end) = unsafe { (pointers(argv), argv.add(argument_count).read()) };
    // SAFETY: each is a NUL-terminated string that exec made.
    let strings = list.iter().map(|pointer| unsafe { CStr::from_ptr(pointer.string) }.to_bytes());
    let is_argv = end.is_null() && strings.eq(std::env::args_os().collect::<Vec<_>>().iter().map(|argument| argument.as_bytes()));
    if is_argv { Ok(argv) } else { Err(cannot().detail("the arguments are not where exec put them")) }
}

/// Copies every argument, and every variable that begins inside the area, to memory that is never
/// freed, and points argv and environ there.
///
/// # Safety
/// No other thread exists, and the strings are as `exec` made them.
unsafe fn move_strings_away() -> Result<Area> {
    let argv = find_argv()?;
    // SAFETY: a plain read of libc's variable; no other thread writes it.
    let envp = unsafe { environ };
    // SAFETY: exec lays out argc, argv, NULL, environ, NULL in this order, and the check above found environ where it belongs; both lists are
    // NUL-terminated, writable, and outside the strings.
    let (mut arguments, mut variables) = unsafe { (pointers(argv), pointers(envp)) };
    let area = Area::of(&arguments, &variables)?;
    variables.retain(|pointer| pointer.string.addr() < area.end);
    arguments.retain(|pointer| (area.start..area.args_end).contains(&pointer.string.addr()));
    arguments.append(&mut variables);

    // SAFETY: each is a NUL-terminated string that exec made; nothing was overwritten yet.
    let strings = arguments.iter().map(|pointer| unsafe { CStr::from_ptr(pointer.string) }.to_bytes_with_nul());
    let copy = strings.collect::<Vec<_>>().concat().leak();
    let mut rest = copy;
    for pointer in arguments {
        let (string, after) = std::mem::take(&mut rest).split_at_mut(pointer.string_bytes);
        // SAFETY: a slot of argv or environ, writable; the new string has the same bytes and lives for ever.
        unsafe { pointer.slot.write(string.as_mut_ptr().cast()) };
        // libc's two names for this program point into the first argument.
        // SAFETY: plain variables of libc's, no other thread; an offset inside the old string is one inside the new.
        unsafe {
            for name in [&raw mut program_invocation_name, &raw mut program_invocation_short_name] {
                let offset = name.read().addr().wrapping_sub(pointer.string.addr());
                if offset < pointer.string_bytes {
                    name.write(string.as_mut_ptr().add(offset).cast());
                }
            }
        }
        rest = after;
    }
    Ok(area)
}

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
    static mut program_invocation_name: *mut c_char;
    static mut program_invocation_short_name: *mut c_char;
}

struct Pointer {
    slot: *mut *mut c_char,
    string: *mut c_char,
    /// With its NUL.
    string_bytes: usize,
}

impl Pointer {
    fn extent(&self) -> (usize, usize) {
        (self.string.addr(), self.string_bytes)
    }
}

/// # Safety
/// `list` is a readable array of pointers to C strings that ends with a null one.
unsafe fn pointers(list: *mut *mut c_char) -> Vec<Pointer> {
    (0..)
        .map(|index| list.wrapping_add(index))
        // SAFETY: no entry behind the null one is read, take_while stops the lazy map there.
        .map(|slot| (slot, unsafe { slot.read() }))
        .take_while(|(_, string)| !string.is_null())
        // SAFETY: a C string.
        .map(|(slot, string)| Pointer { slot, string, string_bytes: unsafe { CStr::from_ptr(string) }.count_bytes() + 1 })
        .collect()
}

fn cannot() -> Error {
    Error::failed("cannot set process titles")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn areas() {
        let strings = |extents: &[(usize, usize)]| -> Vec<Pointer> {
            let pointer =
                |(at, string_bytes)| Pointer { slot: std::ptr::null_mut(), string: std::ptr::without_provenance_mut(at), string_bytes };
            extents.iter().copied().map(pointer).collect()
        };
        let arguments = [(2000, 30), (2030, 10)];
        let area = |arguments: &[_], variables: &[_]| Area::of(&strings(arguments), &strings(variables)).ok();
        assert_eq!(area(&arguments, &[(2040, 900)]), Some(Area { start: 2000, args_end: 2040, end: 2000 + TITLE_BYTES }));
        assert_eq!(area(&arguments, &[(2040, 60), (2101, 9)]), Some(Area { start: 2000, args_end: 2040, end: 2100 }));
        assert_eq!(area(&arguments, &[(2050, 900)]), Some(Area { start: 2000, args_end: 2040, end: 2040 }));
        assert_eq!(area(&[(2000, 30), (9000, 10)], &[(2030, 900)]), Some(Area { start: 2000, args_end: 2030, end: 2000 + TITLE_BYTES }));
        assert_eq!(area(&[], &[(2050, 900)]), None);
    }

    /// Titles need a process with one thread, and the harness has more: this program again, caught before its `main`.
    #[test]
    fn titles_of_any_length_show_and_the_environment_survives() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["run", "-c", "modhost.toml"])
            .env_clear()
            .envs([("FIRST", "1"), ("LONG", &*"x".repeat(3000)), ("NOTIFY_SOCKET", "/run/x"), (ALONE, "2")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout == b"all well\n", "{text}");
    }

    const ALONE: &str = "MODHOST_TITLE_TEST";

    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEFORE_MAIN: extern "C" fn() = {
        extern "C" fn before_main() {
            if std::env::var_os(ALONE).is_some() {
                in_a_process_of_its_own();
                println!("all well");
                std::process::exit(0);
            }
        }
        before_main
    };

    fn in_a_process_of_its_own() {
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
        let args_end = AREA.get().unwrap().args_end - AREA.get().unwrap().start;
        for length in args_end.saturating_sub(2)..(args_end + 3).min(TITLE_BYTES) {
            set_title(&long[..length]);
            assert_eq!(shown(), long[..length]);
        }

        assert_eq!(std::env::args().collect::<Vec<_>>(), arguments);
        assert_eq!(std::env::var("FIRST").as_deref(), Ok("1"));
        assert_eq!(std::env::var("LONG").map(|value| value.len()), Ok(3000));
        assert_eq!(std::env::var(ALONE).as_deref(), Ok("2"));
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
}
