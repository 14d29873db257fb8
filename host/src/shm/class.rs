//! Size classes: the sizes of small blocks, and how a span is divided into them.
//!
//! *Runs in:* every process. *Never:* touches shared memory.
//!
//! *Pure:* no clock, no environment, no system call.

/// Smallest block in bytes. All classes are multiples of 16.
pub const MIN_BLOCK_BYTES: usize = 32;
/// Largest block in a span. A larger block is a run of pages.
pub const MAX_SMALL_BYTES: usize = 16 << 10;
pub const PAGE_BYTES: usize = 4096;
/// Maximum number of blocks in a span.
pub const MAX_BLOCKS: usize = 512;

/// Block sizes in bytes, by class.
const SIZES: [u16; 35] = [
    32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584,
    4096, 5120, 6144, 7168, 8192, 10240, 12288, 14336, 16384,
];

pub const CLASS_COUNT: usize = SIZES.len();

/// Makes the table of classes, by size in steps of 16 bytes up to 1 KiB, then of 256 bytes.
const fn lookup() -> [u8; 125] {
    let mut table = [0_u8; 125];
    let (mut index, mut class) = (0, 0);
    while index < table.len() {
        // The largest size that has this index.
        let size = if index <= 64 { index * 16 } else { (index - 60) * 256 };
        while (SIZES[class] as usize) < size {
            class += 1;
        }
        table[index] = class as u8;
        index += 1;
    }
    table
}
static LOOKUP: [u8; 125] = lookup();

const fn shapes() -> [SpanShape; CLASS_COUNT] {
    let mut classes = [SpanShape { size_bytes: 0, pages: 0, blocks: 0, reciprocal: 0 }; CLASS_COUNT];
    let mut class = 0;
    while class < CLASS_COUNT {
        let size_bytes = SIZES[class] as u32;
        // Small blocks are in short spans, so that a process that needs a few of each size does not
        // hold much memory.
        let pages = if size_bytes <= 1024 { 4 } else { 16 };
        let blocks = pages * PAGE_BYTES as u32 / size_bytes;
        classes[class] = SpanShape { size_bytes, pages, blocks, reciprocal: (1_u64 << 32).div_ceil(size_bytes as u64) as u32 };
        class += 1;
    }
    classes
}

pub static SHAPES: [SpanShape; CLASS_COUNT] = shapes();

/// How the spans of one class are divided.
#[derive(Debug, Clone, Copy)]
pub struct SpanShape {
    pub size_bytes: u32,
    /// Pages of a span: 4 or 16. A span starts at a multiple of that.
    pub pages: u32,
    pub blocks: u32,
    /// 2^32 / size, rounded up.
    reciprocal: u32,
}

impl SpanShape {
    /// Number of words in a span's bitmap.
    #[inline(always)]
    pub fn words(&self) -> usize {
        self.blocks.div_ceil(64) as usize
    }

    /// The block that begins at that distance from the span's start. None in the middle of a block,
    /// or past the last.
    #[inline(always)]
    pub fn block_at(&self, offset: usize) -> Option<usize> {
        // Exact, since offset and size are below 2^16 (`division_is_exact`).
        let block = ((offset as u64 * u64::from(self.reciprocal)) >> 32) as usize;
        (block * self.size_bytes as usize == offset && block < self.blocks as usize).then_some(block)
    }

    /// The bits of a word of the bitmap that belong to no block.
    #[inline(always)]
    pub fn unused_bits(&self, word: usize) -> u64 {
        let blocks = (self.blocks as usize).saturating_sub(word * 64);
        if blocks >= 64 { 0 } else { !0 << blocks }
    }
}

/// The smallest class with that size and alignment. None: the block takes a run of pages.
#[inline(always)]
pub fn class_of(size_bytes: usize, align_bytes: usize) -> Option<usize> {
    if size_bytes > MAX_SMALL_BYTES {
        return None;
    }
    let index = if size_bytes <= 1024 { size_bytes.div_ceil(16) } else { 60 + size_bytes.div_ceil(256) };
    // In range for every size up to the largest. If the table were too short, the block would be a
    // run of pages.
    let mut class = usize::from(*LOOKUP.get(index)?);
    if align_bytes > 16 {
        while !(SHAPES.get(class)?.size_bytes as usize).is_multiple_of(align_bytes) {
            class += 1;
        }
    }
    Some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_gets_the_smallest_class() {
        for size in 1..=MAX_SMALL_BYTES {
            let class = class_of(size, 16).unwrap();
            assert!(SHAPES[class].size_bytes as usize >= size);
            assert!(class == 0 || (SHAPES[class - 1].size_bytes as usize) < size, "{size}");
        }
        assert_eq!(class_of(MAX_SMALL_BYTES + 1, 16), None);
    }

    #[test]
    fn alignment_is_kept() {
        for align in (0..=12).map(|shift| 1 << shift) {
            for size in [1, 31, 64, 100, 500, 1025, 4096, 5000, 12_289, 16_384] {
                let shape = SHAPES[class_of(size, align).unwrap()];
                assert!(shape.size_bytes as usize >= size && (shape.size_bytes as usize).is_multiple_of(align.max(16)));
            }
        }
    }

    #[test]
    fn division_is_exact() {
        for class in SHAPES {
            assert!(class.blocks as usize <= MAX_BLOCKS && class.blocks >= 4);
            let bytes = class.pages as usize * PAGE_BYTES;
            for offset in 0..bytes {
                let size = class.size_bytes as usize;
                let block = (offset % size == 0 && offset / size < class.blocks as usize).then_some(offset / size);
                assert_eq!(class.block_at(offset), block, "{class:?} {offset}");
            }
            let bits: u32 = (0..class.words()).map(|word| (!class.unused_bits(word)).count_ones()).sum();
            assert_eq!(bits, class.blocks);
        }
    }
}
