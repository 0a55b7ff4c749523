//! Roles.

use std::sync::Arc;

use quorate_client::types::acl::AclRole;
use quorate_storage::command::{AclCommand, RoleRequest};
use quorate_storage::record::{self, Access, AclKind};
use quorate_storage::{State, Topic};
use uuid::Uuid;

use super::{
    body, change, check_name, hash_of, is_linked, links, node_identities, policies, refuse_id,
    refuse_off, refuse_other_id, require, service_identities, uuid,
};
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::rights::{Rule, no_token};

/// The longest name (Consul's).
const NAME_BYTES_MAX: usize = 256;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/acl/role").put(Rule::Commands, |call| Box::pin(create(call))),
        Endpoint::new("/v1/acl/role/")
            .get(Rule::Rows, |call| Box::pin(read(call)))
            .put(Rule::Commands, |call| Box::pin(update(call)))
            .delete(Rule::Commands, |call| Box::pin(remove(call))),
        Endpoint::new("/v1/acl/role/name/").get(Rule::Rows, |call| Box::pin(read_named(call))),
        Endpoint::new("/v1/acl/roles").get(Rule::Rows, |call| Box::pin(list(call))),
    ]
}

// ---- reads -----------------------------------------------------------------------------------

async fn read(call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.required("Bad request: Missing role ID")?;
    require(&call, Access::Read).await?;
    let id = uuid(asked).ok_or_else(|| {
        ApiError::internal("failed acl role lookup: index error: UUID must be 36 characters")
    })?;
    one(&call, |state| state.acl_role(&id)).await
}

async fn read_named(call: Call) -> Answer {
    refuse_off(&call)?;
    let name = call.required("Bad request: Missing role Name")?;
    require(&call, Access::Read).await?;
    one(&call, |state| state.acl_role_named(name)).await
}

async fn one(call: &Call, find: impl Fn(&State) -> Option<&Arc<record::AclRole>>) -> Answer {
    let options = call.read_options()?;
    let one = |state: &State| {
        call.rights(state)?.require(AclKind::Acl, "", Access::Read)?;
        match find(state) {
            Some(row) => call.json(&shown(state, row)),
            None => Ok(Reply::nothing()),
        }
    };
    blocking::read(call, &options, |_| Topic::AclRoles, one).await
}

async fn list(call: Call) -> Answer {
    refuse_off(&call)?;
    let options = call.read_options()?;
    require(&call, Access::Read).await?;
    let policy = call.params.filled("policy");
    let all = |state: &State| {
        call.rights(state)?.require(AclKind::Acl, "", Access::Read)?;
        let rows = state.acl_roles().filter(|row| is_linked(&row.links.policies, policy));
        call.json(&rows.map(|row| shown(state, row)).collect::<Vec<_>>())
    };
    blocking::read(&call, &options, |_| Topic::AclRoles, all).await
}

fn shown(state: &State, row: &record::AclRole) -> AclRole {
    let mut shown = AclRole {
        id: row.id.to_string(),
        name: row.name.clone(),
        description: row.description.clone(),
        policies: policies(state, &row.links),
        service_identities: service_identities(&row.links),
        node_identities: node_identities(&row.links),
        ..AclRole::default()
    };
    shown.hash = hash_of(&shown);
    shown.create_index = row.indexes.create.0;
    shown.modify_index = row.indexes.modify.0;
    shown
}

// ---- writes ----------------------------------------------------------------------------------

async fn create(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let given: AclRole = body(&mut call, "Role").await?;
    refuse_id("role", &given.id)?;
    require(&call, Access::Write).await?;
    put(&call, Uuid::new_v4().to_string().into(), given, true).await
}

async fn update(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.required("Bad request: Missing role ID")?.to_owned();
    let given: AclRole = body(&mut call, "Role").await?;
    refuse_other_id("Role", &given.id, &asked)?;
    require(&call, Access::Write).await?;
    let id = uuid(&asked).ok_or_else(|| ApiError::internal("invalid acl role id"))?;
    put(&call, id, given, false).await
}

async fn put(call: &Call, id: Arc<str>, given: AclRole, is_new: bool) -> Answer {
    check_name("Role", &given.name, NAME_BYTES_MAX)?;
    let AclRole { name, description, policies, service_identities, node_identities, .. } = given;
    let links = links(call, "role", policies, Vec::new(), service_identities, node_identities)?;
    let request = RoleRequest { id: id.clone(), is_new, name, description, links };
    change(call, AclCommand::PutRole(Box::new(request))).await?;
    let published = call.node.published();
    let state = &published.state;
    call.json(&shown(state, state.acl_role(&id).ok_or_else(no_token)?))
}

async fn remove(call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.required("Bad request: Missing role ID")?;
    require(&call, Access::Write).await?;
    let id =
        uuid(asked).ok_or_else(|| ApiError::internal("role id is missing or an invalid UUID"))?;
    change(&call, AclCommand::DeleteRole { id }).await?;
    call.json(&true)
}
