//! The process around a node: the command line, settings, start and stop.
//!
//! [`cli`] reads the command line and hands over to one of: [`server`], a server of Quorate's own
//! settings ([`config`]); [`consul_agent`], a server or client agent of Consul's; [`recover`]; [`issue`], which
//! makes certificates.
//! [`rpc_listener`] and [`agent_requests`] are a server's RPC port, [`dns_listener`] is its DNS port.

mod agent_requests;
mod certificates;
mod check_args;
pub mod cli;
pub mod config;
pub mod consul_agent;
mod dns_listener;
mod initial_management;
pub mod issue;
pub mod recover;
mod rpc_listener;
pub mod server;
mod signals;
mod worker;
