//! Counters in the key-value store that all clients share. Each increment is a default read, and a compare-and-set
//! by its `ModifyIndex`.

use async_trait::async_trait;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::steps::{UNREADABLE, decode_number, note_read, register_in, write};
use super::{Judgement, Workload};
use crate::Result;
use crate::checker::{Verdict, counter, linear};
use crate::client::{Call, Client, Site};
use crate::history::{Function, Operation};
use crate::http::{Answer, AnswerExt as _};
use crate::record::Record;

const NAME: &str = "counter";
/// Enough that the search for an order of the operations on one of them stays cheap.
const COUNTERS: u64 = 20;

/// See the module.
#[derive(Debug)]
pub struct Counter {
    /// What the names of its keys begin with.
    folder: String,
}

/// A line of the history.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Operation(Operation),
    End(End),
}

/// All counters as a server listed them at the end.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    node: u64,
    /// Their numbers and values; none: the list cannot be read.
    counters: Option<Vec<(u64, u64)>>,
}

impl Counter {
    /// Counters whose keys lie below `prefix`, which ends with a slash or is empty.
    pub fn below(prefix: &str) -> Self {
        Self { folder: format!("/v1/kv/{prefix}counter/") }
    }
}

#[async_trait]
impl Workload for Counter {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "counters end at the number of acknowledged increments, plus some of the unknown ones"
    }

    async fn step(&self, client: &mut Client) {
        let key = client.rng.random_range(0..COUNTERS);
        let path = format!("{}{key}", self.folder);
        let reply = client.send(Call::read(&path)).await;
        let Some(found) = reply.answer().map(register_in) else { return };
        let (index, from) = found.unwrap_or((0, Some(UNREADABLE)));
        note_read(NAME, &client.site, client.process(), key, &reply, (from, None));
        if from == Some(UNREADABLE) {
            return;
        }
        let next = from.unwrap_or(0) + 1;
        let path = format!("{path}?cas={index}");
        let planned = Operation::planned(key, Function::Cas);
        let raised = Operation { from, arg: Some(next), ..planned };
        let call = Call::write(&path, next.to_string());
        write(NAME, client.home(), client, call, raised).await;
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        for reply in site.read_everywhere(&format!("{}?recurse", self.folder)).await {
            let Some(answer) = reply.answer() else { continue };
            site.journal.note(NAME, &End { node: reply.node, counters: counters_in(answer) });
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let (mut history, mut ends) = (Vec::new(), Vec::new());
        for entry in record.entries(NAME)? {
            match entry {
                Entry::Operation(operation) => history.push(operation),
                Entry::End(end) => ends.push(end),
            }
        }
        let verdict = |End { node, counters }: &End| match counters {
            Some(counters) => counter::check(&history, &counters.iter().copied().collect()),
            None => Verdict::Invalid(vec![format!("the counters of n{node} cannot be read")]),
        };
        let mut verdicts: Vec<_> = ends.iter().map(verdict).collect();
        if verdicts.is_empty() {
            verdicts.push(Verdict::Vacuous("no server listed the counters at the end".to_owned()));
        }
        verdicts.push(linear::check(&history));
        Ok(verdicts.into_iter().map(|verdict| Judgement::new(NAME, verdict)).collect())
    }
}

fn counters_in(answer: &Answer) -> Option<Vec<(u64, u64)>> {
    if answer.status == 404 {
        return Some(Vec::new());
    }
    let counter = |entry: &Value| {
        let number = entry["Key"].as_str()?.rsplit('/').next()?.parse().ok()?;
        Some((number, decode_number(entry["Value"].as_str()?)?))
    };
    answer.value().ok()?.as_array()?.iter().map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counters_are_read_in_full_or_not_at_all() {
        let entry = |value: &str| json!({"Key": "a/counter/7", "Value": value});
        let read = |body: Value| counters_in(&Answer::new(200, body.to_string()));
        assert_eq!(read(json!([entry("MTI=")])), Some(vec![(7, 12)]));
        assert_eq!(read(json!([entry("MTI="), entry("YQ==")])), None);
        assert_eq!(counters_in(&Answer::new(404, "")), Some(Vec::new()));
    }

    #[test]
    fn both_kinds_of_lines_are_read_back() {
        let end = serde_json::json!({"w": NAME, "node": 1, "counters": [[7, 12]]});
        let operation = serde_json::to_string(&Operation::called(1, 7, Function::Cas, 3)).unwrap();
        assert!(matches!(Entry::deserialize(&end), Ok(Entry::End(End { node: 1, .. }))));
        assert!(matches!(serde_json::from_str(&operation), Ok(Entry::Operation(_))));
    }
}
