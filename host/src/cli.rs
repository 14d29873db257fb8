//! The command line and its help. The commands for a running host are in
//! `control/client/commands.rs`.
//!
//! *Runs in:* the starting process, first of all.
//! *Never:* carries out a command: `main` dispatches it.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::config::{Fork, LogFormat, Overrides};
use crate::control::client::commands::ClientCommand;
use crate::output::OutputFormat;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (module ABI 1.0)");

const AFTER_HELP: &str = "\
Examples:
  modhost run -c /etc/modhost.toml             serve what the file says
  modhost run ./libecho.so --listen udp://127.0.0.1:5060=echo
                                               try a module without any file
  modhost check -c /etc/modhost.toml           all errors at once, nothing is started
  modhost inspect ./libecho.so                 what is in this file, and would it load
  modhost ps                                   the processes of a running host
  modhost stats                                what they have counted

Exit codes: 0 ok, 1 failed while starting or running, 2 usage or configuration, 70 a fault of modhost";

const RUN_EXAMPLES: &str = "\
Examples:
  modhost run -c modhost.toml
  modhost run -c modhost.toml --no-fork --log-level debug
  modhost run ./libecho.so --listen udp://127.0.0.1:5060=echo --workers 4 --set echo.greeting=hello
  modhost run --load-all /usr/lib/modhost --control /run/modhost.sock";

const CHECK_EXAMPLES: &str = "\
Examples:
  modhost check -c modhost.toml
  modhost check -c modhost.toml --json | jq '.errors[].what'";

const INSPECT_EXAMPLES: &str = "\
Examples:
  modhost inspect ./libecho.so
  modhost inspect --json /usr/lib/modhost/*.so | jq -r '.[].name'";

/// A pre-fork module host: loads shared objects, forks workers, serves the network with them.
#[derive(Debug, Parser)]
#[command(name = "modhost", bin_name = "modhost", version = VERSION, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// With `defer`, only the arguments of the given subcommand are built, which makes a start quicker.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Start: load the modules, fork the processes, serve
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Parse the configuration, load the modules, check versions and parameters; run nothing else
    ///
    /// Nothing is bound, forked or written, and no init_f is called. But a module is really loaded:
    /// the constructors of its file run. "modhost inspect" runs nothing of a file at all.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Say what module files hold and whether they would load, without running any of their code
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

// No documentation on the structs below: clap would show it instead of the commands' own.

// Of `run` and `check`.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Modules to load besides those of the file: a path (with a slash or ending in .so), or a name
    /// to look up
    #[arg(value_name = "MODULE.so", value_hint = ValueHint::FilePath)]
    pub modules: Vec<String>,

    /// Look up modules here too, before the file's module_path (repeatable)
    #[arg(long = "module-dir", value_name = "DIR", action = ArgAction::Append, value_hint = ValueHint::DirPath)]
    pub module_dirs: Vec<PathBuf>,

    /// Load every module of this folder, in name order (repeatable)
    #[arg(long = "load-all", value_name = "DIR", action = ArgAction::Append, value_hint = ValueHint::DirPath)]
    pub load_all: Vec<PathBuf>,

    /// Listen: udp://ADDR=HANDLER or unixgram://PATH=HANDLER; HANDLER is module or module:handler
    /// (repeatable)
    #[arg(long = "listen", value_name = "ADDRESS=HANDLER", action = ArgAction::Append)]
    pub listen: Vec<String>,

    /// Set a module's parameter, over what the file says (repeatable)
    #[arg(long = "set", value_name = "MODULE.PARAM=VALUE", action = ArgAction::Append)]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub source: SourceArgs,

    /// Workers of each UDP listener that does not say otherwise, and number of TCP workers
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,

    /// For debugging: stay in the foreground, fork no workers, serve everything in one process
    #[arg(long = "no-fork")]
    pub no_fork: bool,

    /// Detach from the terminal; this command returns when the host is ready
    #[arg(long, conflicts_with = "no_fork")]
    pub daemon: bool,

    /// Become this user after the modules' init (only as root)
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username)]
    pub user: Option<String>,

    /// Become this group after the modules' init (only as root)
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Write the process id here, and hold a lock on it
    #[arg(long = "pid-file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pid_file: Option<PathBuf>,

    /// Serve the control socket here
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub control: Option<PathBuf>,

    /// How log records look
    #[arg(long = "log-format", value_name = "FORMAT")]
    pub log_format: Option<LogFormatArg>,

    /// Highest level that is logged: off, error, warn, info, debug or trace; MODULE=LEVEL for one
    /// module (repeatable)
    #[arg(long = "log-level", value_name = "LEVEL", action = ArgAction::Append)]
    pub log_level: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormatArg {
    /// One readable line a record
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub source: SourceArgs,

    /// Print the result as JSON
    #[arg(long = "json", action = ArgAction::SetTrue, value_parser = OutputFormat::of_flag())]
    pub format: OutputFormat,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Module files
    #[arg(value_name = "FILE.so", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// Print a JSON array, one object for each file
    #[arg(long = "json", action = ArgAction::SetTrue, value_parser = OutputFormat::of_flag())]
    pub format: OutputFormat,
}

impl SourceArgs {
    /// What overrides the file.
    pub fn into_overrides(self) -> Overrides {
        Overrides {
            modules: self.modules,
            module_dirs: self.module_dirs,
            load_all: self.load_all,
            listen: self.listen,
            set: self.set,
            ..Overrides::default()
        }
    }
}

impl RunArgs {
    /// The configuration file, and what overrides it.
    pub fn into_overrides(self) -> (Option<PathBuf>, Overrides) {
        let file = self.source.config.clone();
        let overrides = Overrides {
            workers: self.workers,
            fork: self.no_fork.then_some(Fork::NoFork),
            daemon: self.daemon.then_some(true),
            user: self.user,
            group: self.group,
            pid_file: self.pid_file,
            control: self.control,
            log_format: self.log_format.map(|format| match format {
                LogFormatArg::Text => LogFormat::Text,
                LogFormatArg::Json => LogFormat::Json,
            }),
            log_level: self.log_level,
            ..self.source.into_overrides()
        };
        (file, overrides)
    }
}

/// Parses the command line of this process. Help, version and usage errors are printed here and end
/// the process with 0 or 2.
pub fn parse() -> Cli {
    Cli::parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;
    use crate::control::answers::stats::StatsLayout;

    fn parse_line(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
        assert!(VERSION.ends_with(&format!("(module ABI {}.{})", module_api::abi::ABI_MAJOR, module_api::abi::ABI_MINOR)));
    }

    #[test]
    fn every_option_of_run_reaches_the_overrides() {
        let line = "modhost run -c f.toml ./a.so b --module-dir d --module-dir e --load-all l --listen udp://127.0.0.1:1=a --listen \
                    tcp://[::1]:2=b:h --workers 3 --user u --group g --pid-file p --control s --set a.x=1 --set b.y=z=1 --log-format json \
                    --log-level warn --log-level a=debug --daemon";
        let Ok(Command::Run(args)) = parse_line(line) else { panic!("{line}") };
        let (file, overrides) = args.into_overrides();
        assert_eq!(file, Some("f.toml".into()));
        let want = Overrides {
            modules: vec!["./a.so".into(), "b".into()],
            module_dirs: vec!["d".into(), "e".into()],
            load_all: vec!["l".into()],
            listen: vec!["udp://127.0.0.1:1=a".into(), "tcp://[::1]:2=b:h".into()],
            workers: Some(3),
            fork: None,
            daemon: Some(true),
            user: Some("u".into()),
            group: Some("g".into()),
            pid_file: Some("p".into()),
            control: Some("s".into()),
            set: vec!["a.x=1".into(), "b.y=z=1".into()],
            log_format: Some(LogFormat::Json),
            log_level: vec!["warn".into(), "a=debug".into()],
        };
        assert_eq!(overrides, want);
        let Ok(Command::Run(args)) = parse_line("modhost run --no-fork") else { panic!() };
        assert_eq!(args.into_overrides(), (None, Overrides { fork: Some(Fork::NoFork), ..Overrides::default() }));
    }

    #[test]
    fn the_other_commands() {
        let json = OutputFormat::Json;
        assert!(matches!(parse_line("modhost check -c f --json"), Ok(Command::Check(args)) if args.format == json));
        assert!(
            matches!(parse_line("modhost inspect a.so --json"), Ok(Command::Inspect(args)) if args.files.len() == 1 && args.format == json)
        );
        let client = |line: &str| match parse_line(line) {
            Ok(Command::Client(command)) => command,
            other => panic!("{line}: {other:?}"),
        };
        assert!(matches!(client("modhost ps"), ClientCommand::Ps(host) if host.socket == *"/run/modhost.sock"));
        assert!(matches!(client("modhost shm --json"), ClientCommand::Shm(host) if host.format == json));
        assert!(
            matches!(client("modhost stop -s x"), ClientCommand::Stop(host) if host.socket == *"x" && host.format == OutputFormat::Text)
        );
        assert!(matches!(client("modhost ping -s x"), ClientCommand::Ping(host) if host.socket == *"x"));
        assert_eq!(client("modhost rpc ping --json -s x").format(), json);
        for (line, layout) in [
            ("modhost stats", StatsLayout::Sums),
            ("modhost stats a b --per-process", StatsLayout::ByProcess),
            ("modhost stats --prometheus", StatsLayout::Prometheus),
        ] {
            assert!(matches!(client(line), ClientCommand::Stats(args) if args.layout() == layout), "{line}");
        }
        let ClientCommand::Rpc(args) = client("modhost rpc -s x ping 1 -2 -- --three") else { panic!() };
        assert_eq!((args.method.as_str(), args.args), ("ping", vec!["1".to_string(), "-2".into(), "--three".into()]));
    }

    #[test]
    fn misuse_ends_with_2_and_questions_with_0() {
        for (line, kind, code) in [
            ("modhost", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, 2),
            ("modhost runn", ErrorKind::InvalidSubcommand, 2),
            ("modhost run --wrkers 3", ErrorKind::UnknownArgument, 2),
            ("modhost run --workers x", ErrorKind::ValueValidation, 2),
            ("modhost run --no-fork --daemon", ErrorKind::ArgumentConflict, 2),
            ("modhost stats --prometheus --json", ErrorKind::ArgumentConflict, 2),
            ("modhost inspect", ErrorKind::MissingRequiredArgument, 2),
            ("modhost --version", ErrorKind::DisplayVersion, 0),
            ("modhost run --help", ErrorKind::DisplayHelp, 0),
        ] {
            let error = parse_line(line).expect_err(line);
            assert_eq!((error.kind(), error.exit_code()), (kind, code), "{line}");
        }
    }
}
