//! `acl`: tokens, policies and roles.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use quorate_client::types::acl::{
    AclLink, AclNodeIdentity, AclPolicy, AclQuestion, AclRole, AclServiceIdentity, AclToken,
};
use quorate_client::{Error, duration};

use super::failure::Failure;
use super::output::Table;
use super::session::Session;

/// Arguments of `acl`.
#[derive(Debug, Args)]
pub(crate) struct AclArgs {
    #[command(subcommand)]
    area: Area,
}

#[derive(Debug, Subcommand)]
enum Area {
    /// Makes the first token, which may do everything; once
    Bootstrap,
    /// Makes, lists and deletes tokens
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Sets, lists and deletes policies
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Sets, lists and deletes roles
    Role {
        #[command(subcommand)]
        verb: RoleVerb,
    },
    /// Says whether the token of this command may do something; exit code 4 if not
    CanI {
        /// What
        #[arg(value_enum)]
        access: Access,
        /// To what: key, node, service, session, agent, event, query, acl, operator
        kind: String,
        /// Its name, if it has one
        #[arg(default_value = "")]
        name: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Access {
    /// Look
    Read,
    /// List keys
    List,
    /// Change
    Write,
}

impl Access {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "write",
        }
    }
}

/// What a token or a role is linked to.
#[derive(Debug, Args)]
struct Links {
    /// A policy by its name; may be given more than once
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Register instances of this service, and find all others; may be given more than once
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Register this node (NAME:DATACENTER); may be given more than once
    #[arg(long, value_name = "NAME:DC")]
    node: Vec<String>,
    /// A policy of common needs, which is made if it is not there; may be given more than once
    #[arg(long, value_enum)]
    preset: Vec<Preset>,
}

/// Policies of common needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// Sees services, nodes, keys and sessions
    Reader,
    /// Registers services and nodes, and holds locks
    Registrar,
    /// Looks after servers and hosts, but not after tokens
    Operator,
}

impl Preset {
    const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Registrar => "registrar",
            Self::Operator => "operator",
        }
    }

    const fn rules(self) -> &'static str {
        match self {
            Self::Reader => {
                r#"service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }
key_prefix "" { policy = "read" }
session_prefix "" { policy = "read" }
event_prefix "" { policy = "read" }
query_prefix "" { policy = "read" }
"#
            }
            Self::Registrar => {
                r#"service_prefix "" { policy = "write" }
node_prefix "" { policy = "write" }
session_prefix "" { policy = "write" }
agent_prefix "" { policy = "read" }
"#
            }
            Self::Operator => {
                r#"operator = "write"
agent_prefix "" { policy = "write" }
node_prefix "" { policy = "write" }
service_prefix "" { policy = "write" }
session_prefix "" { policy = "write" }
query_prefix "" { policy = "write" }
event_prefix "" { policy = "write" }
key_prefix "" { policy = "read" }
"#
            }
        }
    }
}

#[derive(Debug, Subcommand)]
enum TokenVerb {
    /// Makes a token, and prints its secret: nobody can read it later
    Create {
        /// For people
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        links: Links,
        /// A role by its name; may be given more than once
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
        /// It counts no more after so long, 1m to 24h
        #[arg(long, value_name = "DURATION")]
        ttl: Option<String>,
    },
    /// Makes a token that may do what another one may
    Clone {
        /// The other one's accessor
        accessor: String,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Lists tokens by their accessors
    List,
    /// Shows a token; without an accessor the one of this command
    Read {
        /// Its accessor
        accessor: Option<String>,
    },
    /// Deletes a token: requests that wait with it are refused, and streams end
    Delete {
        /// Its accessor
        accessor: String,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Makes a policy, or replaces the one of this name
    Set {
        /// Its name
        name: String,
        /// Rules, HCL or JSON; `-` is standard input, `@FILE` a file
        #[arg(long, required_unless_present = "preset")]
        rules: Option<String>,
        /// Rules of common needs
        #[arg(long, value_enum, conflicts_with = "rules")]
        preset: Option<Preset>,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Lists policies
    List,
    /// Shows a policy with its rules
    Read {
        /// Its name
        name: String,
    },
    /// Deletes a policy; tokens and roles lose it
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum RoleVerb {
    /// Makes a role, or replaces the one of this name
    Set {
        /// Its name
        name: String,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        links: Links,
    },
    /// Lists roles
    List,
    /// Deletes a role; tokens lose it
    Delete {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(session: &Session, args: AclArgs) -> Result<ExitCode, Failure> {
    match args.area {
        Area::Bootstrap => {
            let token = session.client.acl().bootstrap().await?;
            show_token(session, &token)
        }
        Area::Token { verb } => token(session, verb).await,
        Area::Policy { verb } => policy(session, verb).await,
        Area::Role { verb } => role(session, verb).await,
        Area::CanI { access, kind, name } => can_i(session, access, kind, name).await,
    }
}

async fn can_i(
    session: &Session,
    access: Access,
    kind: String,
    name: String,
) -> Result<ExitCode, Failure> {
    let (access, segment) = (access.as_str().to_owned(), name);
    let question = AclQuestion { resource: kind, segment, access, allow: false };
    let answers = session.client.acl().authorize(&[question]).await?;
    let may = answers.iter().all(|answer| answer.allow);
    session.say(&answers, if may { "yes" } else { "no" })?;
    Ok(if may { ExitCode::SUCCESS } else { Failure::denied_code() })
}

// ---- tokens ----------------------------------------------------------------------------------

async fn token(session: &Session, verb: TokenVerb) -> Result<ExitCode, Failure> {
    let acl = session.client.acl();
    match verb {
        TokenVerb::Create { description, links, role, ttl } => {
            let expiration_ttl = ttl.as_deref().map(nanos).transpose()?.unwrap_or_default();
            let links = linked(session, links).await?;
            let token = AclToken {
                description,
                policies: links.policies,
                roles: role.into_iter().map(named).collect(),
                service_identities: links.services,
                node_identities: links.nodes,
                expiration_ttl,
                ..AclToken::default()
            };
            show_token(session, &acl.create_token(&token).await?)
        }
        TokenVerb::Clone { accessor, description } => {
            show_token(session, &acl.clone_token(&accessor, &description).await?)
        }
        TokenVerb::List => {
            let tokens = acl.tokens(&session.query()).await?.value;
            session.show(&tokens, |tokens| {
                let headings = &["ACCESSOR", "DESCRIPTION", "MAY", "EXPIRES"];
                Table::of(headings, tokens, |token| {
                    let expires = token.expiration_time.clone();
                    vec![token.accessor_id.clone(), token.description.clone(), may(token), expires]
                })
            })
        }
        TokenVerb::Read { accessor } => {
            let token = match accessor {
                Some(accessor) => acl.token(&accessor, &session.query()).await?,
                None => acl.own_token(&session.query()).await?,
            };
            show_token(session, &token.value)
        }
        TokenVerb::Delete { accessor } => {
            acl.delete_token(&accessor).await?;
            session.say(&true, &format!("deleted token {accessor}"))
        }
    }
}

fn nanos(text: &str) -> Result<i64, Failure> {
    duration::parse(text).map_err(|error| Failure::usage(format!("--ttl {text:?}: {error}")))
}

fn show_token(session: &Session, token: &AclToken) -> Result<ExitCode, Failure> {
    session.show(token, |token| {
        Table::facts([
            ("accessor", token.accessor_id.clone()),
            ("secret", token.secret_id.clone()),
            ("description", token.description.clone()),
            ("may", may(token)),
            ("expires", token.expiration_time.clone()),
        ])
    })
}

/// What a token is linked to, for people.
fn may(token: &AclToken) -> String {
    let policies = token.policies.iter().map(|link| link.name.clone());
    let roles = token.roles.iter().map(|link| format!("role {}", link.name));
    let services = token.service_identities.iter().map(|of| format!("service {}", of.service_name));
    let nodes = token.node_identities.iter().map(|of| format!("node {}", of.node_name));
    policies.chain(roles).chain(services).chain(nodes).collect::<Vec<_>>().join(", ")
}

/// Links as the API takes them.
struct Linked {
    policies: Vec<AclLink>,
    services: Vec<AclServiceIdentity>,
    nodes: Vec<AclNodeIdentity>,
}

fn named(name: String) -> AclLink {
    AclLink { id: String::new(), name }
}

/// Sees to it that presets have their policies.
async fn linked(session: &Session, links: Links) -> Result<Linked, Failure> {
    let mut policies: Vec<AclLink> = links.policy.into_iter().map(named).collect();
    for preset in links.preset {
        if find_policy(session, preset.name()).await?.is_none() {
            set_policy(session, preset.name(), preset.rules().to_owned(), String::new()).await?;
        }
        policies.push(named(preset.name().to_owned()));
    }
    let service = |name| AclServiceIdentity { service_name: name, datacenters: Vec::new() };
    let nodes = links.node.into_iter().map(|text| {
        let refused = || Failure::usage(format!("--node {text:?}: expected NAME:DATACENTER"));
        let (node_name, datacenter) = text.split_once(':').ok_or_else(refused)?;
        let (node_name, datacenter) = (node_name.to_owned(), datacenter.to_owned());
        Ok(AclNodeIdentity { node_name, datacenter })
    });
    let nodes = nodes.collect::<Result<_, Failure>>()?;
    Ok(Linked { policies, services: links.service.into_iter().map(service).collect(), nodes })
}

// ---- policies --------------------------------------------------------------------------------

async fn policy(session: &Session, verb: PolicyVerb) -> Result<ExitCode, Failure> {
    let acl = session.client.acl();
    match verb {
        PolicyVerb::Set { name, rules, preset, description } => {
            let rules = match (rules, preset) {
                (Some(text), _) => given(&text)?,
                (None, Some(preset)) => preset.rules().to_owned(),
                (None, None) => return Err(Failure::usage("--rules or --preset is needed")),
            };
            let policy = set_policy(session, &name, rules, description).await?;
            session.say(&policy, &format!("set policy {name}"))
        }
        PolicyVerb::List => {
            let policies = acl.policies(&session.query()).await?.value;
            session.show(&policies, |policies| {
                Table::of(&["NAME", "DESCRIPTION", "ID"], policies, |policy| {
                    vec![policy.name.clone(), policy.description.clone(), policy.id.clone()]
                })
            })
        }
        PolicyVerb::Read { name } => {
            let policy = acl.policy_named(&name, &session.query()).await?.value;
            session.say(&policy, policy.rules.trim_end())
        }
        PolicyVerb::Delete { name } => {
            let Some(policy) = find_policy(session, &name).await? else {
                return Err(Failure::not_found(format!("no policy {name:?}")));
            };
            acl.delete_policy(&policy).await?;
            session.say(&true, &format!("deleted policy {name}"))
        }
    }
}

/// A text as it is given, from standard input, or from a file.
fn given(text: &str) -> Result<String, Failure> {
    if text == "-" {
        let mut read = String::new();
        let ended = std::io::stdin().read_to_string(&mut read);
        return ended.map(|_| read).map_err(|error| Failure::failed(format!("stdin: {error}")));
    }
    match text.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Failure::of_file(Path::new(path), &error))
        }
        None => Ok(text.to_owned()),
    }
}

/// The id of the policy of this name.
async fn find_policy(session: &Session, name: &str) -> Result<Option<String>, Failure> {
    let policies = session.client.acl().policies(&session.query()).await?.value;
    let found = policies.into_iter().find(|policy| policy.name.eq_ignore_ascii_case(name));
    Ok(found.map(|policy| policy.id))
}

async fn set_policy(
    session: &Session,
    name: &str,
    rules: String,
    description: String,
) -> Result<AclPolicy, Failure> {
    let id = find_policy(session, name).await?.unwrap_or_default();
    let policy = AclPolicy { id, name: name.to_owned(), rules, description, ..<_>::default() };
    Ok(session.client.acl().put_policy(&policy).await?)
}

// ---- roles -----------------------------------------------------------------------------------

async fn role(session: &Session, verb: RoleVerb) -> Result<ExitCode, Failure> {
    let acl = session.client.acl();
    match verb {
        RoleVerb::Set { name, description, links } => {
            let links = linked(session, links).await?;
            let id = find_role(session, &name).await?.unwrap_or_default();
            let role = AclRole {
                id,
                name: name.clone(),
                description,
                policies: links.policies,
                service_identities: links.services,
                node_identities: links.nodes,
                ..AclRole::default()
            };
            let role = acl.put_role(&role).await?;
            session.say(&role, &format!("set role {name}"))
        }
        RoleVerb::List => {
            let roles = acl.roles(&session.query()).await?.value;
            session.show(&roles, |roles| {
                Table::of(&["NAME", "DESCRIPTION", "POLICIES", "ID"], roles, |role| {
                    let policies: Vec<_> =
                        role.policies.iter().map(|link| link.name.as_str()).collect();
                    let policies = policies.join(", ");
                    vec![role.name.clone(), role.description.clone(), policies, role.id.clone()]
                })
            })
        }
        RoleVerb::Delete { name } => {
            let Some(id) = find_role(session, &name).await? else {
                return Err(Failure::not_found(format!("no role {name:?}")));
            };
            acl.delete_role(&id).await?;
            session.say(&true, &format!("deleted role {name}"))
        }
    }
}

/// The id of the role of this name.
async fn find_role(session: &Session, name: &str) -> Result<Option<String>, Error> {
    let roles = session.client.acl().roles(&session.query()).await?.value;
    let found = roles.into_iter().find(|role| role.name.eq_ignore_ascii_case(name));
    Ok(found.map(|role| role.id))
}
