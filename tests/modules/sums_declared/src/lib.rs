//! An interface that two modules share, declared outside the SDK.
#![forbid(unsafe_code)]

module_api::interface! {
    /// Adds things up.
    pub interface Sums "test.sums" 1.1, exported by ExportSums {
        /// The sum under that name, with `value` added.
        fn add(name: &str, value: u64) -> u64;
        /// Fails with this text; panics if it is empty.
        fn fail(text: &[u8]);
        /// Ends the process by a crash.
        fn crash(really: bool) -> bool;
    }
}
