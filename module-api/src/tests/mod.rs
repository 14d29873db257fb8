//! Tests of the crate against a host made of plain functions.

mod data;
#[cfg(feature = "check")]
mod kinds;
mod lifecycle;
mod map;
mod owned;
