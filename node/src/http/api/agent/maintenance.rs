//! `/v1/agent/maintenance` and `/v1/agent/service/maintenance/`: takes the asking host, or one of its
//! services, out of what is healthy.

use quorate_storage::command::{Agent, Command, Rejection};

use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::params::Params;
use crate::http::reply::Reply;
use crate::http::rights::Rule;

/// Notes of a host's maintenance when no reason was given (Consul's words).
const NODE_REASON: &str = "Maintenance mode is enabled for this node, but no reason was provided. This is a default message.";
/// Notes of a service's maintenance when no reason was given (Consul's words).
const SERVICE_REASON: &str = "Maintenance mode is enabled for this service, but no reason was provided. This is a default message.";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/maintenance").put(Rule::Commands, |call| Box::pin(host(call))),
        Endpoint::new("/v1/agent/service/maintenance/")
            .put(Rule::Commands, |call| Box::pin(service(call))),
    ]
}

async fn host(call: Call) -> Answer {
    let reason = reason(&call.params, NODE_REASON)?;
    let agent = call.agent()?;
    call.propose(Command::SetMaintenance { agent, service_id: "".into(), reason }).await?;
    Ok(Reply::empty())
}

async fn service(call: Call) -> Answer {
    let id = call.required("Missing service ID")?;
    let reason = reason(&call.params, SERVICE_REASON)?;
    let agent = call.agent()?;
    set(&call, agent, id, reason).await
}

async fn set(call: &Call, agent: Agent, id: &str, reason: Option<String>) -> Answer {
    let command = Command::SetMaintenance { agent, service_id: id.into(), reason };
    match call.outcome_of(command).await?.into_result() {
        Ok(_) => Ok(Reply::empty()),
        Err(Rejection::UnknownService(id)) => {
            Err(ApiError::not_found(format!("No service registered with ID {id:?}")))
        }
        Err(rejection) => Err(rejection.into()),
    }
}

/// Why maintenance begins, or `None` if it ends.
fn reason(params: &Params, default: &str) -> Result<Option<String>, ApiError> {
    let text =
        params.get("enable").ok_or_else(|| ApiError::bad_request("Missing value for enable"))?;
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => {
            Ok(Some(params.filled("reason").unwrap_or(default).to_owned()))
        }
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(None),
        text => Err(ApiError::bad_request(format!("Invalid value for enable: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Option<String>, String> {
        reason(&Params::parse(query).unwrap(), "default").map_err(|error| error.text)
    }

    #[test]
    fn it_must_be_said_whether_maintenance_begins_or_ends() {
        assert_eq!(read("reason=x").unwrap_err(), "Missing value for enable");
        assert_eq!(read("enable=maybe").unwrap_err(), "Invalid value for enable: \"maybe\"");
        assert_eq!(read("enable").unwrap_err(), "Invalid value for enable: \"\"");
        assert_eq!(read("enable=false&reason=x"), Ok(None));
    }

    #[test]
    fn maintenance_has_a_reason_even_if_none_is_given() {
        assert_eq!(read("enable=true&reason=up%20date"), Ok(Some("up date".to_owned())));
        assert_eq!(read("enable=1&reason="), Ok(Some("default".to_owned())));
    }
}
