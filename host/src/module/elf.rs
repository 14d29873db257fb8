//! The parts of an ELF file that the loader uses: header, segments, the modhost note, the dynamic
//! section and its symbols.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`. *Never:* trusts an offset, a
//! count or a size; reads section headers (they may be stripped); panics on any bytes.

use module_api::abi;
use object::elf;

use super::byte_order::ByteOrder;
use super::findings::{ElfHeader, Obstacle};
use super::source::FileSource;

/// A real module has some ten segments and thirty dynamic entries.
const SEGMENTS_MAX: u16 = 256;
const DYNAMIC_MAX: u64 = 1024;
const NEEDED_MAX: usize = 64;
const NOTES_MAX_BYTES: u64 = 64 << 10;
const CHAIN_MAX: u32 = 1 << 16;

/// A `PT_LOAD` segment.
#[derive(Debug, Clone, Copy)]
struct LoadSegment {
    address: u64,
    offset: u64,
    file_bytes: u64,
    memory_bytes: u64,
    writable: bool,
}

/// The dynamic section, as far as it is used.
#[derive(Debug, Clone, Default)]
pub struct Dynamic {
    pub(super) symbols: u64,
    strings: u64,
    strings_bytes: u64,
    gnu_hash: u64,
    hash: u64,
    pub(super) rela: u64,
    pub(super) rela_bytes: u64,
    pub(super) relr: u64,
    pub(super) relr_bytes: u64,
    /// Set for programs that are position independent; `dlopen` refuses them.
    pub is_program: bool,
    needed: Vec<u64>,
}

/// A dynamic symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Meaningful if `defined`.
    pub address: u64,
    /// 0 if unknown.
    pub size_bytes: u64,
    /// In this file.
    pub defined: bool,
    /// `STT_*`.
    pub kind: u8,
}

/// An ELF file whose segments lie within it.
pub struct Image {
    source: FileSource,
    pub header: ElfHeader,
    loads: Vec<LoadSegment>,
    /// Address ranges that the dynamic loader makes read-only after relocation.
    relro: Vec<(u64, u64)>,
    /// Offset, size and alignment of each `PT_NOTE` segment.
    notes: Vec<(u64, u64, u64)>,
    /// Offset and size.
    dynamic: Option<(u64, u64)>,
}

impl Image {
    /// Reads the file header alone, which is all that can be said of a file of another
    /// architecture.
    pub fn read_header(source: &mut FileSource) -> Result<ElfHeader, Obstacle> {
        if source.size_bytes() == 0 {
            return Err(Obstacle::Empty);
        }
        let mut ident = [0; 20];
        let there = source.size_bytes().min(20) as usize;
        source.read(0, &mut ident[..there])?;
        if ident[..there.min(4)] != elf::ELFMAG[..there.min(4)] {
            return Err(Obstacle::NotElf(looks_like(&ident[..there])));
        }
        if there < ident.len() {
            return Err(Obstacle::Truncated { have_bytes: there as u64, need_bytes: 64 });
        }
        let bits = match ident[4] {
            1 => 32,
            2 => 64,
            other => return Err(Obstacle::malformed(format!("its class is {other}, neither 32 nor 64 bit"))),
        };
        let big_endian = match ident[5] {
            1 => false,
            2 => true,
            other => return Err(Obstacle::malformed(format!("its byte order is {other}, neither little nor big"))),
        };
        let order = ByteOrder { big_endian };
        Ok(ElfHeader { bits, big_endian, file_type: order.u16(&ident, 16), machine: order.u16(&ident, 18) })
    }

    /// Reads the segments. A file that lacks bytes of a segment is truncated: once mapped, it would
    /// kill the process that reads them.
    pub fn read(mut source: FileSource, header: ElfHeader) -> Result<Self, Obstacle> {
        let is_64 = header.bits == 64;
        let order = ByteOrder { big_endian: header.big_endian };
        let mut bytes = [0; 64];
        source.read(0, &mut bytes[..if is_64 { 64 } else { 52 }])?;
        let (table, entry_bytes, count) = if is_64 {
            (order.u64(&bytes, 32), order.u16(&bytes, 54), order.u16(&bytes, 56))
        } else {
            (u64::from(order.u32(&bytes, 28)), order.u16(&bytes, 42), order.u16(&bytes, 44))
        };
        let entry_want = if is_64 { 56 } else { 32 };
        if count > 0 && entry_bytes != entry_want {
            return Err(Obstacle::malformed(format!("a program header has {entry_bytes} bytes instead of {entry_want}")));
        }
        if count > SEGMENTS_MAX {
            return Err(Obstacle::malformed(format!("it has {count} program headers")));
        }
        let mut image = Self { source, header, loads: Vec::new(), relro: Vec::new(), notes: Vec::new(), dynamic: None };
        for index in 0..u64::from(count) {
            let at = table.checked_add(index * u64::from(entry_want)).ok_or_else(|| Obstacle::malformed("an offset wraps around"))?;
            image.source.read(at, &mut bytes[..usize::from(entry_want)])?;
            image.add_segment(&bytes, order)?;
        }
        Ok(image)
    }

    fn add_segment(&mut self, bytes: &[u8], order: ByteOrder) -> Result<(), Obstacle> {
        let word = |at_64: usize, at_32: usize| match self.header.bits {
            64 => order.u64(bytes, at_64),
            _ => u64::from(order.u32(bytes, at_32)),
        };
        let (offset, address) = (word(8, 4), word(16, 8));
        let (file_bytes, memory_bytes, align) = (word(32, 16), word(40, 20), word(48, 28));
        let flags = order.u32(bytes, if self.header.bits == 64 { 4 } else { 24 });
        let wraps = || Obstacle::malformed("a segment wraps around");
        let end = offset.checked_add(file_bytes).ok_or_else(wraps)?;
        address.checked_add(memory_bytes.max(file_bytes)).ok_or_else(wraps)?;
        let kind = elf::ProgramType(order.u32(bytes, 0));
        if kind == elf::PT_LOAD {
            if end > self.source.size_bytes() {
                return Err(Obstacle::Truncated { have_bytes: self.source.size_bytes(), need_bytes: end });
            }
            self.loads.push(LoadSegment { address, offset, file_bytes, memory_bytes, writable: flags & elf::PF_W.0 != 0 });
        } else if kind == elf::PT_NOTE {
            self.notes.push((offset, file_bytes.min(NOTES_MAX_BYTES), align));
        } else if kind == elf::PT_DYNAMIC {
            self.dynamic = Some((offset, file_bytes));
        } else if kind == elf::PT_GNU_RELRO {
            // Rounded as the dynamic loader does: the page in which it ends stays writable.
            self.relro.push((address, address.saturating_add(memory_bytes) & !0xfff));
        }
        Ok(())
    }

    /// The descriptor of the modhost note, of any architecture.
    pub fn note(&mut self) -> Result<Option<Vec<u8>>, Obstacle> {
        let order = self.order();
        for (offset, size_bytes, align) in self.notes.clone() {
            let mut bytes = vec![0; size_bytes as usize];
            self.source.read(offset, &mut bytes)?;
            let align = if align == 8 { 8 } else { 4 };
            let mut rest = bytes.as_slice();
            while rest.len() >= 12 {
                let (name_len, descriptor_len) = (order.u32(rest, 0) as usize, order.u32(rest, 4) as usize);
                let note_type = order.u32(rest, 8);
                let descriptor_at = 12_usize.saturating_add(name_len).checked_next_multiple_of(align).unwrap_or(usize::MAX);
                let descriptor_end = descriptor_at.saturating_add(descriptor_len);
                let Some(descriptor) = rest.get(descriptor_at..descriptor_end) else { break };
                let name = &rest[12..12 + name_len];
                if note_type == abi::NOTE_TYPE && name.strip_suffix(&[0]) == Some(abi::NOTE_NAME.as_bytes()) {
                    return Ok(Some(descriptor.to_vec()));
                }
                let next = descriptor_end.checked_next_multiple_of(align).unwrap_or(usize::MAX);
                rest = rest.get(next..).unwrap_or_default();
            }
        }
        Ok(None)
    }

    /// `None` for a file without a dynamic section.
    pub fn dynamic(&mut self) -> Result<Option<Dynamic>, Obstacle> {
        let Some((offset, size_bytes)) = self.dynamic else { return Ok(None) };
        let mut dynamic = Dynamic::default();
        for index in 0..(size_bytes / 16).min(DYNAMIC_MAX) {
            let entry = self.words::<2>(offset + index * 16)?;
            let value = entry[1];
            match elf::DynamicTag(entry[0] as i64) {
                elf::DT_NULL => break,
                elf::DT_NEEDED if dynamic.needed.len() < NEEDED_MAX => dynamic.needed.push(value),
                elf::DT_HASH => dynamic.hash = value,
                elf::DT_STRTAB => dynamic.strings = value,
                elf::DT_SYMTAB => dynamic.symbols = value,
                elf::DT_RELA => dynamic.rela = value,
                elf::DT_RELASZ => dynamic.rela_bytes = value,
                elf::DT_STRSZ => dynamic.strings_bytes = value,
                elf::DT_RELRSZ => dynamic.relr_bytes = value,
                elf::DT_RELR => dynamic.relr = value,
                elf::DT_GNU_HASH => dynamic.gnu_hash = value,
                elf::DT_FLAGS_1 => dynamic.is_program = value & elf::DF_1_PIE.0 != 0,
                _ => {}
            }
        }
        Ok(Some(dynamic))
    }

    /// The libraries that the dynamic loader loads with it.
    pub fn needed(&mut self, dynamic: &Dynamic) -> Vec<String> {
        let names = dynamic.needed.iter().filter_map(|name| {
            let at = dynamic.strings.checked_add(*name)?;
            self.text(at, 255).ok()
        });
        names.collect()
    }

    /// The dynamic symbol of that name, through whichever hash table there is.
    pub fn find_symbol(&mut self, dynamic: &Dynamic, name: &str) -> Result<Option<Symbol>, Obstacle> {
        if dynamic.gnu_hash != 0 {
            self.find_by_gnu_hash(dynamic, name)
        } else if dynamic.hash != 0 {
            self.find_by_hash(dynamic, name)
        } else {
            Ok(None)
        }
    }

    fn find_by_gnu_hash(&mut self, dynamic: &Dynamic, name: &str) -> Result<Option<Symbol>, Obstacle> {
        let hash = name.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)));
        let table = dynamic.gnu_hash;
        let [bucket_count, first, bloom_words] = [self.half_at(table, 0)?, self.half_at(table, 1)?, self.half_at(table, 2)?];
        if bucket_count == 0 {
            return Ok(None);
        }
        // The bloom filter is skipped: one look-up gains nothing from it.
        let buckets = offset(table, 16 + u64::from(bloom_words) * 8)?;
        let chains = offset(buckets, u64::from(bucket_count) * 4)?;
        let start = self.half_at(buckets, hash % bucket_count)?;
        if start < first {
            return Ok(None);
        }
        for step in 0..CHAIN_MAX {
            let Some(index) = start.checked_add(step) else { break };
            let chain = self.half_at(chains, index - first)?;
            if chain | 1 == hash | 1
                && let Some(symbol) = self.symbol_if_named(dynamic, index, name)?
            {
                return Ok(Some(symbol));
            }
            if chain & 1 == 1 {
                break;
            }
        }
        Ok(None)
    }

    fn find_by_hash(&mut self, dynamic: &Dynamic, name: &str) -> Result<Option<Symbol>, Obstacle> {
        let hash = name.bytes().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add(u32::from(byte));
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        });
        let [bucket_count, chain_count] = [self.half_at(dynamic.hash, 0)?, self.half_at(dynamic.hash, 1)?];
        if bucket_count == 0 {
            return Ok(None);
        }
        let chains = offset(dynamic.hash, 8 + u64::from(bucket_count) * 4)?;
        let mut index = self.half_at(offset(dynamic.hash, 8)?, hash % bucket_count)?;
        for _ in 0..CHAIN_MAX {
            if index == 0 || index >= chain_count {
                break;
            }
            if let Some(symbol) = self.symbol_if_named(dynamic, index, name)? {
                return Ok(Some(symbol));
            }
            index = self.half_at(chains, index)?;
        }
        Ok(None)
    }

    fn symbol_if_named(&mut self, dynamic: &Dynamic, index: u32, name: &str) -> Result<Option<Symbol>, Obstacle> {
        let (symbol, name_at) = self.symbol(dynamic, index)?;
        if u64::from(name_at) + name.len() as u64 >= dynamic.strings_bytes {
            return Ok(None);
        }
        let mut found = vec![0; name.len() + 1];
        self.read_memory(offset(dynamic.strings, u64::from(name_at))?, &mut found)?;
        Ok((found.strip_suffix(&[0]) == Some(name.as_bytes())).then_some(symbol))
    }

    /// The symbol with that index, and the offset of its name in the string table.
    pub fn symbol(&mut self, dynamic: &Dynamic, index: u32) -> Result<(Symbol, u32), Obstacle> {
        let mut bytes = [0; 24];
        self.read_memory(offset(dynamic.symbols, u64::from(index) * 24)?, &mut bytes)?;
        let order = self.order();
        let symbol = Symbol {
            address: order.u64(&bytes, 8),
            size_bytes: order.u64(&bytes, 16),
            defined: order.u16(&bytes, 6) != 0,
            kind: bytes[4] & 15,
        };
        Ok((symbol, order.u32(&bytes, 0)))
    }

    /// Fills `buffer` with what is at `address` before relocation: from the file, and zero where a
    /// segment is larger than its file part.
    pub fn read_memory(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Obstacle> {
        let end = offset(address, buffer.len() as u64)?;
        let holds = |load: &&LoadSegment| load.address <= address && end <= load.address + load.memory_bytes.max(load.file_bytes);
        let Some(load) = self.loads.iter().find(holds).copied() else {
            return Err(Obstacle::malformed(format!("address {address:#x} lies outside its segments")));
        };
        let into = address - load.address;
        let from_file = load.file_bytes.saturating_sub(into).min(buffer.len() as u64) as usize;
        let (file_part, zero_part) = buffer.split_at_mut(from_file);
        zero_part.fill(0);
        if file_part.is_empty() { Ok(()) } else { self.source.read(load.offset + into, file_part) }
    }

    /// The text at `address` up to its NUL, at most `max_bytes`. Bytes that are not UTF-8 are
    /// replaced.
    pub fn text(&mut self, address: u64, max_bytes: usize) -> Result<String, Obstacle> {
        let mut text = Vec::new();
        let mut chunk = [0; 64];
        while text.len() <= max_bytes {
            let at = offset(address, text.len() as u64)?;
            // A string may end where its segment does: then read less at a time.
            let count = [64, 32, 16, 8, 4, 2, 1].into_iter().find(|count| self.read_memory(at, &mut chunk[..*count]).is_ok());
            let count = count.ok_or_else(|| Obstacle::malformed(format!("the text at address {address:#x} has no end")))?;
            match chunk[..count].iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&chunk[..end]);
                    if text.len() > max_bytes {
                        break;
                    }
                    return Ok(String::from_utf8_lossy(&text).into_owned());
                }
                None => text.extend_from_slice(&chunk[..count]),
            }
        }
        Err(Obstacle::malformed(format!("the text at address {address:#x} is longer than {max_bytes} bytes")))
    }

    /// Whether it is writable once loaded: in a writable segment, and not made read-only after
    /// relocation.
    pub fn is_writable(&self, address: u64, len_bytes: u64) -> bool {
        let Some(end) = address.checked_add(len_bytes) else { return false };
        let in_segment = self.loads.iter().any(|load| load.writable && load.address <= address && end <= load.address + load.memory_bytes);
        in_segment && !self.relro.iter().any(|(low, high)| *low < end && address < *high)
    }

    pub fn order(&self) -> ByteOrder {
        ByteOrder { big_endian: self.header.big_endian }
    }

    fn words<const N: usize>(&mut self, file_offset: u64) -> Result<[u64; N], Obstacle> {
        let mut bytes = [0; 8];
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            self.source.read(offset(file_offset, index as u64 * 8)?, &mut bytes)?;
            *word = self.order().u64(&bytes, 0);
        }
        Ok(words)
    }

    fn half_at(&mut self, table: u64, index: u32) -> Result<u32, Obstacle> {
        let mut bytes = [0; 4];
        self.read_memory(offset(table, u64::from(index) * 4)?, &mut bytes)?;
        Ok(self.order().u32(&bytes, 0))
    }
}

/// An address plus a distance, both untrusted.
pub(super) fn offset(base: u64, distance: u64) -> Result<u64, Obstacle> {
    base.checked_add(distance).ok_or_else(|| Obstacle::malformed("an address wraps around"))
}

fn looks_like(start: &[u8]) -> String {
    let known: [(&[u8], &str); 7] = [
        (b"#!", "a script"),
        (b"!<arch>", "a static library (.a)"),
        (b"MZ", "a Windows program"),
        (b"\xcf\xfa\xed\xfe", "a macOS binary"),
        (b"BC\xc0\xde", "LLVM bitcode"),
        (b"/* GNU ld", "a linker script"),
        (b"\x1f\x8b", "gzip-compressed"),
    ];
    match known.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, name)) => format!("it looks like {name}"),
        None => format!("it begins with \"{}\"", start[..start.len().min(8)].escape_ascii()),
    }
}
