//! The certificates that this process uses: read at its start, at SIGHUP, and watched for their end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::host::clock::Clock;
use crate::host::listen::Listener;
use crate::host::supervise::blocking;
use crate::host::tls::credentials::{Credentials, Files};
use crate::host::tls::ends::Ends;
use crate::host::tls::failure::at_start;
use crate::host::tls::holder::{Holder, Role};
use crate::host::tls::https::Https;
use crate::host::tls::members::Members;
use crate::http::server::Door;
use crate::process::config::{RpcSecurity, ServerConfig};

/// Time between two looks at how long certificates are still valid.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// The name of a blocking task.
const READING: &str = "reading certificates";

/// All of them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Certificates {
    /// For the port of servers.
    members: Option<Members>,
    /// For the port of clients.
    https: Option<Arc<Https>>,
}

impl Certificates {
    /// Reads those of a server.
    ///
    /// # Errors
    /// One cannot be used: the sentence says which, and why.
    pub(crate) fn of_server(config: &ServerConfig) -> io::Result<Self> {
        let members = match &config.rpc_security {
            RpcSecurity::Tls(files) => {
                Some(members(files, Role::Server, &config.name, &config.datacenter)?)
            }
            RpcSecurity::Loopback => None,
            RpcSecurity::Insecure => {
                tracing::warn!(
                    rpc_listen = %config.rpc_listen_addr,
                    "the RPC port has no TLS (--insecure-rpc): whoever reaches it can read and change everything"
                );
                None
            }
        };
        Ok(Self { members, https: https(config)? })
    }

    /// Reads those of a client agent.
    ///
    /// # Errors
    /// As [`Self::of_server`].
    pub(crate) fn of_agent(config: &ServerConfig) -> io::Result<Self> {
        let members = match &config.rpc_security {
            RpcSecurity::Tls(files) => {
                Some(members(files, Role::Agent, &config.agent_name, &config.datacenter)?)
            }
            RpcSecurity::Loopback | RpcSecurity::Insecure => None,
        };
        Ok(Self { members, https: https(config)? })
    }

    /// Those for the port of servers, if it has some.
    pub(crate) fn members(&self) -> Option<Members> {
        self.members.clone()
    }

    /// What says how long they are still valid.
    pub(crate) fn ends(&self) -> Ends {
        Ends { members: self.members.clone(), https: self.https.clone() }
    }

    /// Where clients connect, without and with TLS.
    pub(crate) fn doors(
        &self,
        http: Vec<Listener>,
        https: Vec<Listener>,
    ) -> impl Iterator<Item = Door> + use<> {
        let secured = self.https.clone();
        let plain = http.into_iter().map(|listener| Door { listener, tls: None });
        let https = https.into_iter();
        plain.chain(https.map(move |listener| Door { listener, tls: secured.clone() }))
    }

    /// Whether there are any.
    pub(crate) const fn is_empty(&self) -> bool {
        self.members.is_none() && self.https.is_none()
    }

    /// Reads all of them again, and uses all or none: ports that share a file never differ in it.
    pub(crate) async fn reload(&self) {
        let all = self.clone();
        let read = blocking(READING, move || {
            all.read_again();
            Ok(())
        });
        if let Err(error) = read.await {
            tracing::error!(%error, "cannot read the certificates again");
        }
    }

    fn read_again(&self) {
        match self.use_files() {
            Ok(()) => {
                let rpc = self.members.as_ref().map(|members| members.credentials().expires());
                let https = self.https.as_ref().map(|https| https.expires());
                tracing::info!(
                    rpc_expires = rpc.as_deref(),
                    https_expires = https.as_deref(),
                    "read the certificates again"
                );
            }
            Err(why) => tracing::error!(
                %why,
                "the certificates that were to be read again cannot be used: the old ones stay in use at every port"
            ),
        }
        self.warn_of_ends();
    }

    /// Uses what the files have now.
    ///
    /// # Errors
    /// What is wrong with each port's: then nothing was changed.
    fn use_files(&self) -> Result<(), String> {
        let members = self.members.as_ref().map(Members::credentials);
        let fresh_members = members.map(|credentials| credentials.read_again()).transpose();
        let fresh_https = self.https.as_ref().map(|https| https.read_again()).transpose();
        let (fresh_members, fresh_https) = match (fresh_members, fresh_https) {
            (Ok(members), Ok(https)) => (members, https),
            (Err(why), Ok(_)) | (Ok(_), Err(why)) => return Err(why),
            (Err(rpc), Err(https)) => return Err(format!("{rpc}; {https}")),
        };
        if let (Some(credentials), Some(fresh)) = (members, fresh_members) {
            credentials.use_fresh(fresh);
        }
        if let (Some(https), Some(fresh)) = (&self.https, fresh_https) {
            https.use_fresh(fresh);
        }
        Ok(())
    }

    /// Says which certificates end soon, or have ended.
    fn warn_of_ends(&self) {
        let members = self.members.iter().map(Members::credentials);
        let members = members.flat_map(|one| [one.expires_soon(), one.ca_expires_soon()]).flatten();
        let https = self.https.as_ref().and_then(|one| one.expires_soon());
        for sentence in members.chain(https) {
            tracing::warn!("{sentence}");
        }
    }

    /// Warns for as long as a certificate ends soon, or has ended. Does not return.
    pub(crate) async fn watch(self, clock: Clock) {
        loop {
            self.warn_of_ends();
            clock.sleep(LOOK_EVERY).await;
        }
    }
}

/// The process does not start with these files.
fn unusable(why: &str) -> io::Error {
    io::Error::other(at_start(why))
}

/// Reads the files of the port of clients.
fn https(config: &ServerConfig) -> io::Result<Option<Arc<Https>>> {
    let Some(https) = &config.https else { return Ok(None) };
    let https = Https::load(https.files.clone()).map_err(|why| unusable(&why))?;
    tracing::info!(expires = %https.expires(), "read the certificate for the HTTPS port");
    Ok(Some(Arc::new(https)))
}

/// Reads the credentials of a member of a cluster.
fn members(files: &Files, role: Role, name: &str, datacenter: &str) -> io::Result<Members> {
    let own = Holder { name: name.to_owned(), role, datacenter: datacenter.to_owned() };
    let credentials = Credentials::load(files.clone(), own).map_err(|why| unusable(&why))?;
    tracing::info!(expires = %credentials.expires(), "read the certificate for the RPC port");
    Ok(Members::new(Arc::new(credentials)))
}
