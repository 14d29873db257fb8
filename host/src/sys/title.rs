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

use super::environ::require_one_thread;
use super::first;
use crate::error::{Error, Result};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The longest title with its NUL.
pub const TITLE_BYTES: usize = 256;
/// The longest short name with its NUL: the kernel's TASK_COMM_LEN.
const COMM_BYTES: usize = 16;

/// Makes room for titles. `std::env` and C's `getenv` work on as before.
///
/// # Errors
/// There are threads already, the environment was changed before, or `/proc` is not mounted: titles then stay as they are.
pub fn prepare() -> Result<()> {
    if AREA.get().is_some() {
        return Ok(());
    }
    require_one_thread()?;
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|error| cannot().detail(format_args!("/proc/self/stat: {error}")))?;
    let layout = Layout::parse(&stat).ok_or_else(|| cannot().detail("/proc/self/stat has no argument addresses"))?;
    let area = layout.area().ok_or_else(|| cannot().detail("the argument area is empty"))?;
    // SAFETY: this process has one thread, checked above, and the addresses are the kernel's own.
    unsafe { layout.move_strings_away(&area) }?;
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

/// Sets the short name (`ps -o comm`, `top`, the kernel's messages), cut to 15 bytes.
///
/// # Errors
/// That of `prctl`.
pub fn set_comm(name: &str) -> Result<()> {
    let mut bytes = [0; COMM_BYTES];
    for (place, byte) in bytes[..COMM_BYTES - 1].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    first::set_comm(name).map_err(|errno| Error::failed("cannot set the process name").detail(errno))
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

/// Addresses from `/proc/self/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Where argc stands; argv and environ follow.
    stack_start: usize,
    args: (usize, usize),
    env: (usize, usize),
}

impl Layout {
    fn parse(stat: &str) -> Option<Self> {
        // The second field is the name in parentheses, with whatever is in it; the third is the first after the last one.
        let (_, fields) = stat.rsplit_once(')')?;
        let number = |field: usize| fields.split_ascii_whitespace().nth(field - 3)?.parse().ok();
        Some(Self { stack_start: number(28)?, args: (number(48)?, number(49)?), env: (number(50)?, number(51)?) })
    }

    /// The arguments, and the environment if it follows them directly, as the kernel demands too.
    fn area(&self) -> Option<Area> {
        let (start, args_end) = self.args;
        let all_end = if self.env.0 == args_end && self.env.1 > args_end { self.env.1 } else { args_end };
        (self.stack_start > 0 && start > self.stack_start && args_end > start).then(|| Area {
            start,
            args_end,
            end: all_end.min(start.saturating_add(TITLE_BYTES)),
        })
    }

    /// Copies every argument, and every variable that begins inside the area, to memory that is never freed, and points argv and environ there.
    ///
    /// # Safety
    /// No other thread exists. The addresses are those of this process.
    unsafe fn move_strings_away(&self, area: &Area) -> Result<()> {
        let argument_count = std::env::args_os().len();
        let argv = (self.stack_start + size_of::<usize>()) as *mut *mut c_char;
        // SAFETY: a plain read of a variable of libc's; no other thread writes it.
        let envp = unsafe { environ };
        // Who called setenv before has moved environ, and maybe strings, to where this must not write.
        if envp.addr() != argv.addr() + (argument_count + 1) * size_of::<usize>() {
            return Err(cannot().detail("the environment was changed before"));
        }
        // SAFETY: exec lays out argc, argv, NULL, environ, NULL in this order from the stack's start, and the check above found argc and environ
        // where they belong; both lists are NUL-terminated, writable, and outside the strings.
        let mut arguments = unsafe { pointers(argv) };
        // SAFETY: as above.
        let mut variables = unsafe { pointers(envp) };
        variables.retain(|pointer| pointer.string.addr() < area.end);
        arguments.retain(|pointer| (area.start..area.args_end).contains(&pointer.string.addr()));
        arguments.append(&mut variables);

        // SAFETY: each is a NUL-terminated string that exec made; nothing was overwritten yet.
        let strings = arguments.iter().map(|pointer| unsafe { CStr::from_ptr(pointer.string) }.to_bytes_with_nul());
        let copy = strings.collect::<Vec<_>>().concat().leak();
        let mut rest = copy;
        for pointer in arguments {
            // SAFETY: the string is still as it was copied.
            let length = unsafe { CStr::from_ptr(pointer.string) }.count_bytes() + 1;
            let (string, after) = std::mem::take(&mut rest).split_at_mut(length);
            // SAFETY: a slot of argv or environ, writable; the new string has the same bytes and lives for ever.
            unsafe { pointer.slot.write(string.as_mut_ptr().cast()) };
            // libc's two names for this program point into the first argument.
            // SAFETY: plain variables of libc's, no other thread; an offset inside the old string is one inside the new.
            unsafe {
                for name in [&raw mut program_invocation_name, &raw mut program_invocation_short_name] {
                    let offset = name.read().addr().wrapping_sub(pointer.string.addr());
                    if offset < length {
                        name.write(string.as_mut_ptr().add(offset).cast());
                    }
                }
            }
            rest = after;
        }
        Ok(())
    }
}

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
    static mut program_invocation_name: *mut c_char;
    static mut program_invocation_short_name: *mut c_char;
}

struct Pointer {
    slot: *mut *mut c_char,
    string: *mut c_char,
}

/// # Safety
/// `list` is a readable array of pointers that ends with a null one.
unsafe fn pointers(list: *mut *mut c_char) -> Vec<Pointer> {
    (0..)
        .map(|index| {
            let slot = list.wrapping_add(index);
            // SAFETY: no entry behind the null one is read, take_while stops the lazy map there.
            Pointer { slot, string: unsafe { slot.read() } }
        })
        .take_while(|pointer| !pointer.string.is_null())
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
    fn layouts() {
        let field = |number| match number {
            28 => 1000,
            48 => 2000,
            49 | 50 => 2040,
            51 => 3000,
            other => other,
        };
        let stat = (4..=52).fold("7 (a ) 1 b) S".to_string(), |stat, number| format!("{stat} {}", field(number)));
        let layout = Layout::parse(&stat).unwrap();
        assert_eq!(layout, Layout { stack_start: 1000, args: (2000, 2040), env: (2040, 3000) });
        assert_eq!(layout.area(), Some(Area { start: 2000, args_end: 2040, end: 2000 + TITLE_BYTES }));
        assert_eq!(Layout { env: (2050, 3000), ..layout }.area(), Some(Area { start: 2000, args_end: 2040, end: 2040 }));
        assert_eq!(Layout { args: (0, 0), ..layout }.area(), None);
        assert_eq!(Layout::parse("7 (x) S 1"), None);
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
        assert_eq!(super::super::environ::take("NOTIFY_SOCKET").unwrap().unwrap(), "/run/x");
        assert_eq!(super::super::environ::take("NOTIFY_SOCKET").unwrap(), None);
        assert_eq!(
            Command::new("/usr/bin/env").output().unwrap().stdout.iter().filter(|byte| **byte == b'\n').count(),
            std::env::vars().count()
        );

        set_comm("modhost-w3 and more than fits").unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/comm").unwrap(), "modhost-w3 and \n");
        prepare().unwrap();
    }
}
