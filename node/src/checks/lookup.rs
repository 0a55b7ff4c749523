//! Looking names up, for all runs together.
//!
//! The system's resolver blocks a thread for as long as it likes, so few look-ups run at a time. Names
//! that nobody answers for would keep all of them busy, and one client's broken names must not fail
//! another's checks:
//!
//! * A run whose time is over before its look-up had its turn says nothing of its target: it ends
//!   without a finding ([`Resolver::is_waiting`]), and the check keeps what it shows until its next run.
//! * There is one look-up of a name at a time, whoever asks, and its failure holds for all who ask within
//!   [`FAILURE_HOLDS`]. A success is not kept: a check wants to know where its target is now.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_storage::record::is_own_host;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::policy::{Asked, Policy};
use crate::host::clock::{Clock, Moment};
use crate::host::supervise;

/// Look-ups that may run at a time. Each occupies a thread for as long as the resolver takes, whatever
/// the check's timeout is; those beyond wait, where they can be given up.
const LOOKUPS_AT_ONCE_MAX: usize = 32;
/// For how long a look-up that failed is not tried again.
const FAILURE_HOLDS: Duration = Duration::from_secs(5);
/// Names that are remembered as failing. Beyond that each is looked up whenever somebody asks.
const FAILURES_MAX: usize = 1_024;

/// The threads are the process's, so their number is too, whichever node leads.
static PERMITS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(LOOKUPS_AT_ONCE_MAX)));

/// The look-ups of one node.
pub(super) struct Lookups {
    clock: Clock,
    policy: Policy,
    permits: Arc<Semaphore>,
    /// Asks the system; blocks.
    ask: fn(&str) -> io::Result<Vec<IpAddr>>,
    /// By host, in lower case.
    names: Mutex<BTreeMap<String, Name>>,
}

impl Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("permits", &self.permits).finish_non_exhaustive()
    }
}

/// What is known of a name.
#[derive(Debug, Clone)]
enum Name {
    /// It is being looked up; the answer arrives here.
    UnderWay(watch::Receiver<Option<Answer>>),
    /// Nobody asks again before this moment.
    Failed(Moment, Fault),
}

type Answer = Result<Arc<[IpAddr]>, Fault>;

/// An error that several can have.
#[derive(Debug, Clone)]
struct Fault {
    kind: io::ErrorKind,
    words: String,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self { kind: error.kind(), words: error.to_string() }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(fault.kind, fault.words)
    }
}

impl Lookups {
    /// None yet, for checks that may go where `policy` says.
    pub(super) fn new(clock: Clock, policy: Policy) -> Self {
        let (permits, names) = (Arc::clone(&PERMITS), Mutex::default());
        Self { clock, policy, permits, ask: ask_system, names }
    }

    /// What is known of a name, unless it has to be looked up.
    fn known(&self, names: &BTreeMap<String, Name>, host: &str) -> Option<Name> {
        let known = names.get(host)?;
        let holds = match known {
            // Closed without an answer: the look-up has died.
            Name::UnderWay(answer) => answer.has_changed().is_ok(),
            Name::Failed(until, _) => self.clock.now() < *until,
        };
        holds.then(|| known.clone())
    }

    /// Begins to look a name up, unless somebody else has begun while this one waited for its turn.
    fn begin(self: &Arc<Self>, host: String, permit: OwnedSemaphorePermit) -> Name {
        let mut names = self.names();
        if let Some(known) = self.known(&names, &host) {
            return known;
        }
        let (sender, receiver) = watch::channel(None);
        let name = Name::UnderWay(receiver);
        names.insert(host.clone(), name.clone());
        drop(names);
        let this = Arc::clone(self);
        supervise::blocking_beside("looking up a name", move || {
            // Held by the look-up itself: it goes on when those who asked have given it up.
            let _permit = permit;
            let answer: Answer = (this.ask)(&host).map(Arc::from).map_err(Fault::from);
            this.settle(host, &answer);
            sender.send_replace(Some(answer));
        });
        name
    }

    /// Notes how a look-up ended.
    fn settle(&self, host: String, answer: &Answer) {
        let now = self.clock.now();
        let mut names = self.names();
        names.remove(&host);
        let Err(fault) = answer else { return };
        if names.len() >= FAILURES_MAX {
            names.retain(|_, name| !matches!(name, Name::Failed(until, _) if *until <= now));
        }
        if names.len() < FAILURES_MAX {
            names.insert(host, Name::Failed(now.plus(FAILURE_HOLDS), fault.clone()));
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        // Each change is a single insertion or removal, so a panic elsewhere leaves it whole.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask_system(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Looks names up for one run.
#[derive(Debug)]
pub(super) struct Resolver {
    lookups: Arc<Lookups>,
    /// Where loopback addresses lead; `None`: to this host.
    own_host: Option<Arc<str>>,
    /// Where the cluster's servers serve each other.
    servers: Vec<SocketAddr>,
    is_waiting: AtomicBool,
}

impl Resolver {
    /// `own_host`: the address of the host that registered the check, if it is another than this one. What the
    /// definition (or a redirect) calls loopback is there.
    pub(super) fn new(lookups: Arc<Lookups>, own_host: Option<Arc<str>>) -> Self {
        Self { lookups, own_host, servers: Vec::new(), is_waiting: AtomicBool::new(false) }
    }

    /// The same for a cluster whose servers serve each other there.
    pub(super) fn closed_to(self, servers: Vec<SocketAddr>) -> Self {
        Self { servers, ..self }
    }

    /// Whether outputs have the bodies of answers.
    pub(super) fn shows_body(&self) -> bool {
        self.lookups.policy.shows_body
    }

    /// Whether the run waits for the turn of its look-up, or was given up while it did.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    /// The addresses of `HOST:PORT` that checks may reach, at least one.
    pub(super) async fn resolve(&self, target: &str) -> io::Result<Vec<SocketAddr>> {
        let elsewhere = self.elsewhere(target);
        self.allowed(self.addresses_of(elsewhere.as_deref().unwrap_or(target)).await?)
    }

    /// Those of these addresses that checks may reach.
    ///
    /// # Errors
    /// There is none; the error says why.
    fn allowed(&self, addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        let is_of_other_host = self.own_host.as_deref().is_some_and(|host| !is_own_host(host));
        let asked = Asked { is_of_other_host, servers: &self.servers };
        let mut refused = None;
        let mut allowed = addresses;
        allowed.retain(|address| match self.lookups.policy.refusal(*address, asked) {
            Some(why) => {
                refused = Some(why);
                false
            }
            None => true,
        });
        match refused {
            Some(why) if allowed.is_empty() => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
            Some(_) | None => Ok(allowed),
        }
    }

    /// A loopback target as `HOST:PORT` of the host that it is on, if that is another one.
    fn elsewhere(&self, target: &str) -> Option<String> {
        let host = self.own_host.as_deref()?;
        let (given, port) = target.rsplit_once(':')?;
        let bare = given.strip_prefix('[').and_then(|given| given.strip_suffix(']'));
        is_own_host(bare.unwrap_or(given)).then(|| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        })
    }

    /// The addresses of `HOST:PORT`, at least one. Only a host that is no IP address is looked up.
    async fn addresses_of(&self, target: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = target.parse() {
            return Ok(vec![address]);
        }
        let invalid = |words| io::Error::new(io::ErrorKind::InvalidInput, words);
        let (host, port) =
            target.rsplit_once(':').ok_or_else(|| invalid("missing port in address"))?;
        let port: u16 = port.parse().map_err(|_| invalid("invalid port"))?;
        let found = self.look_up(host.to_ascii_lowercase()).await?;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such host"));
        }
        Ok(found.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    async fn look_up(&self, host: String) -> io::Result<Arc<[IpAddr]>> {
        let lookups = &self.lookups;
        let known = lookups.known(&lookups.names(), &host);
        let name = match known {
            Some(name) => name,
            None => {
                self.is_waiting.store(true, Ordering::Relaxed);
                let permit = Arc::clone(&lookups.permits).acquire_owned().await;
                self.is_waiting.store(false, Ordering::Relaxed);
                lookups.begin(host, permit.map_err(io::Error::other)?)
            }
        };
        let mut answer = match name {
            Name::Failed(_, fault) => return Err(fault.into()),
            Name::UnderWay(answer) => answer,
        };
        let answer = answer.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        Ok(answer.expect("it was waited for")?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// For what must not happen while the test looks.
    const MOMENT: Duration = Duration::from_millis(50);

    fn lookups(permits: usize, ask: fn(&str) -> io::Result<Vec<IpAddr>>) -> Arc<Lookups> {
        let lookups = Lookups::new(Clock::monotonic(), Policy::default());
        Arc::new(Lookups { permits: Arc::new(Semaphore::new(permits)), ask, ..lookups })
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_an_address_is_not() {
        let resolver = Resolver::new(lookups(0, |_| Ok(vec![])), None);
        let literal = resolver.resolve("[::1]:80").await.unwrap();
        assert_eq!(literal, ["[::1]:80".parse().unwrap()]);
        assert!(resolver.resolve("localhost").await.is_err());
        assert!(resolver.resolve("localhost:70000").await.is_err());
        let resolver =
            Resolver::new(Arc::new(Lookups::new(Clock::monotonic(), Policy::default())), None);
        let found = resolver.resolve("localhost:80").await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
        assert!(!found.is_empty() && !resolver.is_waiting());
        let nobody = Resolver::new(lookups(1, |_| Ok(vec![])), None);
        assert!(nobody.resolve("a:1").await.is_err());
    }

    #[tokio::test]
    async fn who_gets_no_turn_in_time_is_seen_to_wait() {
        let lookups = lookups(1, |_| Ok(vec![IpAddr::from([10, 0, 0, 1])]));
        let turn = Arc::clone(&lookups.permits).acquire_owned().await.unwrap();
        let resolver = Resolver::new(Arc::clone(&lookups), None);
        let clock = Clock::monotonic();
        assert!(clock.timeout(MOMENT, resolver.resolve("a:1")).await.is_err());
        assert!(resolver.is_waiting());
        drop(turn);
        let resolver = Resolver::new(lookups, None);
        assert_eq!(resolver.resolve("a:1").await.unwrap(), ["10.0.0.1:1".parse().unwrap()]);
        assert!(!resolver.is_waiting());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_for_a_while() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookups = lookups(8, |_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            Err(io::Error::other("broken"))
        });
        let resolver = Resolver::new(Arc::clone(&lookups), None);
        let asked = ["a:1", "A:2", "a:3"].map(|target| resolver.resolve(target));
        for found in futures_util::future::join_all(asked).await {
            assert_eq!(found.unwrap_err().to_string(), "broken");
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        lookups.clock.sleep(FAILURE_HOLDS).await;
        assert!(resolver.resolve("a:1").await.is_err());
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_success_is_asked_for_anew_and_a_look_up_that_dies_too() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let lookups = lookups(1, |_| match ASKED.fetch_add(1, Ordering::SeqCst) {
            1 => panic!("a resolver's mistake"),
            _ => Ok(vec![IpAddr::from([10, 0, 0, 1])]),
        });
        let resolver = Resolver::new(Arc::clone(&lookups), None);
        assert!(resolver.resolve("a:1").await.is_ok());
        assert!(lookups.names().is_empty());
        assert!(resolver.resolve("a:1").await.is_err());
        assert!(resolver.resolve("a:1").await.is_ok());
        assert_eq!(ASKED.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn link_local_addresses_are_refused_however_they_are_written() {
        let resolver = Resolver::new(
            lookups(1, |host| match host {
                "metadata" => Ok(vec![IpAddr::from([169, 254, 169, 254])]),
                _ => Ok(vec![IpAddr::from([169, 254, 1, 1]), IpAddr::from([10, 0, 0, 1])]),
            }),
            None,
        );
        for target in [
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:80",
            "[fe80::1%2]:80",
            "[febf::1]:80",
            "metadata:80",
        ] {
            let refused = resolver.resolve(target).await.unwrap_err().to_string();
            assert!(refused.contains("is link-local"), "{target}: {refused}");
        }
        assert_eq!(resolver.resolve("both:80").await.unwrap(), ["10.0.0.1:80".parse().unwrap()]);
        for target in ["127.0.0.1:80", "169.253.0.1:80", "[fec0::1]:80"] {
            assert!(resolver.resolve(target).await.is_ok(), "{target}");
        }
    }

    #[tokio::test]
    async fn loopback_is_the_host_that_registered_the_check() {
        let at = |host: &str| Resolver::new(lookups(0, |_| Ok(vec![])), Some(host.into()));
        for (host, target, address) in [
            ("10.0.0.5", "127.0.0.1:80", "10.0.0.5:80"),
            ("10.0.0.5", "LocalHost:80", "10.0.0.5:80"),
            ("fd00::5", "[::1]:80", "[fd00::5]:80"),
            ("10.0.0.5", "10.0.0.6:80", "10.0.0.6:80"),
        ] {
            let found = at(host).resolve(target).await.unwrap();
            assert_eq!(found, [address.parse().unwrap()], "{target}");
        }
    }

    #[test]
    fn failures_are_not_kept_without_end() {
        let lookups = lookups(1, |_| Ok(vec![]));
        let broken: Answer = Err(io::Error::other("broken").into());
        for number in 0..=FAILURES_MAX {
            lookups.settle(number.to_string(), &broken);
        }
        assert_eq!(lookups.names().len(), FAILURES_MAX);
    }
}
