//! The calls, one file for each area of the API.
//!
//! Each area is a handle that borrows the [`Client`](crate::Client): `client.kv().put(...)`. Reads take a [`Query`] and
//! return a [`Response`](crate::Response) with the value and its index; writes return what they achieved.
//!
//! Every call fails with an [`Error`](crate::Error); only what is special to a call is said at it.
//!
//! [`Query`]: crate::Query

mod acl;
mod agent;
mod catalog;
mod claim;
mod event;
mod explain;
mod health;
mod heartbeat;
mod history;
mod instance;
mod kv;
mod operator;
mod presence;
mod session;
mod snapshot;
mod status;
mod stream;
mod txn;

pub use acl::Acl;
pub use agent::Agent;
pub use catalog::Catalog;
pub use claim::Claims;
pub use event::Events;
pub use explain::Explain;
pub use health::Health;
pub use history::{History, HistoryPage};
pub(crate) use kv::is_nothing;
pub use kv::{Kv, Versioned};
pub use operator::Operator;
pub(crate) use presence::presence_call;
pub use presence::{OnClose, Presence, PresenceFrame};
pub use session::Sessions;
pub use snapshot::Snapshots;
pub use status::Status;
pub use stream::{EventStream, Frame};
pub(crate) use stream::{SILENCE_MAX, stream_call};
pub use txn::{Txn, TxnConflict};
