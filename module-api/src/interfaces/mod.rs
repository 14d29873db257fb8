//! Interfaces of general use, declared once for those who export and those who bind them.

pub mod http;
