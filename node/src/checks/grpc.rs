//! gRPC checks: `grpc.health.v1.Health/Check`, the protocol that gRPC servers agree on.
//!
//! The target is `HOST:PORT`, or `HOST:PORT/SERVICE` to ask for one service of the server.

use hyper::Uri;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorate_storage::record::CheckDefinition;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Finding;
use super::connect::{Tls, beside, connect};
use super::lookup::Resolver;

/// An answer has a single number in it; nothing longer is read.
const ANSWER_BYTES_MAX: usize = 4_096;

/// Asks, and passes if the answer is `SERVING`.
pub(super) async fn probe(definition: &CheckDefinition, resolver: &Resolver) -> Finding {
    let target = &definition.grpc;
    match ask(definition, resolver).await {
        Ok(ServingStatus::Serving) => Finding::passing(format!("gRPC check {target}: success")),
        Ok(other) => {
            Finding::critical(format!("gRPC {target} serving status: {}", other.as_str_name()))
        }
        Err(status) => Finding::critical(format!(
            "rpc error: code = {:?} desc = {}",
            status.code(),
            status.message()
        )),
    }
}

async fn ask(
    definition: &CheckDefinition,
    resolver: &Resolver,
) -> Result<ServingStatus, tonic::Status> {
    let (server, service) = split(&definition.grpc);
    let scheme = if definition.grpc_use_tls { "https" } else { "http" };
    let origin: Uri = format!("{scheme}://{server}")
        .parse()
        .map_err(|error| tonic::Status::invalid_argument(format!("{server}: {error}")))?;
    let tls = definition.grpc_use_tls.then_some(Tls {
        server_name: &definition.tls_server_name,
        skip_verify: definition.tls_skip_verify,
        protocol: b"h2",
    });
    let stream = connect(resolver, server, tls)
        .await
        .map_err(|error| tonic::Status::unavailable(format!("connection error: {error}")))?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake
        .map_err(|error| tonic::Status::unavailable(format!("connection error: {error}")))?;
    let service_fn = tower::service_fn(move |request| sender.clone().send_request(request));
    let mut client =
        HealthClient::with_origin(service_fn, origin).max_decoding_message_size(ANSWER_BYTES_MAX);
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = beside(connection, client.check(request)).await?;
    Ok(answer.into_inner().status())
}

/// The server, and the service or nothing.
fn split(target: &str) -> (&str, &str) {
    target.split_once('/').unwrap_or((target, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_first_slash_is_the_service() {
        assert_eq!(split("127.0.0.1:50051"), ("127.0.0.1:50051", ""));
        assert_eq!(split("127.0.0.1:50051/a.B/c"), ("127.0.0.1:50051", "a.B/c"));
    }
}
