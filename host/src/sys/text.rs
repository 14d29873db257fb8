//! Where code stands in memory.
//!
//! A forked process has none of the program's code in its page tables. The kernel brings it in by pieces of 64 KiB, one page fault each, so what every
//! child runs at once should stand together. The compiler puts functions of one section next to each other.
//!
//! *Runs in:* no process; says where functions stand. *Never:* changes what they do.

/// Puts a function next to the others of a child's first steps: from the fork to the wait for the first datagram.
macro_rules! among_first_steps {
    ($($function:tt)*) => {
        #[allow(unsafe_code)]
        // SAFETY: the section is made of functions alone, and linkers put it where all code is.
        #[unsafe(link_section = ".text.first_steps")]
        $($function)*
    };
}

pub(crate) use among_first_steps;
