//! The dashboard in a real browser, with real servers: what it shows, how soon, and that it survives their
//! failures.

mod browser;
mod catalogue;
mod claims;
mod failures;
mod keys;
mod looks;
mod scene;
