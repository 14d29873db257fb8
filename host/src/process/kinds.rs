//! The one table of process kinds. A new kind is a row here and its work in `start/roster.rs`.
//!
//! *Runs in:* everywhere. *Never:* decides how many processes of a kind there are.

use std::fmt;

use module_api::abi;

use super::restart::Policy;

/// Kinds of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Loads the modules, forks the others.
    Main,
    /// Serves a datagram listener.
    Worker,
    /// Runs timer functions.
    Timer,
    /// Serves the control socket.
    Control,
    /// Registered and forked by a module.
    Module,
    /// Serves connections.
    TcpWorker,
    /// Accepts connections and hands them to the TCP workers.
    TcpMain,
}

/// How a process gets its rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Always this one.
    Fixed(i32),
    /// The next positive one: workers are counted in the order of the process table.
    Counted,
    /// The module that forks it chooses.
    Chosen,
}

/// When the processes of a kind are forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// By the supervisor.
    BySupervisor,
    /// Before `PROC_MAIN`.
    BeforeProcMain,
    /// In `PROC_MAIN`, by modules.
    InProcMain,
    /// After `PROC_MAIN`.
    AfterProcMain,
}

/// Descriptors that main has and that not every child may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// Main's own: its signals, its links to the supervisor and to the control process.
    Main,
    /// The control socket and the control process's end of its link to main.
    Control,
    /// The memory that holds certificates and keys.
    Certificates,
    /// TCP main's ends of the links to other processes.
    TcpMainLinks,
}

/// The properties of a kind.
#[derive(Debug)]
pub struct KindRow {
    /// In text.
    pub name: &'static str,
    /// In `top` and `ps -o comm`, at most 15 bytes.
    pub short_name: &'static str,
    /// Its rank.
    pub rank: Rank,
    /// When it is forked.
    pub forked: Forked,
    /// When it is forked again.
    pub restart: Policy,
    /// The guarded descriptors that it keeps.
    pub keeps: &'static [Guarded],
}

const MAIN: KindRow = KindRow {
    name: "main",
    short_name: "modhost-main",
    rank: Rank::Fixed(abi::PROC_MAIN),
    forked: Forked::BySupervisor,
    restart: Policy::MAIN,
    keeps: &[Guarded::Main, Guarded::Control, Guarded::Certificates, Guarded::TcpMainLinks],
};

const WORKER: KindRow = KindRow {
    name: "worker",
    short_name: "modhost-worker",
    rank: Rank::Counted,
    forked: Forked::BeforeProcMain,
    restart: Policy::ALWAYS,
    keeps: &[],
};

const TIMER: KindRow = KindRow {
    name: "timer",
    short_name: "modhost-timer",
    rank: Rank::Fixed(abi::PROC_TIMER),
    forked: Forked::BeforeProcMain,
    restart: Policy::ALWAYS,
    keeps: &[],
};

const CONTROL: KindRow = KindRow {
    name: "control",
    short_name: "modhost-control",
    rank: Rank::Fixed(abi::PROC_RPC),
    forked: Forked::BeforeProcMain,
    restart: Policy::ALWAYS,
    keeps: &[Guarded::Control],
};

const MODULE: KindRow = KindRow {
    name: "module process",
    short_name: "modhost-module",
    rank: Rank::Chosen,
    forked: Forked::InProcMain,
    restart: Policy::ON_FAILURE,
    keeps: &[],
};

const TCP_WORKER: KindRow = KindRow {
    name: "TCP worker",
    short_name: "modhost-tcp",
    rank: Rank::Counted,
    forked: Forked::AfterProcMain,
    restart: Policy::ALWAYS,
    keeps: &[Guarded::Certificates],
};

const TCP_MAIN: KindRow = KindRow {
    name: "TCP main",
    short_name: "modhost-tcpmain",
    rank: Rank::Fixed(abi::PROC_TCP_MAIN),
    forked: Forked::AfterProcMain,
    restart: Policy::ALWAYS,
    keeps: &[Guarded::TcpMainLinks],
};

impl Kind {
    /// The properties of its processes.
    pub const fn row(self) -> &'static KindRow {
        match self {
            Self::Main => &MAIN,
            Self::Worker => &WORKER,
            Self::Timer => &TIMER,
            Self::Control => &CONTROL,
            Self::Module => &MODULE,
            Self::TcpWorker => &TCP_WORKER,
            Self::TcpMain => &TCP_MAIN,
        }
    }

    /// Whether its processes keep such a descriptor.
    pub fn keeps(self, guarded: Guarded) -> bool {
        self.row().keeps.contains(&guarded)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}
