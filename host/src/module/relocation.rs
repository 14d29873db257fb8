//! Reads a module's data from its file, with each pointer as it will be once the dynamic loader has
//! relocated it.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`. *Never:* applies a relocation
//! outside the bytes asked for, or follows one to another file.

use object::elf;

use super::elf::{Dynamic, Image, offset};
use super::findings::Obstacle;
use super::table::{Pointer, TEXT_MAX_BYTES, TableReader};

const RELA_BYTES: usize = 24;
const RELR_BYTES: usize = 8;
/// Entries read at a time.
const CHUNK: usize = 512;
/// Enough for half a gigabyte of pointers. Each entry describes up to 63 of them, so this bounds
/// the time more than the size.
const RELR_MAX_BYTES: u64 = 8 << 20;
/// More relocations than the largest table has fields.
const FOUND_MAX: usize = 1 << 16;

#[derive(Debug, Clone, Copy)]
enum Relocation {
    Address(u64),
    /// The address is at the place of the pointer already.
    InPlace,
    Symbol {
        index: u32,
        addend: u64,
    },
    Other,
}

/// The data of a module's file, as it will be in memory.
pub struct RelocatedFile<'i> {
    image: &'i mut Image,
    dynamic: &'i Dynamic,
    chunks: RelocationChunks,
}

/// The state of reading one file's relocation table, so that it need not be read again for each
/// part of the data: the linker sorts it by address, and a part then has its relocations in one
/// chunk or two.
#[derive(Debug, Default)]
struct RelocationChunks {
    /// Of each chunk read so far: the lowest and the highest address that its entries apply to.
    spans: Vec<(u64, u64)>,
    /// The chunk that was read last, and its index.
    last: Vec<u8>,
    index: Option<usize>,
}

/// A part of a module's data with the relocations that apply to it.
pub struct RelocatedBytes {
    bytes: Vec<u8>,
    /// Sorted by their offset in `bytes`.
    relocations: Vec<(u64, Relocation)>,
}

impl AsRef<[u8]> for RelocatedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'i> RelocatedFile<'i> {
    pub fn new(image: &'i mut Image, dynamic: &'i Dynamic) -> Self {
        Self { image, dynamic, chunks: RelocationChunks::default() }
    }
}

impl TableReader for RelocatedFile<'_> {
    type Bytes = RelocatedBytes;

    fn bytes(&mut self, address: u64, len_bytes: usize) -> Result<RelocatedBytes, Obstacle> {
        let mut bytes = vec![0; len_bytes];
        self.image.read_memory(address, &mut bytes)?;
        let mut search = RelocationSearch { low: address, high: offset(address, len_bytes as u64)?, found: Vec::new() };
        search.rela(self.image, self.dynamic, &mut self.chunks)?;
        search.relr(self.image, self.dynamic)?;
        // Stable: of several for one place the last in file order wins, as it does when they are
        // applied.
        search.found.sort_by_key(|(at, _)| *at);
        Ok(RelocatedBytes { bytes, relocations: search.found })
    }

    fn pointer(&mut self, bytes: &RelocatedBytes, at: usize) -> Result<Pointer, Obstacle> {
        let end = bytes.relocations.partition_point(|(place, _)| *place <= at as u64);
        let found = end.checked_sub(1).map(|last| bytes.relocations[last]).filter(|(place, _)| *place == at as u64);
        let in_place = self.image.order().u64(&bytes.bytes, at);
        Ok(match found.map(|(_, relocation)| relocation) {
            // Without a relocation it would point into whatever happens to be mapped there.
            None if in_place == 0 => Pointer::Null,
            None | Some(Relocation::Other) => Pointer::Unknown,
            Some(Relocation::Address(address)) => Pointer::Address(address),
            Some(Relocation::InPlace) => Pointer::Address(in_place),
            Some(Relocation::Symbol { index, addend }) => {
                let (symbol, _) = self.image.symbol(self.dynamic, index)?;
                match symbol.defined {
                    true if symbol.kind == elf::STT_GNU_IFUNC.0 || symbol.kind == elf::STT_TLS.0 => Pointer::Unknown,
                    true => Pointer::Address(symbol.address.wrapping_add(addend)),
                    false => Pointer::Elsewhere,
                }
            }
        })
    }

    fn text(&mut self, address: u64) -> Result<String, Obstacle> {
        self.image.text(address, TEXT_MAX_BYTES)
    }

    fn is_writable(&self, address: u64, len_bytes: u64) -> bool {
        self.image.is_writable(address, len_bytes)
    }
}

/// Collects the relocations of a range of addresses.
struct RelocationSearch {
    low: u64,
    high: u64,
    found: Vec<(u64, Relocation)>,
}

impl RelocationSearch {
    fn holds(&self, address: u64) -> bool {
        (self.low..self.high).contains(&address)
    }

    /// Adds a relocation of an address that the range holds.
    fn add(&mut self, address: u64, relocation: Relocation) -> Result<(), Obstacle> {
        if self.found.len() == FOUND_MAX {
            return Err(Obstacle::malformed("its exports table has more relocations than fields"));
        }
        self.found.push((address - self.low, relocation));
        Ok(())
    }

    fn rela(&mut self, image: &mut Image, dynamic: &Dynamic, chunks: &mut RelocationChunks) -> Result<(), Obstacle> {
        let order = image.order();
        let machine = elf::Machine(image.header.machine);
        for (index, (start, len_bytes)) in chunks_of(dynamic.rela_bytes, RELA_BYTES).enumerate() {
            let span = chunks.spans.get(index);
            if span.is_some_and(|(lowest, highest)| *highest < self.low || self.high <= *lowest) {
                continue;
            }
            if chunks.index != Some(index) {
                chunks.index = None;
                chunks.last.resize(len_bytes, 0);
                image.read_memory(offset(dynamic.rela, start)?, &mut chunks.last)?;
                chunks.index = Some(index);
            }
            let (mut lowest, mut highest) = (u64::MAX, 0);
            for entry in chunks.last.as_chunks::<RELA_BYTES>().0 {
                let address = order.u64(entry, 0);
                (lowest, highest) = (lowest.min(address), highest.max(address));
                if self.holds(address) {
                    self.add(address, decode(machine, order.u64(entry, 8), order.u64(entry, 16)))?;
                }
            }
            if index == chunks.spans.len() {
                chunks.spans.push((lowest, highest));
            }
        }
        Ok(())
    }

    /// An even word is the address of a relocated word; an odd one has a bit for each of the next
    /// 63 words.
    fn relr(&mut self, image: &mut Image, dynamic: &Dynamic) -> Result<(), Obstacle> {
        let order = image.order();
        if dynamic.relr_bytes > RELR_MAX_BYTES {
            return Err(Obstacle::malformed("it has more relocations than is plausible"));
        }
        let mut next = 0_u64;
        let mut chunk = Vec::new();
        for (start, len_bytes) in chunks_of(dynamic.relr_bytes, RELR_BYTES) {
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

/// Start and length in bytes of each chunk of a table of whole entries.
fn chunks_of(table_bytes: u64, entry_bytes: usize) -> impl Iterator<Item = (u64, usize)> {
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
