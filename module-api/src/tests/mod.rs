//! Tests of the crate against the fake host.

mod data;
#[cfg(feature = "testing")]
mod kinds;
mod lifecycle;
mod map;
mod owned;
