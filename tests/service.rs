//! Services that modules provide and use: datagrams, streams, timers, shared memory and locks.

#[path = "service/accept_workers.rs"]
mod accept_workers;
#[path = "service/from_outside.rs"]
mod from_outside;
#[path = "service/http.rs"]
mod http;
#[path = "service/http_clients.rs"]
mod http_clients;
#[path = "service/interfaces.rs"]
mod interfaces;
#[path = "service/kills.rs"]
mod kills;
#[path = "service/kv.rs"]
mod kv;
#[path = "service/listeners.rs"]
mod listeners;
#[path = "service/resets.rs"]
mod resets;
#[path = "service/shared_memory.rs"]
mod shared_memory;
#[path = "service/sip.rs"]
mod sip;
#[path = "service/sip_torture.rs"]
mod sip_torture;
#[path = "service/slow_senders.rs"]
mod slow_senders;
#[path = "service/stats.rs"]
mod stats;
#[path = "service/status.rs"]
mod status;
#[path = "service/streams.rs"]
mod streams;
#[path = "service/timers.rs"]
mod timers;
#[path = "service/tls.rs"]
mod tls;
#[path = "service/tls_restart.rs"]
mod tls_restart;
#[path = "service/udp.rs"]
mod udp;
#[path = "service/zero_window.rs"]
mod zero_window;
