//! The exports table of a module file, read as data.
//!
//! *Runs in:* the supervisor and the commands `check` and `inspect`.
//! *Never:* decides whether the module is good (`judge` does), or trusts a count, a stride or a pointer.

use std::mem::{offset_of, size_of};

use module_api::abi;

use super::elf::{Dynamic, Image, Obstacle, offset};
use super::interface::{Shape, Wish};
use super::params::ParamDecl;
use super::relocation::{Block, Pointer, Seen};

/// Size of the exports table of ABI 1.0; later ones are larger.
pub const EXPORTS_BYTES_1_0: u32 = size_of::<abi::ModuleExports>() as u32;
/// What a module may plausibly declare of each kind.
const COUNT_MAX: u32 = 1024;
const STRIDE_MAX: u32 = 4096;
/// Longest text that is read; what the ABI allows is shorter.
const TEXT_MAX_BYTES: usize = 4096;

// The offsets below are this machine's; they hold for every 64-bit little-endian module.
const _: () = assert!(size_of::<usize>() == 8 && cfg!(target_endian = "little"));

/// What was found under the symbol.
#[derive(Debug, Clone, PartialEq)]
pub enum Table {
    /// No such symbol.
    Absent,
    /// The table could not be read; why.
    Broken {
        /// Its first fields, if they could be.
        header: Option<TableHeader>,
        /// Lower case, to stand behind a colon.
        reason: String,
    },
    /// Another interface, of which only the first fields are known.
    Foreign(TableHeader),
    /// All of it.
    Read(Box<TableInfo>),
}

/// The first fields of every table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableHeader {
    /// `MODULE_MAGIC`.
    pub magic: u64,
    /// Interface the module was built with.
    pub abi_major: u16,
    /// Its minor number.
    pub abi_minor: u16,
    /// Size of the table.
    pub size_bytes: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// Oldest host that will do.
    pub needs_host_minor: u16,
}

/// A module's exports table, as plain data.
#[derive(Debug, Clone, PartialEq)]
pub struct TableInfo {
    /// Magic, version, size, flags.
    pub header: TableHeader,
    /// Name of the module.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence, may be empty.
    pub summary: String,
    /// Declared parameters.
    pub params: Vec<ParamDecl>,
    /// Entry points for traffic.
    pub handlers: Vec<HandlerInfo>,
    /// Other modules it needs.
    pub depends: Vec<DependInfo>,
    /// Tables of functions for other modules.
    pub interfaces: Vec<Shape>,
    /// Those that it wants from others.
    pub binds: Vec<Wish>,
    /// Which functions it exports.
    pub functions: Vec<Function>,
    /// What the loader would trip over, one sentence each; empty if nothing.
    pub problems: Vec<String>,
}

/// A function of the exports table that is not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// Called once in main.
    Init,
    /// Called with the rank.
    InitChild,
    /// Called at the end.
    Destroy,
}

impl Function {
    /// As the table's field is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init_f",
            Self::InitChild => "init_child_f",
            Self::Destroy => "destroy_f",
        }
    }
}

/// A declared handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerInfo {
    /// Name after the colon.
    pub name: String,
    /// `HANDLER_*`.
    pub kind: u32,
    /// One sentence, may be empty.
    pub help: String,
}

/// A declared dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependInfo {
    /// Name of the other module.
    pub name: String,
    /// `DEPEND_*`.
    pub kind: u32,
}

/// Reads the table.
pub fn read(image: &mut Image, dynamic: &Dynamic) -> Table {
    let symbol = match image.find_symbol(dynamic, abi::EXPORTS_SYMBOL) {
        Ok(Some(symbol)) if symbol.defined => symbol,
        Ok(_) => return Table::Absent,
        Err(obstacle) => return broken(None, obstacle),
    };
    if symbol.kind == object::elf::STT_FUNC.0 {
        return Table::Broken { header: None, reason: format!("{} is a function, not a table", abi::EXPORTS_SYMBOL) };
    }
    let mut reader = Reader { image, dynamic, seen: Seen::default() };
    let header = match reader.header(symbol.address) {
        Ok(header) => header,
        Err(obstacle) => return broken(None, obstacle),
    };
    if header.magic != abi::MODULE_MAGIC || header.abi_major != abi::ABI_MAJOR || header.size_bytes < EXPORTS_BYTES_1_0 {
        return Table::Foreign(header);
    }
    if symbol.size_bytes != 0 && symbol.size_bytes < u64::from(header.size_bytes) {
        let reason = format!("it says it has {} bytes, its symbol has {}", header.size_bytes, symbol.size_bytes);
        return Table::Broken { header: Some(header), reason };
    }
    match reader.table(symbol.address, header) {
        Ok(info) => Table::Read(Box::new(info)),
        Err(obstacle) => broken(Some(header), obstacle),
    }
}

fn broken(header: Option<TableHeader>, obstacle: Obstacle) -> Table {
    let reason = match obstacle {
        Obstacle::Malformed(reason) | Obstacle::Unreadable(reason) => reason,
        other => format!("{other:?}"),
    };
    Table::Broken { header, reason }
}

struct Reader<'i> {
    image: &'i mut Image,
    dynamic: &'i Dynamic,
    seen: Seen,
}

/// Where an array's fields are in the table, and the size of an element in ABI 1.0.
struct Array {
    what: &'static str,
    pointer_at: usize,
    count_at: usize,
    stride_at: usize,
    element_bytes: usize,
}

impl Reader<'_> {
    fn header(&mut self, address: u64) -> Result<TableHeader, Obstacle> {
        let block = self.block(address, size_of::<abi::Header>())?;
        Ok(TableHeader {
            magic: block.u64(offset_of!(abi::Header, magic)),
            abi_major: block.u16(offset_of!(abi::Header, abi_major)),
            abi_minor: block.u16(offset_of!(abi::Header, abi_minor)),
            size_bytes: block.u32(offset_of!(abi::Header, size)),
            flags: block.u32(offset_of!(abi::Header, flags)),
            needs_host_minor: block.u16(offset_of!(abi::Header, needs_host_minor)),
        })
    }

    fn table(&mut self, address: u64, header: TableHeader) -> Result<TableInfo, Obstacle> {
        use abi::ModuleExports as T;
        // Fields that a later minor appended are not ours to read.
        let table = self.block(address, EXPORTS_BYTES_1_0 as usize)?;
        let mut info = TableInfo {
            header,
            name: self.required_text(&table, offset_of!(T, name), "the module's name")?,
            version: self.required_text(&table, offset_of!(T, version), "the module's version")?,
            summary: self.text(&table, offset_of!(T, summary), "the module's summary")?.unwrap_or_default(),
            params: Vec::new(),
            handlers: Vec::new(),
            depends: Vec::new(),
            interfaces: Vec::new(),
            binds: Vec::new(),
            functions: Vec::new(),
            problems: Vec::new(),
        };
        for (function, at) in [
            (Function::Init, offset_of!(T, init_f)),
            (Function::InitChild, offset_of!(T, init_child_f)),
            (Function::Destroy, offset_of!(T, destroy_f)),
        ] {
            if self.pointer(&table, at)?.is_set() {
                info.functions.push(function);
            }
        }
        let slot = self.pointer(&table, offset_of!(T, host_slot))?;
        info.problems.extend(self.check_writable(slot, size_of::<abi::HostSlot>(), "host_slot"));
        self.params(&table, &mut info)?;
        self.handlers(&table, &mut info)?;
        self.depends(&table, &mut info)?;
        self.interfaces(&table, &mut info)?;
        self.binds(&table, &mut info)?;
        Ok(info)
    }

    fn params(&mut self, table: &Block, info: &mut TableInfo) -> Result<(), Obstacle> {
        use abi::Param as P;
        let array = Array {
            what: "parameters",
            pointer_at: offset_of!(abi::ModuleExports, params),
            count_at: offset_of!(abi::ModuleExports, param_count),
            stride_at: offset_of!(abi::ModuleExports, param_stride),
            element_bytes: size_of::<P>(),
        };
        let Some((block, places)) = self.array(table, &array)? else { return Ok(()) };
        for at in places {
            let name = self.required_text(&block, at + offset_of!(P, name), "a parameter's name")?;
            let kind = block.u32(at + offset_of!(P, kind));
            let target_bytes = match kind {
                abi::PARAM_BOOL | abi::PARAM_ENUM => 4,
                abi::PARAM_STRING | abi::PARAM_PATH => size_of::<abi::Str>(),
                abi::PARAM_LIST => size_of::<abi::List>(),
                abi::PARAM_TABLE => size_of::<abi::Table>(),
                _ => 8,
            };
            let target = self.pointer(&block, at + offset_of!(P, target))?;
            info.problems.extend(self.check_writable(target, target_bytes, &format!("the target of parameter \"{name}\"")));
            info.params.push(ParamDecl {
                kind,
                flags: block.u32(at + offset_of!(P, flags)),
                default: self.text(&block, at + offset_of!(P, default_text), "a parameter's default")?,
                min: block.u64(at + offset_of!(P, min)) as i64,
                max: block.u64(at + offset_of!(P, max)) as i64,
                help: self.text(&block, at + offset_of!(P, help), "a parameter's help")?.unwrap_or_default(),
                words: self.text(&block, at + offset_of!(P, words), "a parameter's words")?.unwrap_or_default(),
                of: block.u32(at + offset_of!(P, of)),
                name,
            });
        }
        Ok(())
    }

    fn handlers(&mut self, table: &Block, info: &mut TableInfo) -> Result<(), Obstacle> {
        use abi::Handler as H;
        let array = Array {
            what: "handlers",
            pointer_at: offset_of!(abi::ModuleExports, handlers),
            count_at: offset_of!(abi::ModuleExports, handler_count),
            stride_at: offset_of!(abi::ModuleExports, handler_stride),
            element_bytes: size_of::<H>(),
        };
        let Some((block, places)) = self.array(table, &array)? else { return Ok(()) };
        for at in places {
            let name = self.required_text(&block, at + offset_of!(H, name), "a handler's name")?;
            let kind = block.u32(at + offset_of!(H, kind));
            let function_at = match kind {
                abi::HANDLER_UDP => Some(offset_of!(H, on_datagrams)),
                abi::HANDLER_STREAM => Some(offset_of!(H, stream)),
                _ => None,
            };
            if let Some(function_at) = function_at
                && !self.pointer(&block, at + function_at)?.is_set()
            {
                info.problems.push(format!("the handler \"{name}\" has no function"));
            }
            let help = self.text(&block, at + offset_of!(H, help), "a handler's help")?.unwrap_or_default();
            info.handlers.push(HandlerInfo { name, kind, help });
        }
        Ok(())
    }

    fn depends(&mut self, table: &Block, info: &mut TableInfo) -> Result<(), Obstacle> {
        use abi::Dependency as D;
        let array = Array {
            what: "dependencies",
            pointer_at: offset_of!(abi::ModuleExports, depends),
            count_at: offset_of!(abi::ModuleExports, depend_count),
            stride_at: offset_of!(abi::ModuleExports, depend_stride),
            element_bytes: size_of::<D>(),
        };
        let Some((block, places)) = self.array(table, &array)? else { return Ok(()) };
        for at in places {
            let name = self.required_text(&block, at + offset_of!(D, name), "a dependency's name")?;
            info.depends.push(DependInfo { name, kind: block.u32(at + offset_of!(D, kind)) });
        }
        Ok(())
    }

    fn interfaces(&mut self, table: &Block, info: &mut TableInfo) -> Result<(), Obstacle> {
        use abi::Interface as I;
        let array = Array {
            what: "interfaces",
            pointer_at: offset_of!(abi::ModuleExports, interfaces),
            count_at: offset_of!(abi::ModuleExports, interface_count),
            stride_at: offset_of!(abi::ModuleExports, interface_stride),
            element_bytes: size_of::<I>(),
        };
        let Some((block, places)) = self.array(table, &array)? else { return Ok(()) };
        for at in places {
            let shape = Shape {
                name: self.required_text(&block, at + offset_of!(I, name), "an interface's name")?,
                major: block.u16(at + offset_of!(I, major)),
                minor: block.u16(at + offset_of!(I, minor)),
                size_bytes: block.u32(at + offset_of!(I, size)),
                layout: self.text(&block, at + offset_of!(I, layout), "an interface's layout")?,
            };
            if !self.pointer(&block, at + offset_of!(I, table))?.is_set() {
                info.problems.push(format!("the interface \"{}\" has no table", shape.name));
            }
            info.interfaces.push(shape);
        }
        Ok(())
    }

    fn binds(&mut self, table: &Block, info: &mut TableInfo) -> Result<(), Obstacle> {
        use abi::Bind as B;
        let array = Array {
            what: "wanted interfaces",
            pointer_at: offset_of!(abi::ModuleExports, binds),
            count_at: offset_of!(abi::ModuleExports, bind_count),
            stride_at: offset_of!(abi::ModuleExports, bind_stride),
            element_bytes: size_of::<B>(),
        };
        let Some((block, places)) = self.array(table, &array)? else { return Ok(()) };
        for at in places {
            let shape = Shape {
                name: self.required_text(&block, at + offset_of!(B, name), "a wanted interface's name")?,
                major: block.u16(at + offset_of!(B, major)),
                minor: block.u16(at + offset_of!(B, minor)),
                size_bytes: block.u32(at + offset_of!(B, size)),
                layout: self.text(&block, at + offset_of!(B, layout), "a wanted interface's layout")?,
            };
            let slot = self.pointer(&block, at + offset_of!(B, slot))?;
            info.problems.extend(self.check_writable(slot, size_of::<usize>(), &format!("the slot of interface \"{}\"", shape.name)));
            info.binds.push(Wish { shape, kind: block.u32(at + offset_of!(B, kind)) });
        }
        Ok(())
    }

    /// The bytes of an array and where in them its elements begin; `None` if it is empty.
    fn array(&mut self, table: &Block, array: &Array) -> Result<Option<(Block, impl Iterator<Item = usize> + use<>)>, Obstacle> {
        let (count, stride) = (table.u32(array.count_at), table.u32(array.stride_at));
        if count == 0 {
            return Ok(None);
        }
        if count > COUNT_MAX {
            return Err(Obstacle::malformed(format!("it declares {count} {}, at most {COUNT_MAX} are plausible", array.what)));
        }
        if (stride as usize) < array.element_bytes || stride > STRIDE_MAX || stride % 8 != 0 {
            let least = array.element_bytes;
            return Err(Obstacle::malformed(format!("the stride of its {} is {stride}, expected {least} or somewhat more", array.what)));
        }
        let Pointer::Local(address) = self.pointer(table, array.pointer_at)? else {
            return Err(Obstacle::malformed(format!("it declares {count} {}, but does not say where", array.what)));
        };
        let (count, stride) = (count as usize, stride as usize);
        // Not the whole last stride: only the part of the element that 1.0 has need be there.
        let block = self.block(address, (count - 1) * stride + array.element_bytes)?;
        Ok(Some((block, (0..count).map(move |index| index * stride))))
    }

    fn block(&mut self, address: u64, len_bytes: usize) -> Result<Block, Obstacle> {
        Block::read(self.image, self.dynamic, &mut self.seen, address, len_bytes)
    }

    fn pointer(&mut self, block: &Block, at: usize) -> Result<Pointer, Obstacle> {
        block.pointer(self.image, self.dynamic, at)
    }

    fn text(&mut self, block: &Block, at: usize, what: &str) -> Result<Option<String>, Obstacle> {
        match self.pointer(block, at)? {
            Pointer::Null => Ok(None),
            Pointer::Local(address) => self.image.text(address, TEXT_MAX_BYTES).map(Some),
            Pointer::Elsewhere | Pointer::Unknown => Err(Obstacle::malformed(format!("{what} is not a constant of this file"))),
        }
    }

    fn required_text(&mut self, block: &Block, at: usize, what: &str) -> Result<String, Obstacle> {
        self.text(block, at, what)?.ok_or_else(|| Obstacle::malformed(format!("{what} is null")))
    }

    fn check_writable(&mut self, pointer: Pointer, len_bytes: usize, what: &str) -> Option<String> {
        match pointer {
            Pointer::Null => Some(format!("{what} is null")),
            Pointer::Local(address) if offset(address, len_bytes as u64).is_err() || !self.image.is_writable(address, len_bytes as u64) => {
                Some(format!("{what} is not in writable memory"))
            }
            _ => None,
        }
    }
}
