//! Ends, collection of what is dead, log rotation.
