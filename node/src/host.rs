//! What the machine and the operating system give a process: time, tasks, sockets, disks, the log.
//!
//! Nothing here knows of clusters, but for whom their certificates name ([`tls::holder`]). Only [`clock`] reads a clock, and only [`supervise`] starts tasks.

pub mod address;
pub mod by_client;
pub mod causes;
pub mod clock;
pub mod datagrams;
pub mod disk;
pub mod durations;
pub mod figures;
pub(crate) mod first_hcl;
pub mod hexadecimal;
pub mod listen;
pub mod log_rate;
pub mod log_stream;
pub mod logging;
pub mod memory;
pub mod one_line;
pub mod path_error;
pub mod per_client;
pub mod resources;
pub(crate) mod service_manager;
pub mod stopping;
pub mod supervise;
pub mod system;
pub mod threads;
pub mod tls;
