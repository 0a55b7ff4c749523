//! Policies.

use std::sync::Arc;

use quorate_client::types::acl::{AclPolicy, AclPolicyStub};
use quorate_storage::command::{AclCommand, PolicyRequest};
use quorate_storage::record::{self, Access, AclKind, MANAGEMENT_POLICY};
use quorate_storage::{State, Topic};
use uuid::Uuid;

use super::{
    body, change, check_name, hash_of, refuse_id, refuse_off, refuse_other_id, require, rules, uuid,
};
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::rights::{Rule, no_token};

/// The longest name (Consul's).
const NAME_BYTES_MAX: usize = 128;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/acl/policy").put(Rule::Commands, |call| Box::pin(create(call))),
        Endpoint::new("/v1/acl/policy/")
            .get(Rule::Rows, |call| Box::pin(read(call)))
            .put(Rule::Commands, |call| Box::pin(update(call)))
            .delete(Rule::Commands, |call| Box::pin(remove(call))),
        Endpoint::new("/v1/acl/policy/name/").get(Rule::Rows, |call| Box::pin(read_named(call))),
        Endpoint::new("/v1/acl/policies").get(Rule::Rows, |call| Box::pin(list(call))),
    ]
}

// ---- reads -----------------------------------------------------------------------------------

async fn read(call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.required("Bad request: Missing policy ID")?;
    require(&call, Access::Read).await?;
    let id = uuid(asked).ok_or_else(|| {
        ApiError::internal("failed acl policy lookup: index error: UUID must be 36 characters")
    })?;
    one(&call, |state| state.acl_policy(&id)).await
}

async fn read_named(call: Call) -> Answer {
    refuse_off(&call)?;
    let name = call.required("Bad request: Missing policy Name")?;
    require(&call, Access::Read).await?;
    one(&call, |state| state.acl_policy_named(name)).await
}

async fn one(call: &Call, find: impl Fn(&State) -> Option<&Arc<record::AclPolicy>>) -> Answer {
    let options = call.read_options()?;
    let one = |state: &State| {
        call.rights(state)?.require(AclKind::Acl, "", Access::Read)?;
        // Unlike a role, as in Consul.
        call.json(&shown(find(state).ok_or_else(no_token)?))
    };
    blocking::read(call, &options, |_| Topic::AclPolicies, one).await
}

async fn list(call: Call) -> Answer {
    refuse_off(&call)?;
    let options = call.read_options()?;
    require(&call, Access::Read).await?;
    let all = |state: &State| {
        call.rights(state)?.require(AclKind::Acl, "", Access::Read)?;
        call.json(&state.acl_policies().map(|row| stub(row)).collect::<Vec<_>>())
    };
    blocking::read(&call, &options, |_| Topic::AclPolicies, all).await
}

fn shown(row: &record::AclPolicy) -> AclPolicy {
    let mut shown = AclPolicy {
        id: row.id.to_string(),
        name: row.name.clone(),
        description: row.description.clone(),
        rules: row.text.clone(),
        datacenters: row.datacenters.clone(),
        ..AclPolicy::default()
    };
    shown.hash = hash_of(&shown);
    shown.create_index = row.indexes.create.0;
    shown.modify_index = row.indexes.modify.0;
    shown
}

fn stub(row: &record::AclPolicy) -> AclPolicyStub {
    let AclPolicy { id, name, description, datacenters, hash, create_index, modify_index, .. } =
        shown(row);
    let datacenters = Some(datacenters).filter(|all| !all.is_empty());
    AclPolicyStub { id, name, description, datacenters, hash, create_index, modify_index }
}

// ---- writes ----------------------------------------------------------------------------------

async fn create(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let given: AclPolicy = body(&mut call, "Policy").await?;
    refuse_id("policy", &given.id)?;
    require(&call, Access::Write).await?;
    put(&call, Uuid::new_v4().to_string().into(), given, true).await
}

async fn update(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.required("Bad request: Missing policy ID")?.to_owned();
    let given: AclPolicy = body(&mut call, "Policy").await?;
    refuse_other_id("Policy", &given.id, &asked)?;
    require(&call, Access::Write).await?;
    let id = uuid(&asked).ok_or_else(|| ApiError::internal("invalid acl policy id"))?;
    put(&call, id, given, false).await
}

async fn put(call: &Call, id: Arc<str>, given: AclPolicy, is_new: bool) -> Answer {
    check_name("Policy", &given.name, NAME_BYTES_MAX)?;
    // Those of the policy that allows everything are not read: they only have to stay as they are.
    let rules = match &*id {
        MANAGEMENT_POLICY => Vec::new(),
        _ => rules::parse(&given.rules).map_err(|fault| ApiError::internal(fault.to_string()))?,
    };
    let own = call.node.info().datacenter;
    let AclPolicy { name, description, rules: text, datacenters, .. } = given;
    let counts = datacenters.is_empty() || datacenters.contains(&own);
    let request = PolicyRequest {
        id: id.clone(),
        is_new,
        name,
        description,
        text,
        rules,
        datacenters,
        counts,
    };
    change(call, AclCommand::PutPolicy(Box::new(request))).await?;
    let published = call.node.published();
    call.json(&shown(published.state.acl_policy(&id).ok_or_else(no_token)?))
}

async fn remove(call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.required("Bad request: Missing policy ID")?;
    require(&call, Access::Write).await?;
    let id =
        uuid(asked).ok_or_else(|| ApiError::internal("policy id is missing or an invalid UUID"))?;
    change(&call, AclCommand::DeletePolicy { id }).await?;
    call.json(&true)
}
