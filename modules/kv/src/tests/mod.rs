//! The store as a client sees it, without a host.
