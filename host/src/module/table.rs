//! The exports table: what a module says of itself. One walk reads it from a file before any code
//! of the module runs, and from memory once the module is loaded.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect` over files, main over what it
//! loaded. *Never:* decides whether the module is good (`judge` does), or trusts a count or a
//! stride.
//!
//! *Pure:* no clock, no environment, no system call.
//! A [`TableReader`] brings the bytes.

use std::mem::{offset_of, size_of};

use module_api::abi;

use super::findings::Obstacle;
use super::interface::{ImportRequest, InterfaceShape};
use super::params::ParamDecl;

/// Size of the exports table in ABI 1.0. Like the sizes below it never changes: structs grow at
/// their ends only, and what a module does not have of them reads as zero.
pub const EXPORTS_BYTES_1_0: u32 = 168;
const PARAM_BYTES_1_0: usize = 72;
const HANDLER_BYTES_1_0: usize = 40;
const DEPENDENCY_BYTES_1_0: usize = 16;
const INTERFACE_BYTES_1_0: usize = 32;
const BIND_BYTES_1_0: usize = 40;
/// Size of [`abi::StreamFunctions`] in ABI 1.0.
pub const STREAM_FUNCTIONS_BYTES_1_0: u32 = 48;
/// What a module may plausibly declare of each kind: more is a damaged table.
const COUNT_MAX: u32 = 1024;
const STRIDE_MAX: u32 = 4096;
/// Longest text that is read; what the ABI allows is shorter.
pub const TEXT_MAX_BYTES: usize = 4096;

// The offsets below are this machine's; they hold for every 64-bit little-endian module.
const _: () = assert!(size_of::<usize>() == 8 && cfg!(target_endian = "little"));
const _: () = assert!(offset_of!(abi::ModuleExports, header) == 0 && size_of::<abi::ModuleExports>() >= EXPORTS_BYTES_1_0 as usize);

/// A table that could not be read, or is that of another major version or of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenTable {
    /// Its first fields, if they could be read.
    pub header: Option<TableHeader>,
    /// Lower case, to be put after a colon.
    pub reason: String,
}

/// The numbers that a table and a note have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AbiClaim {
    /// The ABI that the module was built with.
    pub abi_major: u16,
    pub abi_minor: u16,
    /// The oldest host that will do.
    pub needs_host_minor: u16,
    /// `FLAG_*`.
    pub flags: u32,
    pub table_bytes: u32,
}

/// The first fields of every table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableHeader {
    pub magic: u64,
    pub abi: AbiClaim,
    /// With `FLAG_RUST`, to the description of the module's types.
    pub rust: Pointer,
}

/// What a module's exports table says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableClaim {
    pub abi: AbiClaim,
    pub name: String,
    pub version: String,
    /// One sentence, may be empty.
    pub summary: String,
    pub params: Vec<ParamDecl>,
    pub handlers: Vec<HandlerClaim>,
    pub depends: Vec<DependClaim>,
    /// Tables of functions for other modules.
    pub interfaces: Vec<InterfaceShape>,
    /// The interfaces of other modules that it wants; `binds` in the ABI.
    pub imports: Vec<ImportRequest>,
    pub pointers: TablePointers,
}

/// Where a table's pointers lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablePointers {
    pub host_slot: Pointer,
    pub init_f: Pointer,
    pub init_child_f: Pointer,
    pub destroy_f: Pointer,
    /// By index of the parameter.
    pub param_targets: Vec<Pointer>,
    /// By index of the handler.
    pub handlers: Vec<HandlerPointers>,
    /// By index of the interface.
    pub interface_tables: Vec<Pointer>,
    /// By index of the import.
    pub import_slots: Vec<Pointer>,
}

/// Where a handler's functions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandlerPointers {
    /// To `on_datagrams`, or to the [`abi::StreamFunctions`].
    pub entry: Pointer,
    /// The function that every handler of its kind must have: `on_datagrams` or `on_data`.
    pub required: Pointer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerClaim {
    /// The part after the colon in `handler = "module:name"`.
    pub name: String,
    /// `HANDLER_*`.
    pub kind: u32,
    /// One sentence, may be empty.
    pub help: String,
}

/// That the `init_f` of another module runs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependClaim {
    /// Name of the other module.
    pub name: String,
    /// `DEPEND_*`.
    pub kind: u32,
}

/// What a pointer is once the module is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pointer {
    #[default]
    Null,
    /// To this address of the same file, or of this process if the module is loaded.
    Address(u64),
    /// To memory that cannot be written, where the host must write.
    ReadOnly,
    /// To something that another file defines.
    Elsewhere,
    /// Not null, but only running code knows what.
    Unknown,
}

impl Pointer {
    pub fn is_set(self) -> bool {
        self != Self::Null
    }

    /// Whether a pointer can be there, as far as the address is known.
    pub fn is_aligned(self) -> bool {
        !matches!(self, Self::Address(address) if address % size_of::<usize>() as u64 != 0)
    }
}

/// Reads what a table consists of: from a file, through its relocations, or from memory.
pub trait TableReader {
    /// A part of the module's data, with what is known of the pointers in it.
    type Bytes: AsRef<[u8]>;

    /// Reads `len_bytes` at `address`.
    fn bytes(&mut self, address: u64, len_bytes: usize) -> Result<Self::Bytes, Obstacle>;

    /// The pointer at offset `at` of `bytes`, which holds it whole.
    fn pointer(&mut self, bytes: &Self::Bytes, at: usize) -> Result<Pointer, Obstacle>;

    /// The text at `address` up to its NUL, at most [`TEXT_MAX_BYTES`].
    fn text(&mut self, address: u64) -> Result<String, Obstacle>;

    /// Whether the host can write there, as far as the reader can tell.
    fn is_writable(&self, address: u64, len_bytes: u64) -> bool;
}

/// Reads the header of the table at `address`.
pub fn read_header<R: TableReader>(reader: &mut R, address: u64) -> Result<TableHeader, BrokenTable> {
    use abi::Header as H;
    let broken = |obstacle: Obstacle| BrokenTable { header: None, reason: obstacle.reason() };
    let bytes = reader.bytes(address, size_of::<H>()).map_err(broken)?;
    let header = Struct { bytes: &bytes, at: 0, known_bytes: size_of::<H>() };
    Ok(TableHeader {
        magic: header.u64(offset_of!(H, magic)),
        abi: AbiClaim {
            abi_major: header.u16(offset_of!(H, abi_major)),
            abi_minor: header.u16(offset_of!(H, abi_minor)),
            needs_host_minor: header.u16(offset_of!(H, needs_host_minor)),
            flags: header.u32(offset_of!(H, flags)),
            table_bytes: header.u32(offset_of!(H, size)),
        },
        rust: reader.pointer(&bytes, offset_of!(H, rust)).map_err(broken)?,
    })
}

/// Reads the table at `address`. `symbol_bytes` is what its symbol says of its size, 0 if that is
/// unknown.
pub fn read<R: TableReader>(reader: &mut R, address: u64, symbol_bytes: u64) -> Result<Box<TableClaim>, BrokenTable> {
    let header = read_header(reader, address)?;
    let broken = |reason| BrokenTable { header: Some(header), reason };
    let table_bytes = header.abi.table_bytes;
    if header.magic != abi::MODULE_MAGIC || header.abi.abi_major != abi::ABI_MAJOR || table_bytes < EXPORTS_BYTES_1_0 {
        return Err(broken("its header is not that of a table of this ABI".into()));
    }
    if symbol_bytes != 0 && symbol_bytes < u64::from(table_bytes) {
        return Err(broken(format!("it says it has {table_bytes} bytes, its symbol has {symbol_bytes}")));
    }
    Walk { reader }.claim(address, header.abi).map(Box::new).map_err(|obstacle| broken(obstacle.reason()))
}

/// A struct among the bytes that were read. A field past `known_bytes` is one that its module was
/// built without: it reads as zero, or as null.
struct Struct<'b, B> {
    bytes: &'b B,
    at: usize,
    known_bytes: usize,
}

impl<B: AsRef<[u8]>> Struct<'_, B> {
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let known = self.bytes.as_ref().get(self.at..self.at + self.known_bytes).unwrap_or_default();
        known.get(at..at + N).and_then(|field| field.try_into().ok()).unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.field(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }
}

/// Where an array's fields are in the table, and the sizes of an element.
struct Array {
    what: &'static str,
    pointer_at: usize,
    count_at: usize,
    stride_at: usize,
    least_bytes: usize,
    /// In this host's ABI.
    known_bytes: usize,
}

macro_rules! array {
    ($what:literal, [$element:ty; $least_bytes:expr], $pointer:ident, $count:ident, $stride:ident) => {{
        const { assert!(size_of::<$element>() >= $least_bytes) };
        Array {
            what: $what,
            pointer_at: offset_of!(abi::ModuleExports, $pointer),
            count_at: offset_of!(abi::ModuleExports, $count),
            stride_at: offset_of!(abi::ModuleExports, $stride),
            least_bytes: $least_bytes,
            known_bytes: size_of::<$element>(),
        }
    }};
}

struct Walk<'r, R> {
    reader: &'r mut R,
}

impl<R: TableReader> Walk<'_, R> {
    fn claim(&mut self, address: u64, abi: AbiClaim) -> Result<TableClaim, Obstacle> {
        use abi::ModuleExports as T;
        // Fields that a later minor appended are not ours to read.
        let known_bytes = size_of::<T>().min(abi.table_bytes as usize);
        let bytes = self.reader.bytes(address, known_bytes)?;
        let table = &Struct { bytes: &bytes, at: 0, known_bytes };
        let pointers = TablePointers {
            host_slot: self.writable(table, offset_of!(T, host_slot), size_of::<abi::HostSlot>())?,
            init_f: self.pointer(table, offset_of!(T, init_f))?,
            init_child_f: self.pointer(table, offset_of!(T, init_child_f))?,
            destroy_f: self.pointer(table, offset_of!(T, destroy_f))?,
            ..TablePointers::default()
        };
        let mut claim = TableClaim {
            abi,
            name: self.required_text(table, offset_of!(T, name), "the module's name")?,
            version: self.required_text(table, offset_of!(T, version), "the module's version")?,
            summary: self.text(table, offset_of!(T, summary), "the module's summary")?.unwrap_or_default(),
            pointers,
            ..TableClaim::default()
        };
        self.params(table, &mut claim)?;
        self.handlers(table, &mut claim)?;
        self.depends(table, &mut claim)?;
        self.interfaces(table, &mut claim)?;
        self.imports(table, &mut claim)?;
        Ok(claim)
    }

    fn params(&mut self, table: &Struct<'_, R::Bytes>, claim: &mut TableClaim) -> Result<(), Obstacle> {
        use abi::Param as P;
        let array = array!("parameters", [P; PARAM_BYTES_1_0], params, param_count, param_stride);
        self.each(table, &array, |walk, param| {
            let name = walk.required_text(param, offset_of!(P, name), "a parameter's name")?;
            let kind = param.u32(offset_of!(P, kind));
            let target_bytes = match kind {
                abi::PARAM_BOOL | abi::PARAM_ENUM => size_of::<u32>(),
                abi::PARAM_STRING | abi::PARAM_PATH => size_of::<abi::Str>(),
                abi::PARAM_LIST => size_of::<abi::List>(),
                abi::PARAM_TABLE => size_of::<abi::Table>(),
                _ => size_of::<i64>(),
            };
            claim.pointers.param_targets.push(walk.writable(param, offset_of!(P, target), target_bytes)?);
            claim.params.push(ParamDecl {
                name,
                kind,
                flags: param.u32(offset_of!(P, flags)),
                default: walk.text(param, offset_of!(P, default_text), "a parameter's default")?,
                min: param.u64(offset_of!(P, min)) as i64,
                max: param.u64(offset_of!(P, max)) as i64,
                help: walk.text(param, offset_of!(P, help), "a parameter's help")?.unwrap_or_default(),
                words: walk.text(param, offset_of!(P, words), "a parameter's words")?.unwrap_or_default(),
                of: param.u32(offset_of!(P, of)),
            });
            Ok(())
        })
    }

    fn handlers(&mut self, table: &Struct<'_, R::Bytes>, claim: &mut TableClaim) -> Result<(), Obstacle> {
        use abi::Handler as H;
        let array = array!("handlers", [H; HANDLER_BYTES_1_0], handlers, handler_count, handler_stride);
        self.each(table, &array, |walk, handler| {
            let name = walk.required_text(handler, offset_of!(H, name), "a handler's name")?;
            let kind = handler.u32(offset_of!(H, kind));
            let (entry, required) = match kind {
                abi::HANDLER_UDP => {
                    let on_datagrams = walk.pointer(handler, offset_of!(H, on_datagrams))?;
                    (on_datagrams, on_datagrams)
                }
                abi::HANDLER_STREAM => {
                    let stream = walk.pointer(handler, offset_of!(H, stream))?;
                    (stream, walk.on_data(stream)?)
                }
                _ => (Pointer::Null, Pointer::Null),
            };
            claim.pointers.handlers.push(HandlerPointers { entry, required });
            let help = walk.text(handler, offset_of!(H, help), "a handler's help")?.unwrap_or_default();
            claim.handlers.push(HandlerClaim { name, kind, help });
            Ok(())
        })
    }

    /// The one function that a stream handler must have.
    fn on_data(&mut self, stream: Pointer) -> Result<Pointer, Obstacle> {
        use abi::StreamFunctions as S;
        const { assert!(size_of::<S>() >= STREAM_FUNCTIONS_BYTES_1_0 as usize) };
        let Pointer::Address(address) = stream else { return Ok(stream) };
        let known_bytes = size_of::<u32>();
        let bytes = self.reader.bytes(address, known_bytes)?;
        if (Struct { bytes: &bytes, at: 0, known_bytes }).u32(offset_of!(S, size)) < STREAM_FUNCTIONS_BYTES_1_0 {
            return Ok(Pointer::Null);
        }
        let known_bytes = STREAM_FUNCTIONS_BYTES_1_0 as usize;
        let bytes = self.reader.bytes(address, known_bytes)?;
        self.pointer(&Struct { bytes: &bytes, at: 0, known_bytes }, offset_of!(S, on_data))
    }

    fn depends(&mut self, table: &Struct<'_, R::Bytes>, claim: &mut TableClaim) -> Result<(), Obstacle> {
        use abi::Dependency as D;
        let array = array!("dependencies", [D; DEPENDENCY_BYTES_1_0], depends, depend_count, depend_stride);
        self.each(table, &array, |walk, depend| {
            let name = walk.required_text(depend, offset_of!(D, name), "a dependency's name")?;
            claim.depends.push(DependClaim { name, kind: depend.u32(offset_of!(D, kind)) });
            Ok(())
        })
    }

    fn interfaces(&mut self, table: &Struct<'_, R::Bytes>, claim: &mut TableClaim) -> Result<(), Obstacle> {
        use abi::Interface as I;
        let array = array!("interfaces", [I; INTERFACE_BYTES_1_0], interfaces, interface_count, interface_stride);
        self.each(table, &array, |walk, interface| {
            claim.interfaces.push(InterfaceShape {
                name: walk.required_text(interface, offset_of!(I, name), "an interface's name")?,
                major: interface.u16(offset_of!(I, major)),
                minor: interface.u16(offset_of!(I, minor)),
                size_bytes: interface.u32(offset_of!(I, size)),
                layout: walk.text(interface, offset_of!(I, layout), "an interface's layout")?,
            });
            claim.pointers.interface_tables.push(walk.pointer(interface, offset_of!(I, table))?);
            Ok(())
        })
    }

    fn imports(&mut self, table: &Struct<'_, R::Bytes>, claim: &mut TableClaim) -> Result<(), Obstacle> {
        use abi::Bind as B;
        let array = array!("wanted interfaces", [B; BIND_BYTES_1_0], binds, bind_count, bind_stride);
        self.each(table, &array, |walk, bind| {
            let shape = InterfaceShape {
                name: walk.required_text(bind, offset_of!(B, name), "a wanted interface's name")?,
                major: bind.u16(offset_of!(B, major)),
                minor: bind.u16(offset_of!(B, minor)),
                size_bytes: bind.u32(offset_of!(B, size)),
                layout: walk.text(bind, offset_of!(B, layout), "a wanted interface's layout")?,
            };
            claim.imports.push(ImportRequest { shape, kind: bind.u32(offset_of!(B, kind)) });
            claim.pointers.import_slots.push(walk.writable(bind, offset_of!(B, slot), size_of::<usize>())?);
            Ok(())
        })
    }

    /// Reads an array and passes on each of its elements.
    fn each(
        &mut self,
        table: &Struct<'_, R::Bytes>,
        array: &Array,
        mut element: impl FnMut(&mut Self, &Struct<'_, R::Bytes>) -> Result<(), Obstacle>,
    ) -> Result<(), Obstacle> {
        let Array { what, least_bytes, .. } = *array;
        let (count, stride) = (table.u32(array.count_at), table.u32(array.stride_at));
        if count == 0 {
            return Ok(());
        }
        if count > COUNT_MAX {
            return Err(Obstacle::malformed(format!("it declares {count} {what}, at most {COUNT_MAX} are plausible")));
        }
        if (stride as usize) < least_bytes || stride > STRIDE_MAX || stride % 8 != 0 {
            return Err(Obstacle::malformed(format!("the stride of its {what} is {stride}, expected {least_bytes} or somewhat more")));
        }
        let Pointer::Address(address) = self.pointer(table, array.pointer_at)? else {
            return Err(Obstacle::malformed(format!("it declares {count} {what}, but does not say where")));
        };
        let (count, stride) = (count as usize, stride as usize);
        let known_bytes = array.known_bytes.min(stride);
        // Not the whole last stride: the module need not have more of the last element than we
        // know.
        let bytes = self.reader.bytes(address, (count - 1) * stride + known_bytes)?;
        (0..count).try_for_each(|index| element(self, &Struct { bytes: &bytes, at: index * stride, known_bytes }))
    }

    fn pointer(&mut self, of: &Struct<'_, R::Bytes>, at: usize) -> Result<Pointer, Obstacle> {
        if at + size_of::<usize>() > of.known_bytes {
            return Ok(Pointer::Null);
        }
        self.reader.pointer(of.bytes, of.at + at)
    }

    /// A pointer to where the host writes.
    fn writable(&mut self, of: &Struct<'_, R::Bytes>, at: usize, len_bytes: usize) -> Result<Pointer, Obstacle> {
        Ok(match self.pointer(of, at)? {
            Pointer::Address(address) if !self.reader.is_writable(address, len_bytes as u64) => Pointer::ReadOnly,
            pointer => pointer,
        })
    }

    fn text(&mut self, of: &Struct<'_, R::Bytes>, at: usize, what: &str) -> Result<Option<String>, Obstacle> {
        match self.pointer(of, at)? {
            Pointer::Null => Ok(None),
            Pointer::Address(address) => self.reader.text(address).map(Some),
            _ => Err(Obstacle::malformed(format!("{what} is not a constant of this file"))),
        }
    }

    fn required_text(&mut self, of: &Struct<'_, R::Bytes>, at: usize, what: &str) -> Result<String, Obstacle> {
        self.text(of, at, what)?.ok_or_else(|| Obstacle::malformed(format!("{what} is null")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_the_module_was_built_without_is_zero() {
        let bytes = [0xff_u8; 32];
        let older = Struct { bytes: &bytes, at: 8, known_bytes: 12 };
        assert_eq!((older.u64(0), older.u32(8), older.u32(12), older.u64(8), older.u16(16)), (u64::MAX, u32::MAX, 0, 0, 0));
    }
}
