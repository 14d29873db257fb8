//! Tests of the crate against a host made of plain functions.

mod data;
mod lifecycle;
mod map;
mod owned;
