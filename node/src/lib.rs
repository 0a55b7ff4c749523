//! Quorate's server. (Essay to come.)

#![forbid(unsafe_code)]

pub mod http;
pub mod node;
pub mod watch;
