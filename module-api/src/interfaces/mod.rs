//! Interfaces of general use, declared here for both exporters and importers.

pub mod http;
