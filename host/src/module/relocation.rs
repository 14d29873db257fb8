//! What a pointer in a module's data will be once the dynamic loader has done its work.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`.
//! *Never:* applies a relocation outside the stretch of memory asked for, or follows one to another file.

use object::elf;

use super::elf::{Dynamic, Image, Obstacle, Order, offset};

const RELA_BYTES: usize = 24;
const RELR_BYTES: usize = 8;
/// Entries read at a time.
const CHUNK: usize = 512;
/// Enough for half a gigabyte of pointers; each entry stands for up to 63 of them, so this bounds the time more than the size does.
const RELR_MAX_BYTES: u64 = 8 << 20;
/// More relocations than the largest table has fields.
const FOUND_MAX: usize = 1 << 16;

/// A pointer, as it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    /// Null.
    Null,
    /// To this address of the same file.
    Local(u64),
    /// To something that another file defines.
    Elsewhere,
    /// Not null, but only running code knows what.
    Unknown,
}

impl Pointer {
    /// Whether it is anything but null.
    pub fn is_set(self) -> bool {
        self != Self::Null
    }
}

#[derive(Debug, Clone, Copy)]
enum Relocation {
    Address(u64),
    /// The address stands where the pointer will.
    InPlace,
    Symbol {
        index: u32,
        addend: u64,
    },
    Other,
}

/// What is known of the relocation table of one image, so that it need not be read again for each stretch: the linker sorts it by
/// address, and a stretch then has its relocations in one chunk or two.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of each chunk read so far: the lowest and the highest address that its entries apply to.
    spans: Vec<(u64, u64)>,
    /// The last chunk read, and its index.
    chunk: Vec<u8>,
    index: Option<usize>,
}

/// A stretch of a module's memory with the relocations that apply to it.
pub struct Block {
    order: Order,
    bytes: Vec<u8>,
    /// Sorted by their place within the stretch.
    relocations: Vec<(u64, Relocation)>,
}

impl Block {
    /// Reads `len_bytes` at `address`.
    pub fn read(image: &mut Image, dynamic: &Dynamic, seen: &mut Seen, address: u64, len_bytes: usize) -> Result<Self, Obstacle> {
        let mut bytes = vec![0; len_bytes];
        image.read_memory(address, &mut bytes)?;
        let mut search = Search { low: address, high: offset(address, len_bytes as u64)?, found: Vec::new() };
        search.rela(image, dynamic, seen)?;
        search.relr(image, dynamic)?;
        // Stable: of several for one place the last in file order wins, as it does when they are applied.
        search.found.sort_by_key(|(at, _)| *at);
        Ok(Self { order: image.order(), bytes, relocations: search.found })
    }

    /// A 16-bit number.
    pub fn u16(&self, at: usize) -> u16 {
        self.order.u16(&self.bytes, at)
    }

    /// A 32-bit number.
    pub fn u32(&self, at: usize) -> u32 {
        self.order.u32(&self.bytes, at)
    }

    /// A 64-bit number.
    pub fn u64(&self, at: usize) -> u64 {
        self.order.u64(&self.bytes, at)
    }

    /// The pointer at that place.
    pub fn pointer(&self, image: &mut Image, dynamic: &Dynamic, at: usize) -> Result<Pointer, Obstacle> {
        let end = self.relocations.partition_point(|(place, _)| *place <= at as u64);
        let found = end.checked_sub(1).map(|last| self.relocations[last]).filter(|(place, _)| *place == at as u64);
        let in_place = self.u64(at);
        Ok(match found.map(|(_, relocation)| relocation) {
            // Without a relocation it would point into whatever happens to be mapped there.
            None if in_place == 0 => Pointer::Null,
            None | Some(Relocation::Other) => Pointer::Unknown,
            Some(Relocation::Address(address)) => Pointer::Local(address),
            Some(Relocation::InPlace) => Pointer::Local(in_place),
            Some(Relocation::Symbol { index, addend }) => {
                let (symbol, _) = image.symbol(dynamic, index)?;
                match symbol.defined {
                    true if symbol.kind == elf::STT_GNU_IFUNC.0 || symbol.kind == elf::STT_TLS.0 => Pointer::Unknown,
                    true => Pointer::Local(symbol.address.wrapping_add(addend)),
                    false => Pointer::Elsewhere,
                }
            }
        })
    }
}

struct Search {
    low: u64,
    high: u64,
    found: Vec<(u64, Relocation)>,
}

impl Search {
    fn holds(&self, address: u64) -> bool {
        (self.low..self.high).contains(&address)
    }

    /// Adds a relocation of an address that the stretch holds.
    fn add(&mut self, address: u64, relocation: Relocation) -> Result<(), Obstacle> {
        if self.found.len() == FOUND_MAX {
            return Err(Obstacle::malformed("its exports table has more relocations than fields"));
        }
        self.found.push((address - self.low, relocation));
        Ok(())
    }

    fn rela(&mut self, image: &mut Image, dynamic: &Dynamic, seen: &mut Seen) -> Result<(), Obstacle> {
        let order = image.order();
        let machine = elf::Machine(image.header.machine);
        for (index, (start, len_bytes)) in chunks(dynamic.rela_bytes, RELA_BYTES).enumerate() {
            let span = seen.spans.get(index);
            if span.is_some_and(|(lowest, highest)| *highest < self.low || self.high <= *lowest) {
                continue;
            }
            if seen.index != Some(index) {
                seen.index = None;
                seen.chunk.resize(len_bytes, 0);
                image.read_memory(offset(dynamic.rela, start)?, &mut seen.chunk)?;
                seen.index = Some(index);
            }
            let (mut lowest, mut highest) = (u64::MAX, 0);
            for entry in seen.chunk.as_chunks::<RELA_BYTES>().0 {
                let address = order.u64(entry, 0);
                (lowest, highest) = (lowest.min(address), highest.max(address));
                if self.holds(address) {
                    self.add(address, decode(machine, order.u64(entry, 8), order.u64(entry, 16)))?;
                }
            }
            if index == seen.spans.len() {
                seen.spans.push((lowest, highest));
            }
        }
        Ok(())
    }

    /// An even word is the address of one relocated word; an odd one says which of the next 63 words are.
    fn relr(&mut self, image: &mut Image, dynamic: &Dynamic) -> Result<(), Obstacle> {
        let order = image.order();
        if dynamic.relr_bytes > RELR_MAX_BYTES {
            return Err(Obstacle::malformed("it has more relocations than is plausible"));
        }
        let mut next = 0_u64;
        let mut chunk = Vec::new();
        for (start, len_bytes) in chunks(dynamic.relr_bytes, RELR_BYTES) {
            chunk.resize(len_bytes, 0);
            image.read_memory(offset(dynamic.relr, start)?, &mut chunk)?;
            for entry in chunk.as_chunks::<RELR_BYTES>().0.iter().map(|entry| order.u64(entry, 0)) {
                if entry & 1 == 0 {
                    next = entry.wrapping_add(8);
                    if self.holds(entry) {
                        self.add(entry, Relocation::InPlace)?;
                    }
                    continue;
                }
                for place in (0..63).filter(|bit| entry >> (bit + 1) & 1 == 1).map(|bit| next.wrapping_add(bit * 8)) {
                    if self.holds(place) {
                        self.add(place, Relocation::InPlace)?;
                    }
                }
                next = next.wrapping_add(63 * 8);
            }
        }
        Ok(())
    }
}

/// Where in a table of whole entries each chunk begins, and its length in bytes.
fn chunks(table_bytes: u64, entry_bytes: usize) -> impl Iterator<Item = (u64, usize)> {
    let total = table_bytes - table_bytes % entry_bytes as u64;
    let most = entry_bytes * CHUNK;
    (0..total).step_by(most).map(move |start| (start, (total - start).min(most as u64) as usize))
}

fn decode(machine: elf::Machine, info: u64, addend: u64) -> Relocation {
    let kind = elf::RelocationType(info as u32);
    let symbol = Relocation::Symbol { index: (info >> 32) as u32, addend };
    match machine {
        elf::EM_X86_64 => match kind {
            elf::R_X86_64_RELATIVE => Relocation::Address(addend),
            elf::R_X86_64_64 | elf::R_X86_64_GLOB_DAT => symbol,
            _ => Relocation::Other,
        },
        elf::EM_AARCH64 => match kind {
            elf::R_AARCH64_RELATIVE => Relocation::Address(addend),
            elf::R_AARCH64_ABS64 | elf::R_AARCH64_GLOB_DAT => symbol,
            _ => Relocation::Other,
        },
        _ => Relocation::Other,
    }
}
