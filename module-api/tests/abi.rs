//! The binary interface has not changed: sizes, offsets and numbers in Rust, in C, and in the
//! golden file of this version.
//!
//! The structs describe themselves (`abi::LAYOUTS`). To regenerate the golden file while the
//! interface is not released: `UPDATE_GOLDEN=1 cargo test -p module-api --test abi`.

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use module_api::abi::{self, StructLayout};
use module_api::interface::{Bytes, Interface, RawCallback};
use module_api::interfaces::http::{RawExchange, Routes};

/// Every struct of the headers: the host's, and those of the interfaces of general use.
fn layouts() -> Vec<StructLayout> {
    type Callback = RawCallback<RawExchange>;
    type Table = <Routes as Interface>::Table;
    let callback = StructLayout {
        name: "modhost_http_callback",
        size: size_of::<Callback>(),
        align: align_of::<Callback>(),
        fields: &[("function", offset_of!(Callback, function)), ("data", offset_of!(Callback, data))],
    };
    // Its fields are the interface's own affair.
    let routes = StructLayout { name: "modhost_http_routes", size: size_of::<Table>(), align: align_of::<Table>(), fields: &[] };
    [abi::LAYOUTS, &[Bytes::LAYOUT, RawExchange::LAYOUT, callback, routes]].concat()
}

/// Numbers by their names in C.
fn constants() -> Vec<(&'static str, i64)> {
    macro_rules! constants {
        ($($name:ident = $rust:ident),* $(,)?) => { vec![$( (stringify!($name), abi::$rust as i64) ),*] };
    }
    constants! {
        MODHOST_MODULE_MAGIC = MODULE_MAGIC, MODHOST_HOST_MAGIC = HOST_MAGIC, MODHOST_ABI_MAJOR = ABI_MAJOR, MODHOST_ABI_MINOR = ABI_MINOR,
        MODHOST_NOTE_TYPE = NOTE_TYPE, MODHOST_RUST = FLAG_RUST, MODHOST_PANIC_ABORT = FLAG_PANIC_ABORT,
        MODHOST_WANTS_POSTCHILDINIT = FLAG_WANTS_POSTCHILDINIT, MODHOST_NO_CHILD_INIT = FLAG_NO_CHILD_INIT,
        PROC_MAIN = PROC_MAIN, PROC_TIMER = PROC_TIMER, PROC_RPC = PROC_RPC, PROC_TCP_MAIN = PROC_TCP_MAIN, PROC_UNIXSOCK = PROC_UNIXSOCK,
        PROC_POSTCHILDINIT = PROC_POSTCHILDINIT, PROC_INIT = PROC_INIT, PROC_NOCHLDINIT = PROC_NOCHLDINIT,
        MODHOST_OK = OK, MODHOST_E_FAILED = E_FAILED, MODHOST_E_PHASE = E_PHASE, MODHOST_E_INVALID = E_INVALID,
        MODHOST_E_NO_MEMORY = E_NO_MEMORY, MODHOST_E_LIMIT = E_LIMIT, MODHOST_E_SYSTEM = E_SYSTEM, MODHOST_E_BUSY = E_BUSY,
        MODHOST_E_DEADLOCK = E_DEADLOCK, MODHOST_E_NOT_RECOVERABLE = E_NOT_RECOVERABLE, MODHOST_E_NO_PEER = E_NO_PEER, MODHOST_E_GONE = E_GONE, MODHOST_E_PANIC = E_PANIC,
        MODHOST_OWNER_DIED = OWNER_DIED,
        MODHOST_ERROR = LEVEL_ERROR, MODHOST_WARN = LEVEL_WARN, MODHOST_INFO = LEVEL_INFO, MODHOST_DEBUG = LEVEL_DEBUG,
        MODHOST_TRACE = LEVEL_TRACE,
        MODHOST_PARAM_BOOL = PARAM_BOOL, MODHOST_PARAM_INT = PARAM_INT, MODHOST_PARAM_STRING = PARAM_STRING,
        MODHOST_PARAM_DURATION = PARAM_DURATION, MODHOST_PARAM_SIZE = PARAM_SIZE, MODHOST_PARAM_PATH = PARAM_PATH,
        MODHOST_PARAM_ENUM = PARAM_ENUM, MODHOST_PARAM_LIST = PARAM_LIST, MODHOST_PARAM_TABLE = PARAM_TABLE, MODHOST_PARAM_REQUIRED = PARAM_REQUIRED, MODHOST_PARAM_RANGE = PARAM_RANGE,
        MODHOST_HANDLER_UDP = HANDLER_UDP, MODHOST_HANDLER_STREAM = HANDLER_STREAM,
        MODHOST_CLOSED_NORMALLY = CLOSED_NORMALLY, MODHOST_CLOSED_BY_PEER = CLOSED_BY_PEER, MODHOST_CLOSED_BY_TIMEOUT = CLOSED_BY_TIMEOUT,
        MODHOST_CLOSED_BY_LIMIT = CLOSED_BY_LIMIT, MODHOST_CLOSED_BY_ERROR = CLOSED_BY_ERROR, MODHOST_CLOSED_BY_STOP = CLOSED_BY_STOP,
        MODHOST_CLOSE_AFTER_SENDING = CLOSE_AFTER_SENDING, MODHOST_CLOSE_NOW = CLOSE_NOW, MODHOST_CLOSE_SENDING_SIDE = CLOSE_SENDING_SIDE,
        MODHOST_DEPEND_REQUIRED = DEPEND_REQUIRED, MODHOST_DEPEND_OPTIONAL = DEPEND_OPTIONAL,
        MODHOST_BIND_REQUIRED = BIND_REQUIRED, MODHOST_BIND_OPTIONAL = BIND_OPTIONAL,
        MODHOST_FORK_MAKE_SOCK = FORK_MAKE_SOCK, MODHOST_SHM_ZEROED = SHM_ZEROED, MODHOST_TIMER_FAST = TIMER_FAST, MODHOST_TIMER_SLOW = TIMER_SLOW,
        MODHOST_STAT_COUNTER = STAT_COUNTER, MODHOST_STAT_GAUGE = STAT_GAUGE, MODHOST_STAT_HISTOGRAM = STAT_HISTOGRAM,
        MODHOST_STAT_SHARED = STAT_SHARED, MODHOST_UNIT_NONE = UNIT_NONE, MODHOST_UNIT_BYTES = UNIT_BYTES, MODHOST_UNIT_NS = UNIT_NS,
        MODHOST_STAT_BUCKETS = STAT_BUCKETS, MODHOST_STAT_MAX_BOUNDS = STAT_MAX_BOUNDS,
        MODHOST_STAT_ALL = STAT_ALL, MODHOST_STAT_OUTSIDE = STAT_OUTSIDE,
        MODHOST_PROCESS_FREE = PROCESS_FREE, MODHOST_PROCESS_STARTING = PROCESS_STARTING, MODHOST_PROCESS_SERVING = PROCESS_SERVING,
        MODHOST_PROCESS_WAITING = PROCESS_WAITING, MODHOST_PROCESS_ENDED = PROCESS_ENDED,
    }
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The interface as this build of the crate has it.
fn description() -> String {
    let mut text = String::new();
    for StructLayout { name, size, align, fields } in layouts() {
        writeln!(text, "{name} size={size} align={align}").unwrap();
        for (field, offset) in fields {
            writeln!(text, "{name}.{field} {offset}").unwrap();
        }
    }
    for (name, value) in constants() {
        writeln!(text, "{name} {value}").unwrap();
    }
    text
}

/// A C program that prints the same.
fn c_program() -> String {
    let mut text = String::from("#include <modhost.h>\n#include <modhost/http.h>\n\nint main(void) {\n");
    for StructLayout { name, fields, .. } in layouts() {
        let align = format!("offsetof(struct {{ char c; struct {name} s; }}, s)");
        writeln!(text, "    printf(\"{name} size=%zu align=%zu\\n\", sizeof(struct {name}), {align});").unwrap();
        for (field, _) in fields {
            writeln!(text, "    printf(\"{name}.{field} %zu\\n\", offsetof(struct {name}, {field}));").unwrap();
        }
    }
    for (name, _) in constants() {
        writeln!(text, "    printf(\"{name} %lld\\n\", (long long){name});").unwrap();
    }
    text + "    return 0;\n}\n"
}

/// Compiles with the machine's C compiler, warnings as errors.
fn compile_c(source: &Path, output: &Path, arguments: &[&str]) {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let include = format!("-I{}", manifest_dir().join("include").display());
    let mut command = Command::new(&compiler);
    let standard = arguments.iter().find(|argument| argument.starts_with("-std=")).unwrap_or(&"-std=c99");
    command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", &include]).args(arguments).arg("-o").arg(output).arg(source);
    let status = command.status().unwrap_or_else(|error| panic!("{compiler:?} cannot be run: {error}"));
    assert!(status.success(), "{command:?}");
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn golden_1_0() {
    let path = manifest_dir().join("abi-1.0.golden");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, description()).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    for (golden, now) in golden.lines().zip(description().lines()) {
        assert_eq!(golden, now, "the binary interface has changed");
    }
    assert_eq!(golden.lines().count(), description().lines().count());
}

#[test]
fn c_agrees_with_rust() {
    let (source, program) = (temporary("abi.c"), temporary("abi-c"));
    fs::write(&source, c_program()).unwrap();
    compile_c(&source, &program, &["-Wno-unused-function"]);
    let output = Command::new(&program).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), description());
}

#[test]
fn a_c_module_with_every_part_compiles() {
    let source = temporary("parts.c");
    let text = r#"
        #include <modhost.h>
        static int64_t answers;
        static int32_t serve(struct modhost_udp_batch *batch) {
            const struct modhost_datagram *first = modhost_datagram_at(batch, 0);
            modhost_log(MODHOST_DEBUG, "%u datagrams", batch->count);
            return udp_reply_borrowed(batch, 0, first->data, first->len);
        }
        static int init(void) { return answers > 0 ? register_procs(1) : modhost_error("%d answers", (int)answers); }
        static int child(int rank) { return rank == PROC_MAIN ? fork_process(1, "own", 1) : process_no() + get_max_procs(); }
        static const struct modhost_param params[] = {
            {.name = "answers", .kind = MODHOST_PARAM_INT, .flags = MODHOST_PARAM_RANGE, .target = &answers, .min = 1, .max = 9},
        };
        static int64_t data(struct modhost_stream *stream, const uint8_t *data, size_t len) {
            void *room = modhost_stream_buffer(stream, 1);
            if (room == NULL || modhost_stream_commit(stream, 0) < 0 || modhost_stream_read(stream, 1) < 0)
                return modhost_stream_close(stream, MODHOST_CLOSE_NOW);
            if (modhost_stream_queued(stream) > 0 && modhost_stream_write_file(stream, 0, 0, 1) < 0)
                return modhost_stream_send(stream->id + 1, data, len);
            return modhost_stream_write(stream, data, len) < 0 ? -1 : (int64_t)len;
        }
        static const struct modhost_stream_functions connections = {.size = sizeof(connections), .on_data = data};
        static const struct modhost_handler handlers[] = {
            {.name = "serve", .kind = MODHOST_HANDLER_UDP, .on_datagrams = serve},
            {.name = "bytes", .kind = MODHOST_HANDLER_STREAM, .stream = &connections},
        };
        static const struct modhost_dependency depends[] = {{.name = "metrics", .kind = MODHOST_DEPEND_OPTIONAL}};
        MODULE_EXPORTS(.name = "parts", .version = "1", .summary = "all", .header.flags = MODHOST_WANTS_POSTCHILDINIT,
                       .init_f = init, .init_child_f = child,
                       MODHOST_PARAMS(params), MODHOST_HANDLERS(handlers), MODHOST_DEPENDS(depends));
    "#;
    fs::write(&source, format!("{}\n", text.trim())).unwrap();
    compile_c(&source, &temporary("parts.so"), &["-shared", "-fPIC"]);
}

#[test]
fn the_headers_compile_in_every_language() {
    let source = temporary("http.c");
    let text = r#"
        #include <modhost/http.h>
        static const struct modhost_http_routes *routes;
        static int32_t hello(struct modhost_http_exchange *exchange, void *data) {
            struct modhost_bytes value;
            (void)data;
            if (modhost_http_header(exchange, "host", &value) < 0 || modhost_http_status(exchange, 201) < 0)
                return modhost_error("no host");
            return modhost_http_write_text(exchange, "hello");
        }
        static struct modhost_http_route route = {"GET", "/hello", 0, hello, NULL};
        int add(void) { return modhost_http_add(routes, &route); }
        const struct modhost_bind bind = {MODHOST_HTTP_ROUTES(MODHOST_BIND_OPTIONAL, routes)};
    "#;
    fs::write(&source, format!("{}\n", text.trim())).unwrap();
    for language in ["-std=c99", "-std=c11", "-std=gnu17"] {
        compile_c(&source, &temporary("http.o"), &[language, "-c"]);
    }
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let knows_cpp = Command::new(compiler).args(["-x", "c++", "-fsyntax-only", "/dev/null"]).output().unwrap().status.success();
    if knows_cpp {
        compile_c(&source, &temporary("http.o"), &["-x", "c++", "-std=c++11", "-c"]);
    } else {
        eprintln!("no compiler for C++: not tried with it");
    }
}

#[test]
fn numbers_agree_with_the_log_crate() {
    for (level, number) in
        [(log::Level::Error, abi::LEVEL_ERROR), (log::Level::Info, abi::LEVEL_INFO), (log::Level::Trace, abi::LEVEL_TRACE)]
    {
        assert_eq!(level as u32, number);
    }
}

#[cfg(feature = "layout")]
#[test]
fn the_layout_is_compatible_with_itself() {
    use abi_stable::abi_stability::abi_checking::check_layout_compatibility;
    use module_api::layout::{ABI_HEADER, exports_layout, host_layout};
    assert!(ABI_HEADER.is_compatible(&ABI_HEADER));
    for layout in [exports_layout(), host_layout()] {
        check_layout_compatibility(layout, layout).map_err(|_| "not compatible").unwrap();
    }
    assert!(check_layout_compatibility(exports_layout(), host_layout()).is_err());
}
