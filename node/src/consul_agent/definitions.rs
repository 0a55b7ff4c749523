//! What files define, judged and parsed.

use quorate_storage::command::{Agent, Command};
use quorate_storage::record::{CheckRegistration, ServiceDefinition};
use serde_json::Value;

use super::files::Defined;
use crate::http::parse_definition;

/// What files define, parsed.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) services: Vec<(ServiceDefinition, Vec<CheckRegistration>)>,
    pub(super) checks: Vec<CheckRegistration>,
}

/// Judges what files define, without registering it.
///
/// # Errors
/// The first fault, with the definition that has it.
pub(super) fn judge(defined: &Defined) -> Result<(), String> {
    parse(defined).map(drop)
}

pub(super) fn parse(defined: &Defined) -> Result<Parsed, String> {
    let services = defined.services.iter().zip(1..).map(|(service, place)| {
        let told = |error| format!("service {}: {error}", label(service, place));
        parse_definition::service(service).map_err(told)
    });
    let checks = defined.checks.iter().zip(1..).map(|(check, place)| {
        let told = |error| format!("check {}: {error}", label(check, place));
        parse_definition::check(check).map_err(told)
    });
    Ok(Parsed {
        services: services.collect::<Result<_, _>>()?,
        checks: checks.collect::<Result<_, _>>()?,
    })
}

/// How a fault names a definition: by its id, else its name, else its place. It shows no more of it:
/// a definition may hold passwords, and a fault is logged and told to whoever asked for the reload.
fn label(definition: &Value, place: usize) -> String {
    let text_of = |wanted: &str| {
        let mut members = definition.as_object()?.iter();
        let is_wanted = |key: &str| key.replace('_', "").eq_ignore_ascii_case(wanted);
        members.find(|(key, _)| is_wanted(key))?.1.as_str().filter(|text| !text.is_empty())
    };
    let named = ["checkid", "id", "name"].into_iter().find_map(text_of);
    named.map_or_else(|| format!("number {place}"), |text| format!("{text:?}"))
}

impl Parsed {
    /// What registers it all for an agent.
    pub(super) fn commands(self, agent: &Agent) -> Vec<Command> {
        let services =
            self.services.into_iter().map(|(service, checks)| Command::AgentRegisterService {
                agent: agent.clone(),
                service: Box::new(service),
                checks,
                // Maintenance is such a check, and must outlive a reload.
                replace_existing_checks: false,
            });
        let checks = self.checks.into_iter().map(|check| Command::AgentRegisterCheck {
            agent: agent.clone(),
            check: Box::new(check),
        });
        services.chain(checks).collect()
    }
}

/// A service of a file as the API has it: a check may call its id `id` there, and HCL writes a list of one
/// as the one.
pub(super) fn normal_service(mut service: Value) -> Value {
    let rename = |check: &mut Value| {
        if let Value::Object(check) = check
            && let Some(id) = check.remove("id").or_else(|| check.remove("ID"))
        {
            check.entry("CheckID").or_insert(id);
        }
    };
    let Value::Object(members) = &mut service else { return service };
    for (name, value) in members.iter_mut() {
        match (name.to_ascii_lowercase().as_str(), &mut *value) {
            ("check", Value::Array(blocks)) if blocks.len() == 1 => {
                *value = blocks.remove(0);
                rename(value);
            }
            ("check", check) => rename(check),
            ("checks", Value::Array(checks)) => checks.iter_mut().for_each(rename),
            ("checks", check @ Value::Object(_)) => {
                rename(check);
                *value = Value::Array(vec![value.take()]);
            }
            _ => {}
        }
    }
    service
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_is_told_with_the_name_of_the_definition_and_nothing_else_of_it() {
        let header = json!({"Authorization": ["secret"]});
        let faulty = |mut definition: Value| {
            definition["Header"] = header.clone();
            definition["nope"] = json!(1);
            definition
        };
        let service = |definition| Defined { services: vec![faulty(definition)], checks: vec![] };
        let check = |definition| Defined { services: vec![], checks: vec![faulty(definition)] };
        for (defined, name) in [
            (service(json!({"ID": "a1", "Name": "a"})), "service \"a1\": "),
            (service(json!({"id": "", "name": "a"})), "service \"a\": "),
            (service(json!({"name": 7})), "service number 1: "),
            (check(json!({"check_id": "c", "name": "b"})), "check \"c\": "),
            (check(json!({})), "check number 1: "),
        ] {
            let error = judge(&defined).unwrap_err();
            assert!(error.starts_with(name), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = judge(&service(json!({"name": "a"}))).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
}
