//! What operators do and see: starts, members, identity, upgrades, backups, recovery, agents, and what logs say.
//!
//! Every test that starts servers takes a [turn](jepsen_style_tests::turn) first, so that none is measured under the
//! load of another.

mod agent_starts;
mod agents;
mod backups;
mod cli;
mod commands;
mod damage;
mod documents;
mod founding;
mod hosts;
mod identity;
mod members;
mod monitoring;
mod outages;
mod packaging;
mod recover;
mod restore;
mod server_health;
mod shell;
mod tls;
mod traces;
mod upgrade;
mod warnings;
