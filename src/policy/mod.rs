//! Decisions, and nothing but: every function here is pure. It reads a pod's specification and what was
//! observed, takes the time as an argument, and answers; it opens no file or socket and holds no state. So
//! each rule is tested by a table or a property, and what the agent will do can be told without doing it.

pub mod qos;
pub mod restart;
pub mod status;
