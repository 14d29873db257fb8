//! Allocates and frees at random, in boxes, vectors and a map that all processes share, and hands
//! blocks from process to process. For the row of the failure table about a process that dies
//! inside the shared-memory allocator: a test kills its processes meanwhile.

#![forbid(unsafe_code)]

use module_api::prelude::*;

module_api::shm_struct! {
    /// Blocks that one process has allocated and any other may free.
    struct Pool {
        texts: ShmVec<ShmString>,
    }
}

struct Churn {
    map: ShmMap<u32, [u8]>,
    pool: ShmMutex<Pool>,
}

impl Module for Churn {
    type Params = ();
    type Child = Rng;

    fn init(cx: &mut ModInit<'_, Self>, (): ()) -> Result<Self> {
        let map = cx.shm_map(MapOptions { shards: 4 })?;
        Ok(Churn { map, pool: cx.mutex(Pool { texts: ShmVec::new() })? })
    }

    fn child_init(&self, cx: &mut ChildInit<'_>) -> Result<Rng> {
        cx.rng()
    }
}

impl Churn {
    /// `churn COUNT` runs this many operations, `empty` frees everything. The answer is the number
    /// of entries.
    fn serve(&self, rng: &mut Rng, batch: &Batch<'_>) -> Result<()> {
        for datagram in batch {
            let text = String::from_utf8_lossy(datagram.data()).into_owned();
            match text.split_once(' ') {
                Some((_, count)) => (0..count.parse::<u64>()?).try_for_each(|_| self.step(rng))?,
                None => {
                    self.map.scan(|_, _| Scan::Remove)?;
                    self.pool.lock_or_repair(|_, _| {})?.texts.clear();
                }
            }
            datagram.reply(self.map.len().to_string().as_bytes())?;
        }
        Ok(())
    }

    fn step(&self, rng: &mut Rng) -> Result<()> {
        let key = rng.below(2000) as u32;
        match rng.below(8) {
            // The content of a value proves that it is whole.
            0..3 => drop(self.map.insert(&key, &vec![key as u8; rng.below(1 + u64::from(key)) as usize])?),
            3..5 => drop(self.map.remove(&key)?),
            5 => {
                let whole = self.map.get(&key, |value| value.is_none_or(|value| value.iter().all(|byte| *byte == key as u8)))?;
                if !whole {
                    return Err("a value is torn".into());
                }
            }
            6 => {
                let mut pool = self.pool.lock_or_repair(|_, _| {})?;
                if pool.texts.len() < 200 {
                    pool.texts.push(ShmString::new())?;
                    let last = pool.texts.len() - 1;
                    pool.texts[last].push_str(&"x".repeat(rng.below(40_000) as usize))?;
                }
            }
            _ => {
                let mut pool = self.pool.lock_or_repair(|_, _| {})?;
                let index = rng.below(200) as usize;
                pool.texts.swap_remove(index);
                let _gone_at_once = ShmBox::new([0_u64; 100])?;
            }
        }
        Ok(())
    }
}

export_module! {
    Churn,
    name: "churn",
    udp: {
        "serve" => Churn::serve,
    },
}
