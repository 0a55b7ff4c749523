//! `quorate agent`: a server set up the way a Consul agent is, with Consul's flags and files.
//!
//! Habits, packages and test suites start `consul agent -config-dir DIR`; the same files start a server
//! here, or say by name what keeps them from it.
//!
//! Without `server` the process is a [`client`] agent: it hands requests to the servers in the name of its
//! host, and keeps no state.
//!
//! ```text
//!   flags ──┐
//!           ├──> files: one object ──> keys: what is refused, ──> settings ──> ServerArgs, listeners
//!   files ──┘    (merged)              ignored, honoured              │
//!                                                                     └──> definitions ──> registrar
//!   address: IPs, sockets and templates                                    (services, checks)
//! ```
//!
//! [`flags`] and [`files`] know the outside, [`keys`] which keys mean something here, [`configuration`] what
//! they say, [`first_hcl`](crate::host::first_hcl) how Consul's HCL differs from what is read here, [`settings`] what a server needs. [`definitions`] parses services and checks, and [`registrar`] keeps them registered, at a
//! [`registry`]: the node in this process, or the servers of a [`client`] agent, which [`servers`] reaches.
//! [`anti_entropy`] says what of it a client agent has to register again, and [`ending`] how requests end
//! when one stops,
//! [`datacenter`] whether the servers are its own, and `name` whether its node's name is.
//! [`tls`] reads what is said of certificates. [`dns`] reads what is said of DNS, and [`dns_front`] is that of a client agent.

mod acl;
pub mod address;
pub mod anti_entropy;
pub mod client;
mod configuration;
mod datacenter;
pub mod definitions;
mod dns;
mod dns_front;
mod ending;
pub mod files;
pub mod flags;
mod keys;
mod merge;
mod name;
pub mod registrar;
pub mod registry;
pub mod servers;
pub mod settings;
mod tls;
