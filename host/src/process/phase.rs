//! Phases and breadcrumbs: before each call into a module, a process stores the module and the
//! phase in its slot.
//!
//! *Runs in:* every process; read by supervisor and control. *Never:* trusted as more than a number
//! when read from shared memory.
//!
//! *Pure:* no clock, no environment, no system call.

use std::fmt;

use module_api::abi;

/// The kinds of calls into a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// No module is being called.
    None = 0,
    /// The file's constructors run.
    Load = 1,
    /// `init_f`.
    Init = 2,
    /// `init_child_f(PROC_INIT)`.
    ProcInit = 3,
    /// `init_child_f(PROC_MAIN)`.
    ProcMain = 4,
    /// `init_child_f(rank)` in a forked process.
    ChildInit = 5,
    /// `init_child_f(PROC_POSTCHILDINIT)`.
    PostChildInit = 6,
    /// A datagram handler.
    Handler = 7,
    /// A timer function.
    Timer = 8,
    /// A process that the module forked.
    Process = 9,
    /// `destroy_f`.
    Destroy = 10,
    /// A stream handler.
    Stream = 11,
}

impl Phase {
    const ALL: [Self; 12] = [
        Self::None,
        Self::Load,
        Self::Init,
        Self::ProcInit,
        Self::ProcMain,
        Self::ChildInit,
        Self::PostChildInit,
        Self::Handler,
        Self::Timer,
        Self::Process,
        Self::Destroy,
        Self::Stream,
    ];

    /// The phase of a call of `init_child_f` with that rank in this process.
    pub fn of_rank(rank: i32) -> Self {
        match rank {
            abi::PROC_INIT => Self::ProcInit,
            abi::PROC_MAIN => Self::ProcMain,
            abi::PROC_POSTCHILDINIT => Self::PostChildInit,
            _ => Self::ChildInit,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no module call",
            Self::Load => "loading",
            Self::Init => "init_f",
            Self::ProcInit => "init_child_f(PROC_INIT)",
            Self::ProcMain => "init_child_f(PROC_MAIN)",
            Self::ChildInit => "init_child_f(rank)",
            Self::PostChildInit => "init_child_f(PROC_POSTCHILDINIT)",
            Self::Handler => "a datagram handler",
            Self::Timer => "a timer function",
            Self::Process => "its own process",
            Self::Destroy => "destroy_f",
            Self::Stream => "a stream handler",
        })
    }
}

/// What a process was last doing, in one word of shared memory: the module's index plus 1 in the
/// upper half, the phase in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breadcrumb {
    /// The module's index in the plan; none outside module calls.
    pub module: Option<u32>,
    pub phase: Phase,
}

impl Breadcrumb {
    /// The word that is stored.
    #[inline(always)]
    pub const fn word(module: u32, phase: Phase) -> u64 {
        ((module as u64 + 1) << 32) | phase as u64
    }

    /// Reads a word from shared memory, where any bits are possible.
    pub fn from_word(word: u64) -> Self {
        let phase = Phase::ALL.get((word & 0xffff_ffff) as usize).copied().unwrap_or(Phase::None);
        Self { module: ((word >> 32) as u32).checked_sub(1), phase }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breadcrumb_survives_the_table_and_garbage() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
            assert_eq!(Breadcrumb::from_word(Breadcrumb::word(7, phase)), Breadcrumb { module: Some(7), phase });
        }
        assert_eq!(Breadcrumb::from_word(0), Breadcrumb { module: None, phase: Phase::None });
        assert_eq!(Breadcrumb::from_word(u64::MAX).phase, Phase::None);
    }
}
