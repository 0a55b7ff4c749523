//! Which instances a name means: what the HTTP API and DNS look up alike.

pub(crate) mod access;
pub(crate) mod near;
pub(crate) mod query;
pub(crate) mod regexp;
pub(crate) mod template;
