//! A set of keys, each written once, looked up by clients of all servers, and read in full at every server at the
//! end. Most writes are create-only; the others have no condition, and their client checks at once that the server
//! that acknowledged the write has it.

use async_trait::async_trait;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::steps::{Known, UNREADABLE, write};
use super::{Judgement, Workload};
use crate::Result;
use crate::checker::{Verdict, set};
use crate::client::{Call, Client, Site};
use crate::history::{Function, Operation};
use crate::http::Answer;
use crate::record::Record;

const NAME: &str = "set";

/// After one of so many additions its client looks for it at once at the same server, without asking anybody.
const STALE_ONE_OF: u32 = 3;

/// See the module.
#[derive(Debug)]
pub struct Set {
    /// What the names of its keys begin with.
    folder: String,
    members: Known,
}

/// A line of the history.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Operation(Operation),
    Final(Final),
}

/// All members, as a server listed them at the end: `{"f":"final","node":1,"members":[1,2]}`.
#[derive(Debug, Serialize, Deserialize)]
struct Final {
    f: FinalWord,
    node: u64,
    members: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FinalWord {
    Final,
}

#[async_trait]
impl Workload for Set {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "keys written once are never lost, never doubled, and found everywhere as soon as they are acknowledged"
    }

    async fn step(&self, client: &mut Client) {
        let picked = if client.rng.random_bool(0.5) { self.members.pick(client) } else { None };
        match picked {
            Some(member) => self.look_up(client, member, "").await,
            None => self.add(client).await,
        }
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        for reply in site.read_everywhere(&format!("{}?recurse", self.folder)).await {
            let Some(answer) = reply.answer() else { continue };
            let members = members_in(answer).unwrap_or_else(|| vec![UNREADABLE]);
            site.journal.note(NAME, &Final { f: FinalWord::Final, node: reply.node, members });
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let (mut history, mut reads) = (Vec::new(), Vec::new());
        for entry in record.entries(NAME)? {
            match entry {
                Entry::Operation(operation) => history.push(operation),
                Entry::Final(read) => reads.push((read.node, read.members)),
            }
        }
        let verdict = if reads.is_empty() {
            Verdict::Vacuous("no server listed the set at the end".to_owned())
        } else {
            set::check(&history, &reads)
        };
        Ok(vec![Judgement::new("set", verdict)])
    }
}

impl Set {
    /// A set whose keys lie below `prefix`, which ends with a slash or is empty.
    pub fn below(prefix: &str) -> Self {
        Self { folder: format!("/v1/kv/{prefix}set/"), members: Known::default() }
    }

    async fn add(&self, client: &mut Client) {
        let member = client.fresh_number();
        // Some without the condition: what needs no outcome of its own might be answered too soon.
        let looks_at_once = client.rng.random_range(0..STALE_ONE_OF) == 0;
        let condition = if looks_at_once { "" } else { "?cas=0" };
        let path = format!("{}{member}{condition}", self.folder);
        let added = Operation { arg: Some(member), ..Operation::planned(0, Function::Add) };
        let call = Call::write(&path, member.to_string());
        if write(NAME, client.home(), client, call, added).await == Some(true) {
            self.members.add(member);
            if looks_at_once {
                // What a server has acknowledged it has applied itself.
                self.look_up(client, member, "?stale").await;
            }
        }
    }

    async fn look_up(&self, client: &mut Client, member: u64, query: &str) {
        let path = format!("{}{member}{query}", self.folder);
        let reply = client.send(Call::read(&path)).await;
        let Some(answer) = reply.answer() else { return };
        let (ok, ret) = (Some(answer.status == 200), Some(reply.end));
        let called = Operation::called(client.process(), 0, Function::Contains, reply.call);
        let looked = Operation { arg: Some(member), ok, ret, ..called };
        client.site.journal.note(NAME, &looked);
    }
}

/// The members of a listing; none if it is none at all.
fn members_in(answer: &Answer) -> Option<Vec<u64>> {
    if answer.status == 404 {
        return Some(Vec::new());
    }
    let entries: Vec<Value> = answer.json().ok()?;
    let member = |entry: &Value| entry["Key"].as_str()?.rsplit('/').next()?.parse().ok();
    Some(entries.iter().map(|entry| member(entry).unwrap_or(UNREADABLE)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_lines_are_read_back() {
        let lines = [
            r#"{"client":3,"key":0,"f":"add","from":null,"arg":57,"ok":true,"val":null,"call":1,"ret":2}"#,
            r#"{"f":"final","node":1,"members":[57]}"#,
        ];
        let entries: Vec<Entry> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(matches!(&entries[..], [Entry::Operation(_), Entry::Final(_)]));
        for (entry, line) in entries.iter().zip(lines) {
            assert_eq!(serde_json::to_string(entry).unwrap(), line);
        }
    }
}
