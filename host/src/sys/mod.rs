//! System calls and raw memory behind safe functions. One folder per topic, one purpose per file:
//!
//! ```text
//! descriptor.rs           replacing, closing and writing to descriptors
//! notify.rs               messages to the service manager
//! random.rs               random bytes from the kernel
//! time.rs                 clocks and sleeping
//! fast_fork/              what keeps a fork cheap
//!   process_identity.rs   who this process is, on a page that every fork wipes
//!   child_calls.rs        the system calls of a child's prologue
//!   raw_call.rs           a system call without the C library
//! memory/
//!   mapping.rs            anonymous memory, shared or private
//!   robust_mutex.rs       locks that survive the death of their owner
//! process/
//!   fork.rs               the only file that forks
//!   exit.rs               leaving a forked process
//!   ended.rs              whether another process has ended
//!   signal.rs             signals as a descriptor, as a stop flag, or at their default
//!   credentials.rs        users, groups, giving up privileges
//!   environment.rs        taking a variable out of the environment
//!   counts.rs             how many threads and descriptors this process has
//!   title.rs              what `ps` and `top` show
//! socket/
//!   options.rs            making, binding and configuring sockets
//!   accept.rs             accepting connections and sending on them
//!   socket_address.rs     addresses in the kernel's form
//!   interfaces.rs         network interfaces and their addresses
//!   readiness.rs          waiting for several sockets
//!   seqpacket.rs          links between the host's processes
//! udp/
//!   datagrams.rs          receiving and answering in batches
//!   buffers.rs            the memory of those batches
//!   socket.rs             a bound datagram socket
//!   packet_info.rs        the address that a datagram was sent to
//! ```
//!
//! *Runs in:* every process, every phase. *Never:* knows a module, a configuration or a policy.

pub mod descriptor;
pub mod fast_fork;
pub mod memory;
pub mod notify;
pub mod process;
pub mod random;
pub mod socket;
pub mod time;
pub mod udp;
