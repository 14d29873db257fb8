//! What a phase does not allow does not compile. Each example is a test.
