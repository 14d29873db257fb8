//! SDK
pub mod abi;
