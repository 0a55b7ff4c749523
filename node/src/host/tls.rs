//! TLS: certificates in files, whom they name, and connections that are secured by them.
//!
//! At the port for servers both sides prove who they are ([`members`]): certificates come from the cluster's own
//! CA and say the name, the role and the datacenter of their holder ([`holder`]). Both sides check that during the
//! handshake, so nothing of a stranger is read beyond it, and no more than [`bounded::HANDSHAKE_BYTES_MAX`] bytes
//! during it.
//!
//! At the port for clients the server proves that it is the host they asked for, and may ask for their certificates
//! ([`https`]).
//!
//! Certificates, keys and CAs are read again on request ([`credentials`]); connections that are open stay open and
//! new ones use the new files. What cannot be used leaves the old ones in force. No TLS session is resumed
//! between servers, so every connection is checked against the present CA. How long they are still valid is told in time
//! ([`ends`]).
//!
//! Everything uses one provider of cryptography, `ring` ([`provider`]).

pub mod bounded;
pub mod credentials;
pub mod ends;
pub mod failure;
pub mod holder;
pub mod https;
pub mod members;
pub mod provider;

use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use self::bounded::Bounded;
use super::listen::Stream;

/// A connection that was accepted, with or without TLS.
pub type Accepted = Either<Stream, Box<TlsStream<Bounded<Stream>>>>;
