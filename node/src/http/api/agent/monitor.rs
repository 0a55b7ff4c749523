//! `/v1/agent/monitor`: the log of the server that was asked, line by line as it is written.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::HeaderValue;
use futures_util::stream;
use tracing::Level;

use crate::host::log_stream::LineFormat;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use quorate_storage::record::Access;

/// The type of log lines.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/monitor")
            .get(Rule::Server(Access::Read), |call| Box::pin(std::future::ready(monitor(&call)))),
    ]
}

fn monitor(call: &Call) -> Answer {
    let level = level(call.params.filled("loglevel").unwrap_or("info"))?;
    let format =
        if call.params.get("logjson").is_some() { LineFormat::Json } else { LineFormat::Text };
    let reader = call.process.logs.read(level, format);
    let stopping = call.node.stopping().clone();
    let rights = call.watch_rights(&call.node.published())?;
    let begin = (reader, stopping, rights);
    let lines = stream::unfold(begin, |(mut reader, stopping, rights)| async move {
        let line = tokio::select! {
            () = stopping.begun() => None,
            () = rights.changed() => None,
            line = reader.next() => line,
        };
        line.map(|line| (Ok::<_, Infallible>(line), (reader, stopping, rights)))
    });
    Ok(Reply::stream(Body::from_stream(lines), TEXT))
}

/// Consul's names of levels, in any letter case.
fn level(text: &str) -> Result<Level, ApiError> {
    Ok(match text.to_ascii_uppercase().as_str() {
        "TRACE" => Level::TRACE,
        "DEBUG" => Level::DEBUG,
        "INFO" => Level::INFO,
        "WARN" => Level::WARN,
        "ERR" | "ERROR" => Level::ERROR,
        _ => return Err(ApiError::bad_request(format!("Unknown log level: {text}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_consuls_names() {
        assert_eq!(level("warn"), Ok(Level::WARN));
        assert_eq!(level("ERR"), Ok(Level::ERROR));
        assert_eq!(level("loud").unwrap_err().text, "Unknown log level: loud");
    }
}
