//! Tests with real shared objects, which the C compiler builds in many ways and which are then
//! damaged in many more.
//!
//! *Runs in:* `cargo test`; needs `cc`. *Never:* calls a function of what it builds.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::judge::HostAbi;
use super::*;
use crate::config::{Config, ModuleSource};

/// A module of ABI 1.0. It declares the structs itself, so that it stays one when the host's
/// structs grow.
const PROBE: &str = r#"
#include <stdint.h>
#include <stddef.h>
struct header { char magic[8]; uint16_t major, minor; uint32_t size, flags; uint16_t needs, reserved; const void *rust; };
struct param { const char *name; uint32_t kind, flags; void *target; const char *text; int64_t min, max; const char *help;
  const char *words; uint32_t of, reserved; };
struct handler { const char *name; uint32_t kind, reserved; const char *help; int (*on)(void *); const void *stream; };
struct depend { const char *name; uint32_t kind, reserved; };
struct interface { const char *name; uint16_t major, minor; uint32_t size; const void *table; const char *layout; };
struct bind { const char *name; uint16_t major, minor; uint32_t size, kind, reserved; void *slot; const char *layout; };
struct exports { struct header header; void *slot; const char *name, *version, *summary;
  const struct param *params; uint32_t param_count, param_stride;
  const struct handler *handlers; uint32_t handler_count, handler_stride;
  const struct depend *depends; uint32_t depend_count, depend_stride;
  int (*init)(void); int (*child)(int); void (*destroy)(void);
  const struct interface *interfaces; uint32_t interface_count, interface_stride;
  const struct bind *binds; uint32_t bind_count, bind_stride;
#ifdef MORE
  void *more[MORE];
#endif
};
static void *slot[4];
static const int fixed[8] = {1};
static int64_t limit; int64_t pause_ns; static struct { const char *p; size_t n; } text; static uint32_t quiet;
static uint32_t mode; static struct { const void *p; size_t n; } names; static struct { const void *p; size_t n; const void *k; } routes;
static const struct param params[] = {
  { "limit", KIND, 2, &limit, "10", 1, 100, "How many." },
  { "pause", 4, 2, &pause_ns, "1s", 0, 60000000000, 0 },
  { "text", 3, 1, &text, 0, 0, 0, "What to say." },
  { "quiet", 1, 0, &quiet, "false", 0, 0, 0 },
  { "mode", 7, 0, &mode, "any", 0, 0, "Which.", WORDS },
  { "names", 8, 0, &names, "", 0, 0, 0, 0, OF },
  { "routes", 9, 2, &routes, "a = 1KiB", 1, 4096, 0, 0, 5 },
};
static int on(void *b) { return b != 0; }
#ifdef MANY
__attribute__((used)) static const void *const before[MANY] = { [0 ... MANY - 1] = on };
#endif
int mod_init(void) { return (int)limit + fixed[0]; }
static const struct { uint32_t size, reserved; const void *functions[5]; } stream = { STREAM_BYTES, 0, { 0, ON_DATA } };
static const struct handler handlers[] = { { "main", 1, 0, "Serves.", on }, ALT };
static const struct depend depends[] = { { "base", 1, 0 }, { "log", 2, 0 } };
static const void *const table[2] = { on, mod_init };
static void *bound;
static const struct interface interfaces[] = { { "probe.first", 1, 2, sizeof table, TABLE, "f()->u32\ng()" }, { "probe.second", 2, 0, 8, table, 0 } };
static const struct bind binds[] = { { "base.calls", 1, 1, 16, 2, 0, BOUND, "h(str)" } };
#ifdef MANY
__attribute__((used)) static const void *const between[MANY] = { [0 ... MANY - 1] = on };
#endif
#ifndef NO_TABLE
CONSTANT struct exports module_exports = { { MAGIC, MAJOR, MINOR, SIZE, FLAGS, NEEDS, 0, 0 }, SLOT, NAME, "1.2", "Probes.",
  params, 7, STRIDE, handlers, 2, sizeof handlers[0], depends, 2, sizeof depends[0], mod_init, 0, 0,
  interfaces, OFFERS, sizeof interfaces[0], binds, 1, sizeof binds[0] };
#endif
#ifdef LIE
__attribute__((constructor)) static void lie(void) { LIE; }
#endif
#ifndef NO_NOTE
__attribute__((used, aligned(4), section(".note.modhost"))) static const struct { uint32_t n, d, t; char name[8];
  uint16_t major, minor, needs, reserved; uint32_t flags, size; char sdk[32], compiler[48]; } note =
  { 8, 96, 1, "modhost", MAJOR, MINOR, NEEDS, 0, FLAGS, 168, "modhost.h 1.0", "gcc" };
#endif
"#;

/// The macros of the probe. A build may define each of them differently.
const DEFAULTS: &str = r#"FLAGS=0; MAJOR=1; MINOR=0; NEEDS=0; MAGIC="MODHOST\1"; SIZE=sizeof(struct exports);
    CONSTANT=const; SLOT=slot; NAME="probe"; STRIDE=sizeof(struct param); KIND=2; OF=6; WORDS="first|any";
    ALT={ "alt", 1, 0, 0, on }; STREAM_BYTES=sizeof stream; ON_DATA=on; OFFERS=2; TABLE=table; BOUND=&bound"#;

/// A temporary folder for modules, removed at the end.
struct ModuleFolder(PathBuf);

impl ModuleFolder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("modhost-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn build(&self, file: &str, options: &[&str]) -> PathBuf {
        let (source, output) = (self.0.join(format!("{file}.c")), self.0.join(file));
        fs::write(&source, PROBE).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&output).arg(&source);
        compiler.args(DEFAULTS.split(';').map(|define| format!("-D{}", define.trim()))).args(options);
        assert!(compiler.status().unwrap().success(), "{options:?}");
        output
    }
}

/// A file in memory, whose path is open for as long as it exists.
pub struct MemoryFile(fs::File);

impl MemoryFile {
    pub fn new(bytes: &[u8]) -> Self {
        let mut file = fs::File::from(memfd_create("module", MFdFlags::MFD_CLOEXEC).unwrap());
        file.write_all(bytes).unwrap();
        Self(file)
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Inspects these bytes as the file `x.so`.
fn inspect_bytes(bytes: &[u8]) -> Inspection {
    Inspection { path: "x.so".into(), ..inspect(&MemoryFile::new(bytes).path()) }
}

impl Drop for ModuleFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The plain build, once.
fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| fs::read(ModuleFolder::new("probe").build("probe.so", &[])).unwrap())
}

fn refusal(bytes: Vec<u8>) -> String {
    inspect_bytes(&bytes).refusal().map_or_else(|| "ok".to_string(), |error| error.to_string())
}

fn assert_is_probe(inspection: &Inspection) {
    assert_eq!(inspection.verdict, Ok(()), "{:?}", inspection.path);
    let table = inspection.table.as_ref().unwrap();
    assert_eq!((table.name.as_str(), table.version.as_str(), table.summary.as_str()), ("probe", "1.2", "Probes."));
    let row = |p: &ParamDecl| {
        let allowed = p.range().unwrap_or_else(|| p.words().join("|"));
        [p.name.clone(), p.kind_text(), p.default.clone().unwrap_or_else(|| "none".into()), allowed, p.help.clone()]
    };
    let params: Vec<_> = table.params.iter().map(row).collect();
    assert_eq!(
        params,
        [
            ["limit", "int", "10", "1..100", "How many."],
            ["pause", "duration", "1s", "0s..1m", ""],
            ["text", "string", "none", "", "What to say."],
            ["quiet", "bool", "false", "", ""],
            ["mode", "enum", "any", "first|any", "Which."],
            ["names", "list of path", "", "", ""],
            ["routes", "table of size", "a = 1KiB", "1 B..4 KiB", ""],
        ]
    );
    assert_eq!(table.handlers.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["main", "alt"]);
    assert_eq!(table.depends.iter().map(|d| (d.name.as_str(), d.kind)).collect::<Vec<_>>(), [("base", 1), ("log", 2)]);
    let shape = |shape: &interface::InterfaceShape| (shape.to_string(), shape.size_bytes, shape.layout.clone());
    assert_eq!(
        table.interfaces.iter().map(shape).collect::<Vec<_>>(),
        [("probe.first 1.2".into(), 16, Some("f()->u32\ng()".into())), ("probe.second 2.0".into(), 8, None)]
    );
    assert_eq!(
        table.imports.iter().map(|import| shape(&import.shape)).collect::<Vec<_>>(),
        [("base.calls 1.1".into(), 16, Some("h(str)".into()))]
    );
    assert!(!table.imports[0].is_required());
    let table::TablePointers { init_f, init_child_f, destroy_f, .. } = &table.pointers;
    assert_eq!([init_f, init_child_f, destroy_f].map(|pointer| pointer.is_set()), [true, false, false]);
}

#[test]
fn every_way_to_link_is_read() {
    let folder = ModuleFolder::new("links");
    for (number, options) in [
        &[][..],
        &["-Wl,--hash-style=sysv"],
        &["-Wl,--hash-style=gnu"],
        &["-Wl,-z,pack-relative-relocs"],
        &["-Wl,-z,norelro", "-Wl,-z,noseparate-code"],
        &["-Wl,-z,now"],
        &["-s", "-Wl,--gc-sections", "-ffunction-sections", "-fdata-sections"],
        &["-Wl,-Bsymbolic", "-fvisibility=protected"],
        &["-DNO_NOTE"],
        &["-g", "-flto"],
        &["-DMANY=1500"],
        &["-DMANY=1500", "-Wl,-z,nocombreloc"],
        &["-DMANY=40000", "-Wl,-z,pack-relative-relocs"],
    ]
    .iter()
    .enumerate()
    {
        let path = folder.build(&format!("{number}.so"), options);
        let inspection = inspect(&path);
        assert_is_probe(&inspection);
        assert_eq!(inspection.note.is_none(), options.contains(&"-DNO_NOTE"));
        let mut bytes = fs::read(&path).unwrap();
        // e_shoff, e_shentsize, e_shnum, e_shstrndx: as `strip --strip-section-headers` leaves
        // them.
        bytes[40..48].fill(0);
        bytes[58..64].fill(0);
        assert_is_probe(&inspect_bytes(&bytes));
    }
}

#[test]
fn relocations_may_come_in_any_order() {
    let mut bytes = fs::read(ModuleFolder::new("order").build("many.so", &["-DMANY=1500"])).unwrap();
    let relative: u64 = if HostAbi::THIS.machine == 62 { 8 } else { 1027 };
    let is_entry = |entry: &[u8]| entry[8..16] == relative.to_le_bytes();
    let starts = (0..bytes.len() - 24).step_by(8);
    let runs = starts.map(|at| (bytes[at..].chunks_exact(24).take_while(|entry| is_entry(entry)).count(), at));
    let (count, at) = runs.max().unwrap();
    assert!(count > 3000, "{count}");
    let entries: Vec<[u8; 24]> = bytes[at..at + count * 24].as_chunks().0.to_vec();
    // First and last in turn, so that neighbours are far apart.
    let turns = entries.iter().zip(entries.iter().rev()).flat_map(|(first, last)| [first, last]);
    for (number, entry) in turns.take(count).enumerate() {
        bytes[at + number * 24..][..24].copy_from_slice(entry);
    }
    assert_is_probe(&inspect_bytes(&bytes));
}

#[test]
fn each_bad_build_is_refused_with_its_reason() {
    let folder = ModuleFolder::new("bad");
    for (number, (options, parts)) in [
        (&["-DFLAGS=2"][..], &["panic = \"abort\"", "unwind"][..]),
        (&["-DFLAGS=16"], &["unknown flags", "0x10"]),
        (&["-DMAJOR=2"], &["another module ABI", "the module has 2.0, this host has 1.0", "run it with a host of module ABI 2.x"]),
        (&["-DMAJOR=0"], &["another module ABI", "rebuild"]),
        (&["-DNEEDS=3"], &["needs a newer host", "1.3", "upgrade"]),
        (&["-DSIZE=64"], &["too small", "64 bytes"]),
        (&["-DSIZE=64", "-DNO_NOTE"], &["too small", "64 bytes"]),
        (&["-DSIZE=4096"], &["cannot be right", "4096 bytes, its symbol has 168"]),
        (&["-DMAGIC=\"ABCDEFG\""], &["is not a modhost exports table", "0x0047464544434241"]),
        (&["-DNAME=\"Bad Name\""], &["its name is not one", "Bad Name"]),
        (&["-DNAME=0"], &["the module's name is null"]),
        (&["-DKIND=10"], &["\"limit\" is of kind 10; known are 1 to 9"]),
        (&["-DKIND=9"], &["\"limit\" is a table of kind 0; known are 1 to 7"]),
        (&["-DOF=8"], &["\"names\" is a list of kind 8"]),
        (&["-DWORDS=0"], &["\"mode\" is an enum without words"]),
        (&["-DWORDS=\"any|\""], &["\"mode\" has the word \"\""]),
        (&["-DWORDS=\"a|b\""], &["the default of parameter \"mode\" does not fit", "\"any\" is not one of its words"]),
        (&["-DWORDS=(char*)&mode"], &["\"mode\" is an enum without words"]),
        (&["-DWORDS=(char*)-9"], &["its exports table cannot be right"]),
        (&["-DSTRIDE=8"], &["stride of its parameters is 8"]),
        (&["-DSTRIDE=60000"], &["stride of its parameters is 60000"]),
        (&["-DSTRIDE=4000"], &["outside its segments"]),
        (&["-DSLOT=0"], &["host_slot is null"]),
        (&["-DSLOT=(void*)fixed"], &["host_slot is not in writable memory"]),
        (&["-DTABLE=0"], &["the interface \"probe.first\" has no table"]),
        (&["-DBOUND=0"], &["the slot of interface \"base.calls\" is null"]),
        (&["-DBOUND=(void*)fixed"], &["the slot of interface \"base.calls\" is not in writable memory"]),
        (&["-DALT={\"alt\",2}"], &["the handler \"alt\" has no function"]),
        (&["-DALT={\"alt\",2,0,0,0,&stream}"], &[]),
        (&["-DALT={\"alt\",2,0,0,0,&stream}", "-DON_DATA=0"], &["the stream handler \"alt\" has no function for data"]),
        (&["-DALT={\"alt\",2,0,0,0,&stream}", "-DSTREAM_BYTES=40"], &["the stream handler \"alt\" has no function for data"]),
        (&["-DBOUND=(char*)&bound+1"], &["the slot of interface \"base.calls\" is not aligned"]),
        (&["-DNO_TABLE"], &["a modhost note, but no exports table", "version script"]),
        (&["-DNO_TABLE", "-DNO_NOTE"], &["not a modhost module", "MODULE_EXPORTS"]),
        (&["-c"], &["not a shared object", "not linked yet"]),
        (&["-DFLAGS=4"], &[]),
        (&["-DFLAGS=64", "-DMINOR=7", "-DMORE=5"], &[]), // newer, and says that this host will do
        (&["-DFLAGS=64", "-DMINOR=7", "-DMORE=5", "-DNEEDS=7"], &["needs a newer host"]),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.build(&format!("{number}.so"), options);
        let found = inspect(&path).refusal().map_or_else(|| "ok".to_string(), |error| error.to_string());
        assert_eq!(found == "ok", parts.is_empty(), "{options:?}: {found}");
        for part in parts {
            assert!(found.contains(part), "{options:?} without {part:?}: {found}");
        }
    }
}

#[test]
fn each_bad_file_is_refused_with_its_reason() {
    let edited = |at: usize, byte: u8| {
        let mut bytes = probe().to_vec();
        bytes[at] = byte;
        bytes
    };
    for (bytes, parts) in [
        (Vec::new(), &["it is empty", "0 bytes"][..]),
        (b"\x7fEL".to_vec(), &["truncated", "3 bytes"]),
        (b"MZ\0\0".to_vec(), &["not an ELF file", "a Windows program"]),
        (b"#!/bin/sh\n".to_vec(), &["looks like a script"]),
        (b"hello\x1b[31m".to_vec(), &["begins with \"hello\\x1b[3\""]),
        (probe()[..40].to_vec(), &["truncated"]),
        (probe()[..probe().len() / 4].to_vec(), &["truncated", "build or copy it again"]),
        (edited(4, 1), &["another machine", "x86-64 32-bit"]),
        (edited(5, 2), &["another machine"]),
        (edited(18, 183), &["another machine", "found aarch64 64-bit, this host is x86-64 64-bit", "build the module for x86-64"]),
        (edited(16, 4), &["a core dump"]),
        (edited(4, 7), &["damaged", "class is 7"]),
    ] {
        let found = refusal(bytes);
        for part in parts {
            assert!(cfg!(not(target_arch = "x86_64")) || found.contains(part), "without {part:?}: {found}");
        }
    }
}

#[test]
fn another_machines_note_is_still_read() {
    let mut bytes = probe().to_vec();
    bytes[18] = if HostAbi::THIS.machine == 62 { 183 } else { 62 };
    let inspection = inspect_bytes(&bytes);
    assert_eq!(inspection.note.as_ref().unwrap().sdk, "modhost.h 1.0");
    assert!(inspection.refusal().unwrap().what.contains("another machine"));
    assert!(crate::inspect::text(&inspection).contains("built with: modhost.h 1.0, gcc"));
}

#[test]
fn file_and_memory_say_the_same() {
    let folder = ModuleFolder::new("same");
    let path = folder.build("same.so", &["-DALT={\"alt\",2,0,0,0,&stream}"]);
    let of_file = inspect(&path).table.unwrap();
    let loaded = *loader::open(&path).map_err(|error| error.to_string()).unwrap_or_else(|error| panic!("{error}")).claim;
    assert_ne!(loaded.pointers, of_file.pointers);
    assert_eq!(TableClaim { pointers: of_file.pointers.clone(), ..loaded }, of_file);
}

#[test]
fn a_file_that_says_something_else_than_the_loaded_table_is_refused() {
    let folder = ModuleFolder::new("lies");
    for (number, (lie, part)) in [
        ("header.magic[0] = 0", "is not a modhost exports table"),
        ("header.major = 2", "the module has 2.0, this host has 1.0"),
        ("header.needs = 1", "it needs module ABI 1.1"),
        ("header.size = 64", "its exports table is too small: 64 bytes"),
        ("header.flags = 2", "panic = \"abort\""),
        ("header.flags = 16", "unknown flags: 0x10"),
        ("name = 0", "the module's name is null"),
        ("name = \"Bad Name\"", "its name is not one"),
        ("slot = 0", "host_slot is null"),
        ("param_stride = 8", "the stride of its parameters is 8"),
        ("handler_count = 2000", "it declares 2000 handlers"),
        ("depends = 0", "it declares 2 dependencies, but does not say where"),
        ("version = \"\"", "its version is not one"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.build(&format!("{number}.so"), &["-DCONSTANT=", &format!("-DLIE=module_exports.{lie}")]);
        assert_eq!(inspect(&path).verdict, Ok(()), "{lie}");
        let error = loader::open(&path).err().map_or_else(String::new, |error| error.to_string());
        assert!(error.starts_with(&format!("cannot load module {}: ", path.display())) && error.contains(part), "{lie}: {error}");
    }
}

#[test]
fn reports_are_aligned_and_complete() {
    let inspection = inspect_bytes(probe());
    let text = crate::inspect::text(&inspection);
    for line in [
        "x.so\n  name:       probe\n",
        "  needs:      base, log (if present)\n",
        "    main  udp  Serves.\n    alt   udp\n",
        "    limit   int            = 10        1..100      How many.\n",
        "    text    string         required                What to say.\n",
        "    mode    enum           = any       first|any   Which.\n",
        "    names   list of path   = \"\"\n",
        "    routes  table of size  = a = 1KiB  1 B..4 KiB\n",
        "  verdict: can be loaded\n",
    ] {
        assert!(text.contains(line), "without {line:?}:\n{text}");
    }
    let report = crate::inspect::report(&inspection);
    assert_eq!(report["params"][1]["max"], 60_000_000_000_i64);
    assert_eq!(
        (&report["params"][4]["words"], &report["params"][1]["words"]),
        (&serde_json::json!(["first", "any"]), &serde_json::Value::Null)
    );
    assert_eq!(
        (&report["params"][6]["kind"], &report["params"][6]["of"], &report["params"][6]["max"]),
        (&"table".into(), &"size".into(), &4096.into())
    );
    assert_eq!(report["handlers"][0]["kind"], "udp");
    assert_eq!((&report["loadable"], &report["error"]), (&true.into(), &serde_json::Value::Null));
}

fn config(text: &str) -> Config {
    crate::config::parse(text, Path::new("t.toml")).unwrap()
}

/// The names in load order, or the errors.
fn resolved(config: &Config) -> Result<Vec<String>, String> {
    match resolve(config) {
        Ok(resolution) => Ok(resolution.modules.iter().map(|module| module.name.clone()).collect()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[test]
fn modules_are_found_and_ordered() {
    let folder = ModuleFolder::new("resolve");
    let path = folder.build("libprobe.so", &[]);
    folder.build("base.so", &["-DNAME=\"base\""]);
    folder.build("libmy_log.so", &["-DNAME=\"my-log\""]);
    fs::copy(&path, folder.0.join("copy.so")).unwrap();
    fs::hard_link(&path, folder.0.join("link.so")).unwrap();
    fs::write(folder.0.join("libempty.so"), "").unwrap();
    let with = |text: &str| {
        let mut config = config(text);
        config.host.module_path = vec![folder.0.join("nowhere"), folder.0.clone()];
        config
    };
    const TEXT: &str = "[module.params]\ntext = \"x\"\n";
    let both = format!("[[module]]\nname = \"probe\"\n{TEXT}[[module]]\nname = \"base\"\n{TEXT}");
    // Each probe needs "base", base itself included: a circle of one.
    let found = resolved(&with(&both)).unwrap_err();
    assert!(found.contains("in a circle: base requires base"), "{found}");

    let found = resolved(&with("[[module]]\nname = \"prob\"")).unwrap_err();
    assert!(
        found.contains("t.toml:1:1: module \"prob\" is in no folder of module_path") && found.contains("did you mean \"probe\"?"),
        "{found}"
    );
    let found = resolved(&with(&format!("[[module]]\nname = \"probe\"\n{TEXT}"))).unwrap_err();
    assert!(found.contains("module \"probe\" needs module \"base\", which is not loaded"), "{found}");
    let found = resolved(&with("[[module]]\nname = \"empty\"")).unwrap_err();
    assert!(found.contains("cannot be loaded: it is empty"), "{found}");
    let found = resolved(&with("[[module]]\nname = \"copy\"")).unwrap_err();
    assert!(found.contains("module \"copy\" calls itself \"probe\""), "{found}");

    let mut twice = with(&format!("[[module]]\nname = \"probe\"\n{TEXT}"));
    let mut link = twice.modules[0].clone();
    link.source = ModuleSource::Path(folder.0.join("link.so"));
    twice.modules.push(link.clone());
    assert!(resolved(&twice).unwrap_err().contains("is configured twice"));
    link.source = ModuleSource::Path(folder.0.join("copy.so"));
    twice.modules[1] = link;
    assert!(resolved(&twice).unwrap_err().contains("two modules call themselves \"probe\""));
    assert_eq!(resolve::locate("my-log", std::slice::from_ref(&folder.0)), Some(folder.0.join("libmy_log.so")));
    assert_eq!(resolve::locate("absent", std::slice::from_ref(&folder.0)), None);
}

/// Builds the probe without dependencies, under other names.
fn free_standing(folder: &ModuleFolder, names: &[&str]) {
    for name in names {
        let path = folder.build(&format!("lib{name}.so"), &[&format!("-DNAME=\"{name}\""), "-DOFFERS=0"]);
        let mut bytes = fs::read(&path).unwrap();
        // The count of dependencies, recognised by its stride.
        let pattern = [2_u32.to_le_bytes(), 16_u32.to_le_bytes()].concat();
        let at: Vec<usize> = (0..bytes.len() - 8).filter(|at| bytes[*at..at + 8] == pattern[..]).collect();
        at.iter().for_each(|at| bytes[*at] = 0);
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn optional_modules_listeners_and_folders_are_resolved() {
    let folder = ModuleFolder::new("optional");
    free_standing(&folder, &["aa", "bb", "cc"]);
    folder.build("libprobe.so", &[]);
    fs::write(folder.0.join("libbroken.so"), "junk").unwrap();
    let set: Vec<_> = ["aa", "bb", "cc"].iter().map(|name| format!("{name}.text=x")).collect();
    let with = |text: &str, load_all: bool| {
        let mut config = config(text);
        config.host.module_path = vec![folder.0.clone()];
        config.load_all.extend(load_all.then(|| folder.0.clone()));
        crate::config::merge(config, crate::config::Overrides { set: set.clone(), ..Default::default() })
    };
    let listen = "[[listen]]\nudp = \"127.0.0.1:1\"\nhandler = \"cc:alt\"\n[[listen]]\nudp = \"127.0.0.1:2\"\nhandler = \"aa\"\n";
    let named =
        "[[module]]\nname = \"bb\"\n[[module]]\nname = \"broken\"\noptional = true\n[[module]]\nname = \"probe\"\noptional = true\n";
    let broken = "[[listen]]\nudp = \"127.0.0.1:3\"\nhandler = \"broken\"\n";
    let resolution = resolve(&with(&format!("{named}{listen}{broken}"), false).unwrap()).unwrap();
    let names: Vec<_> = resolution.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["bb", "cc", "aa"], "configured first, then those of listeners");
    assert_eq!(resolution.listeners.len(), 2);
    let skipped: Vec<_> = resolution.skipped.iter().map(|skipped| (skipped.what.as_str(), skipped.reason.to_string())).collect();
    assert_eq!(skipped.iter().map(|(what, _)| *what).collect::<Vec<_>>(), ["broken", "probe", "udp://127.0.0.1:3"]);
    assert!(skipped[0].1.contains("not an ELF file") && skipped[1].1.contains("needs module \"base\""), "{skipped:?}");
    assert_eq!(resolution.modules[0].values.len(), 7);

    for (text, part) in [
        (
            "[[listen]]\nudp = \"127.0.0.1:1\"\nhandler = \"aa:mian\"",
            "t.toml:1:1: module \"aa\" has no handler \"mian\" (hint: did you mean \"main\"?)",
        ),
        ("[[listen]]\nudp = \"127.0.0.1:1\"\nhandler = \"aaa\"", "did you mean \"aa\"?"),
        (
            "[[module]]\nname = \"aa\"\nparams.limt = 1",
            "t.toml:3:15: module \"aa\" has no parameter \"limt\" (hint: did you mean \"limit\"?)",
        ),
        ("[[module]]\nname = \"aa\"\nparams.limit = 101", "101 is out of range"),
        ("[[module]]\nname = \"aa\"", "--set bb.text: no module \"bb\" is loaded"),
    ] {
        let found = resolved(&with(text, false).unwrap()).unwrap_err();
        assert!(found.contains(part), "without {part:?}: {found}");
    }

    fs::remove_file(folder.0.join("libprobe.so")).unwrap();
    let all = resolved(&with("[[module]]\nname = \"cc\"", true).unwrap()).unwrap();
    assert_eq!(all, ["cc", "aa", "bb"], "what is named keeps its place, the rest comes in name order, junk is passed over");
}

/// Inspects, renders and times; the result does not matter here.
fn survives(bytes: Vec<u8>) {
    let started = Instant::now();
    let inspection = inspect_bytes(&bytes);
    let _ = (crate::inspect::text(&inspection), crate::inspect::report(&inspection));
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}

/// Offsets of bytes that are not zero: damage there gets further than elsewhere.
fn interesting() -> &'static [usize] {
    static PLACES: OnceLock<Vec<usize>> = OnceLock::new();
    PLACES.get_or_init(|| (0..probe().len()).filter(|at| probe()[*at] != 0).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), as_elf in any::<bool>()) {
        let mut bytes = bytes;
        if as_elf && bytes.len() > 64 {
            bytes[..20].copy_from_slice(&probe()[..20]);
        }
        survives(bytes);
    }

    #[test]
    fn any_flips_are_survived(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24)) {
        let mut bytes = probe().to_vec();
        for (at, byte) in flips {
            bytes[interesting()[at.index(interesting().len())]] = byte;
        }
        survives(bytes);
    }

    #[test]
    fn any_header_damage_is_survived(words in prop::collection::vec((0..120_usize, any::<u64>(), 0..64_u32), 1..4)) {
        let mut bytes = probe().to_vec();
        // The file header and the first program headers, word by word, with small and large numbers
        // alike.
        for (word, value, shift) in words {
            bytes[word * 8..word * 8 + 8].copy_from_slice(&(value >> shift).to_le_bytes());
        }
        bytes[..20].copy_from_slice(&probe()[..20]);
        survives(bytes);
    }

    #[test]
    fn any_cut_or_splice_is_survived(
        cut in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        len in 1..4096_usize,
    ) {
        let mut bytes = probe().to_vec();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let piece: Vec<u8> = bytes[from..(from + len).min(bytes.len())].to_vec();
        let end = (to + piece.len()).min(bytes.len());
        bytes.splice(to..end, piece);
        survives(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        survives(bytes);
    }
}

#[test]
fn every_word_of_the_dynamic_section_and_the_table_may_be_anything() {
    let values = [0_u64, 1, 8, 0x1000, 0xffff, u64::from(u32::MAX), 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX];
    let dynamic_and_data: Vec<usize> = (0..probe().len() / 8).filter(|word| probe()[word * 8..word * 8 + 8] != [0; 8]).collect();
    for word in dynamic_and_data.iter().filter(|word| **word * 8 < 0x500 || **word * 8 > 0x2000) {
        for value in values {
            let mut bytes = probe().to_vec();
            bytes[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
            survives(bytes);
        }
    }
}
