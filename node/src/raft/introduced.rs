//! Which introductions of servers are believed, before anything of them is stored.
//!
//! A server says of itself what others keep: names and addresses go into the membership, the number of its starts
//! becomes its incarnation in the log. A correct server has checked its names when it started, and its numbers
//! grow by one at a time. What no correct server says is refused: a number near the end of its range would be
//! the last one that this server could ever use, and a name of megabytes would be in every membership.

use quorate_storage::raft::{NodeId, Position};

use super::plausible::{INDEX_JUMP_MAX, Known, term};
use super::protocol::{Envelope, ProcessIdentity, Refusal, ServerInfo};
use crate::host::address::HostPort;

/// How far the starts of a data directory, or an incarnation, may be above the incarnation that the log has: nobody
/// starts a server four billion times while the others do not hear of it.
pub const INCARNATION_JUMP_MAX: u64 = 1 << 32;
/// Names of servers, agents and datacenters have as many bytes at most, as their settings demand.
const NAME_BYTES_MAX: usize = 63;
/// A DNS name has at most 253 bytes, a port 5.
const ADDRESS_BYTES_MAX: usize = 260;
/// Ids of stores and clusters are UUIDs.
const ID_BYTES_MAX: usize = 64;

type Checked = Result<(), Refusal>;

/// Whether a message introduces its sender as a correct server does. `incarnation` is the one that the log has
/// for the sender, 0 if there is none.
///
/// # Errors
/// [`Refusal::Implausible`].
pub fn check(envelope: &Envelope, known: &Known, incarnation: u64) -> Checked {
    sender(envelope.from, &envelope.sender, envelope.cluster.as_deref(), incarnation)?;
    match envelope.request.info() {
        None => Ok(()),
        Some(info) if info.id != envelope.from => {
            wrong(format!("it introduces server {}", info.id))
        }
        Some(info) => introduction(info, known, incarnation),
    }
}

/// The same of the process that sends a message.
///
/// # Errors
/// [`Refusal::Implausible`].
pub fn sender(
    from: NodeId,
    sender: &ProcessIdentity,
    cluster: Option<&str>,
    incarnation: u64,
) -> Checked {
    if from == 0 {
        return wrong("no server has the id 0".to_owned());
    }
    id("store", &sender.store_id)?;
    cluster.map_or(Ok(()), |cluster| id("cluster", cluster))?;
    address("RPC address", &sender.rpc_addr)?;
    number("incarnation", sender.incarnation.unwrap_or(0), incarnation)
}

fn introduction(info: &ServerInfo, known: &Known, incarnation: u64) -> Checked {
    name("name", &info.peer.name)?;
    name("agent's name", &info.peer.agent_name)?;
    name("datacenter", &info.datacenter)?;
    id("store", &info.peer.store_id)?;
    address("RPC address", &info.peer.rpc_addr)?;
    address("HTTP address", &info.peer.http_addr)?;
    number("number of starts", info.disk.boots, incarnation)?;
    term(info.disk.term, known.vote.leader_id.term)?;
    position(info.disk.last, known)?;
    position(info.disk.member_since, known)
}

/// Earlier versions may leave a name empty.
fn name(what: &str, name: &str) -> Checked {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        return wrong(format!(
            "its {what} has {} bytes, or characters that names do not have",
            name.len()
        ));
    }
    Ok(())
}

fn id(what: &str, id: &str) -> Checked {
    if id.len() > ID_BYTES_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong(format!("its {what}'s id has {} bytes, or is no text", id.len()));
    }
    Ok(())
}

fn address(what: &str, address: &str) -> Checked {
    if address.len() > ADDRESS_BYTES_MAX || address.parse::<HostPort>().is_err() {
        return wrong(format!("its {what} has {} bytes, or is no address", address.len()));
    }
    Ok(())
}

fn number(what: &str, number: u64, recorded: u64) -> Checked {
    if number.saturating_sub(recorded) > INCARNATION_JUMP_MAX {
        return wrong(format!("its {what} is {number}, and its last incarnation was {recorded}"));
    }
    Ok(())
}

fn position(position: Option<Position>, known: &Known) -> Checked {
    let Some(position) = position else { return Ok(()) };
    term(position.term, known.vote.leader_id.term)?;
    if position.index.saturating_sub(known.last) > INDEX_JUMP_MAX {
        return wrong(format!(
            "its log ends at {}, and this one at {}",
            position.index, known.last
        ));
    }
    Ok(())
}

fn wrong(why: String) -> Checked {
    Err(Refusal::Implausible(why))
}

#[cfg(test)]
mod tests {
    use openraft::type_config::alias::LogIdListOf;
    use quorate_storage::raft::{BootId, Peer, TypeConfig, Vote};

    use super::super::protocol::{DiskState, Request};
    use super::*;

    fn known() -> Known {
        let log_ids = LogIdListOf::<TypeConfig>::new(None, []);
        Known { id: 1, vote: Vote::new(7, 1), last: 100, committed: None, log_ids }
    }

    fn info() -> ServerInfo {
        let peer = Peer {
            name: "n2".to_owned(),
            rpc_addr: "n2.example:8300".to_owned(),
            http_addr: "[::1]:8500".to_owned(),
            store_id: "6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11".to_owned(),
            agent_name: "host-10.0.0.2".to_owned(),
        };
        let disk = DiskState {
            boots: 12,
            last: Some(Position { index: 900, term: 8 }),
            term: 9,
            member_since: Some(Position { index: 3, term: 1 }),
        };
        ServerInfo { id: 2, peer, disk, datacenter: "dc1".to_owned() }
    }

    fn envelope(info: ServerInfo) -> Envelope {
        let (store_id, rpc_addr) = (info.peer.store_id.clone(), info.peer.rpc_addr.clone());
        Envelope {
            cluster: Some("6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c12".to_owned()),
            from: 2,
            to: None,
            store: None,
            request: Request::Join(info),
            sender: ProcessIdentity {
                boot: BootId([7; 16]),
                incarnation: Some(11),
                store_id,
                rpc_addr,
            },
            addressee: None,
            level: 0,
        }
    }

    #[test]
    fn a_server_that_was_away_for_years_is_believed() {
        let mut away = info();
        away.disk.boots = 1_000_000;
        away.disk.term = 1 << 31;
        away.disk.last = Some(Position { index: 1 << 40, term: 1 << 31 });
        for info in [info(), away] {
            assert_eq!(check(&envelope(info), &known(), 11), Ok(()));
        }
    }

    #[test]
    fn what_no_correct_server_says_is_refused() {
        let far = Position { index: 1 << 60, term: 1 };
        let late = Position { index: 1, term: u64::MAX };
        let changes: [fn(&mut ServerInfo, Position, Position); 11] = [
            |info, _, _| info.disk.boots = u64::MAX,
            |info, _, _| info.disk.term = u64::MAX,
            |info, far, _| info.disk.last = Some(far),
            |info, _, late| info.disk.member_since = Some(late),
            |info, _, _| info.peer.name = "n".repeat(64),
            |info, _, _| info.peer.name = "n\u{1b}[31m".to_owned(),
            |info, _, _| info.peer.agent_name = "a b".to_owned(),
            |info, _, _| info.datacenter = "d".repeat(1 << 20),
            |info, _, _| info.peer.store_id = "s".repeat(65),
            |info, _, _| info.peer.http_addr = "nowhere".to_owned(),
            |info, _, _| info.id = 3,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut info = info();
            change(&mut info, far, late);
            let checked = check(&envelope(info), &known(), 11);
            assert!(matches!(checked, Err(Refusal::Implausible(_))), "{number}: {checked:?}");
        }
        let messages: [fn(&mut Envelope); 4] = [
            |message| message.from = 0,
            |message| message.sender.incarnation = Some(u64::MAX),
            |message| message.sender.rpc_addr = "a".repeat(1 << 20),
            |message| message.cluster = Some("\n".to_owned()),
        ];
        for (number, change) in messages.into_iter().enumerate() {
            let mut message = envelope(info());
            message.request = Request::ReadIndex;
            change(&mut message);
            let checked = check(&message, &known(), 11);
            assert!(matches!(checked, Err(Refusal::Implausible(_))), "{number}: {checked:?}");
        }
    }
}
