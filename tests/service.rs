//! What modules do for a service: datagrams, timers, shared memory and locks.

#[path = "service/http.rs"]
mod http;
#[path = "service/http_clients.rs"]
mod http_clients;
#[path = "service/kv.rs"]
mod kv;
#[path = "service/listeners.rs"]
mod listeners;
#[path = "service/shared_memory.rs"]
mod shared_memory;
#[path = "service/sip.rs"]
mod sip;
#[path = "service/sip_torture.rs"]
mod sip_torture;
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
#[path = "service/udp.rs"]
mod udp;
