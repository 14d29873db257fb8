//! The process table of the fake host: main, workers, timers, control, and the processes that the
//! module registered. A test can replace it.

use super::{Running, SERVICES};
use crate::export::Exported;
use crate::process::{Pid, Rank};
use crate::processes::{ProcessRow, ProcessState};

impl<M: Exported> Running<M> {
    /// The process table that `cx.processes()` reads. `last` is none and uptimes are zero, unless a
    /// test has set them.
    pub fn processes(&self) -> Vec<ProcessRow> {
        self.fake(|fake| fake.processes.clone())
    }

    /// Replaces the process table. A later [`Child::restart`](super::Child::restart) still counts
    /// in the row of its process.
    pub fn set_processes(&self, rows: Vec<ProcessRow>) {
        self.fake(|fake| fake.processes = rows);
    }

    /// Fills the table before `proc_init`: none of the registered processes is forked yet.
    pub(super) fn fill_processes(&self) {
        let workers = self.workers.cast_signed();
        let count = 1 + workers + SERVICES + self.registered_procs().cast_signed();
        let rows = (0..count).map(|process_no| {
            let (rank, name) = match process_no {
                0 => (0, "main".to_owned()),
                rank if rank <= workers => (rank, format!("worker {rank}")),
                other => match other - workers {
                    1 => (Rank::TIMER.number(), "slow timer".to_owned()),
                    2 => (Rank::TIMER.number(), "timer".to_owned()),
                    SERVICES => (Rank::RPC.number(), "control".to_owned()),
                    _ => return ProcessRow::new(process_no as usize, ""),
                },
            };
            self.serving(process_no, Rank::new(rank), &name)
        });
        self.set_processes(rows.collect());
    }

    /// Adds the processes that `proc_main` forked.
    pub(super) fn fill_forked(&self) {
        let first = 1 + self.workers.cast_signed() + SERVICES;
        let forked: Vec<ProcessRow> =
            (first..).zip(self.forked()).map(|(process_no, forked)| self.serving(process_no, forked.rank, &forked.name)).collect();
        self.fake(|fake| {
            for row in forked {
                let process_no = row.process_no;
                if let Some(place) = fake.processes.get_mut(process_no) {
                    *place = row;
                }
            }
        });
    }

    fn serving(&self, process_no: i32, rank: Rank, name: &str) -> ProcessRow {
        ProcessRow {
            rank,
            pid: Some(Pid::new(self.identity(process_no, rank).pid)),
            state: ProcessState::Serving,
            uptime: Some(std::time::Duration::ZERO),
            ..ProcessRow::new(process_no as usize, name)
        }
    }
}
