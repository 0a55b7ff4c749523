//! The dashboard in a real browser, at real servers: what it shows, how soon, and that it goes on when they do
//! not.

mod browser;
mod catalogue;
mod failures;
mod keys;
mod looks;
mod scene;
