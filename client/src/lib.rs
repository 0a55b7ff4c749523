//! Consul JSON types and an async client.
