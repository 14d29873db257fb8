//! Books amounts under a shared lock through the safe SDK, and dies within a booking when told to.
//! For the row of the failure table about a process that dies while it holds a lock.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use module_api::prelude::*;

module_api::shm_struct! {
    struct Books {
        debit: u64,
        credit: u64,
    }
}

struct Ledger {
    books: ShmMutex<Books>,
    repairs: Shm<AtomicU64>,
    booked: Option<PerProcess<AtomicU64>>,
}

impl Module for Ledger {
    type Params = ();
    type Child = ();

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        Ok(Ledger { books: cx.mutex(Books { debit: 0, credit: 0 })?, repairs: cx.shm_zeroed()?, booked: None })
    }

    fn proc_init(&mut self, cx: &mut ProcInit<'_, Self>) -> Result<()> {
        self.booked = Some(cx.per_process()?);
        Ok(())
    }

    fn child_init(&self, _: &mut ChildInit<'_>) -> Result<()> {
        Ok(())
    }
}

impl Ledger {
    /// `book AMOUNT`, `abort AMOUNT`, `panic AMOUNT` (both between debit and credit), or `sums`.
    fn serve(&self, (): &mut (), batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            let text = String::from_utf8_lossy(datagram.data()).into_owned();
            let (order, amount) = text.split_once(' ').unwrap_or((&text, "0"));
            let amount: u64 = amount.parse()?;
            let mut books = self.books.lock_or_repair(|books, dead| {
                warn!(process_no = dead.process_no(), "repairs what a dead process has left");
                self.repairs.fetch_add(1, Relaxed);
                books.debit = books.credit;
            })?;
            if order != "sums" {
                books.debit += amount;
                match order {
                    "abort" => std::process::abort(),
                    "panic" => panic!("in the middle of it"),
                    _ => books.credit += amount,
                }
                self.booked.as_ref().context("PROC_INIT has run")?.mine().fetch_add(1, Relaxed);
            }
            let booked: u64 = self.booked.iter().flat_map(|booked| booked.iter()).map(|own| own.load(Relaxed)).sum();
            let answer = format!("debit={} credit={} booked={booked} repairs={}", books.debit, books.credit, self.repairs.load(Relaxed));
            drop(books);
            datagram.reply_with(answer.len(), |buffer| {
                buffer.copy_from_slice(answer.as_bytes());
                answer.len()
            })?;
        }
        Ok(())
    }
}

export_module! {
    Ledger,
    name: "ledger",
    udp: {
        "serve" => Ledger::serve,
    },
}
