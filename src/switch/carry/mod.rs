//! What Docker was told that its successor has to be told.
