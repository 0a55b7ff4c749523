//! Did the run exercise what it claims to? Too little traffic before the first fault, a nemesis without a
//! proven fault, or fewer than two proven faults in all, and the run proves nothing.

use super::Verdict;
use crate::client::OBSERVER;
use crate::journal::{Ending, RequestLine};
use crate::record::Record;
use crate::run::WARM_UP;

/// Acknowledged operations per second that must flow before the first fault, unless the plan's rate is
/// smaller than twice that: then half of the plan's rate.
const RATE_MIN: u64 = 100;
/// Proven faults in a run with nemeses.
const FAULTS_MIN: usize = 2;

/// Judges a run's coverage: valid or vacuous.
pub fn check(record: &Record) -> Verdict {
    let needed = RATE_MIN.min(record.plan.rate / 2);
    let rate = rate_before_faults(record);
    if rate < needed {
        return Verdict::Vacuous(format!(
            "only {rate} acknowledged requests per second before the first fault, {needed} are needed"
        ));
    }
    let is_skipped =
        |name: &String| record.ending.skipped.iter().any(|(skipped, _)| skipped == name);
    let mut wanted = record.plan.nemeses.iter().filter(|name| !is_skipped(name)).peekable();
    if record.plan.nemeses.is_empty() {
        return Verdict::Valid;
    }
    if wanted.peek().is_none() {
        return Verdict::Vacuous("every fault was skipped".to_owned());
    }
    let proven: Vec<_> = record.faults.iter().filter(|fault| fault.evidence.is_some()).collect();
    if proven.len() < FAULTS_MIN {
        return Verdict::Vacuous(format!(
            "only {} faults took effect{}",
            proven.len(),
            first_objection(record)
        ));
    }
    let is_idle = |name: &&String| !proven.iter().any(|fault| fault.nemesis == **name);
    match wanted.find(is_idle) {
        Some(name) => {
            Verdict::Vacuous(format!("no fault of {name} took effect{}", first_objection(record)))
        }
        None => Verdict::Valid,
    }
}

/// What the first probe that found no effect found instead, to be put behind a sentence.
fn first_objection(record: &Record) -> String {
    let objections = record.faults.iter().filter_map(|fault| {
        fault.objection.as_ref().map(|objection| format!(" ({}: {objection})", fault.what))
    });
    objections.into_iter().next().unwrap_or_default()
}

/// Acknowledged requests of clients per second, from when they began until the first fault. What observers look
/// at does not count, nor do blocking queries: they go on by themselves.
pub fn rate_before_faults(record: &Record) -> u64 {
    let began = record.ending.began;
    let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let warm = began.saturating_add(nanos(WARM_UP));
    let until = record.faults.first().map_or(warm, |fault| fault.began);
    let is_before = |end: u64| end >= began && end < until;
    let counts = |request: &&RequestLine| {
        let is_clients = !request.held && request.client != OBSERVER;
        is_clients && request.end == Ending::Answered && is_before(request.ended)
    };
    let answered = record.requests.iter().filter(counts).count();
    let millis = until.saturating_sub(began).div_ceil(1_000_000).max(1);
    u64::try_from(answered).unwrap_or(u64::MAX).saturating_mul(1_000) / millis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Fault;
    use crate::plan::Plan;
    use crate::record::RunEnding;

    const SECOND: u64 = 1_000_000_000;
    /// The first fault comes this long after the clients began.
    const CALM_S: u64 = 2;

    /// A run of `kill,pause` with so many requests before the first fault, and these faults.
    fn record(requests: u64, faults: Vec<Fault>) -> Record {
        let names = ["kill", "pause"].map(str::to_owned);
        let request = |number| RequestLine {
            client: 1,
            node: 1,
            what: "GET /v1/kv/a".to_owned(),
            write: false,
            held: false,
            sent: SECOND,
            ended: SECOND + number,
            end: Ending::Answered,
            why: String::new(),
        };
        let plan = Plan {
            workload: "set".to_owned(),
            nemeses: names.to_vec(),
            nodes: 3,
            time_s: 20,
            rate: 300,
            clients: 30,
            seed: 1,
            mutant: None,
        };
        let ending = RunEnding { began: SECOND, ..RunEnding::default() };
        Record::of_parts(plan, ending, (0..requests).map(request).collect(), faults)
    }

    fn fault(name: &str, is_proven: bool) -> Fault {
        Fault {
            nemesis: name.to_owned(),
            what: format!("one {name}"),
            began: (1 + CALM_S) * SECOND,
            evidence: is_proven.then(|| "seen".to_owned()),
            objection: (!is_proven).then(|| "nothing seen".to_owned()),
            ..Fault::default()
        }
    }

    fn both() -> Vec<Fault> {
        vec![fault("kill", true), fault("pause", true)]
    }

    /// Just enough requests.
    const ENOUGH: u64 = RATE_MIN * CALM_S;

    #[test]
    fn good_runs_are_accepted() {
        let mut without_faults = record(2 * ENOUGH, Vec::new());
        without_faults.plan.nemeses.clear();
        let mut slow = record(20 * CALM_S, both());
        slow.plan.rate = 40;
        let mut one_skipped = record(ENOUGH, vec![fault("kill", true), fault("kill", true)]);
        one_skipped.ending.skipped.push(("pause".to_owned(), "not here".to_owned()));
        let good = [
            ("just enough", record(ENOUGH, both())),
            (
                "one more that took no effect",
                record(ENOUGH, [both(), vec![fault("kill", false)]].concat()),
            ),
            ("no faults were asked for", without_faults),
            ("a plan of a small rate needs half of it", slow),
            ("what is skipped need not take effect", one_skipped),
        ];
        for (name, record) in good {
            assert_eq!(check(&record), Verdict::Valid, "{name}");
        }
    }

    #[test]
    fn runs_that_prove_nothing_are_rejected() {
        let changed = |change: fn(&mut RequestLine)| {
            let mut record = record(ENOUGH, both());
            record.requests.iter_mut().for_each(change);
            record
        };
        let mut all_skipped = record(2 * ENOUGH, Vec::new());
        for name in ["kill", "pause"] {
            all_skipped.ending.skipped.push((name.to_owned(), "not here".to_owned()));
        }
        let bad = [
            ("too few requests", "per second", record(ENOUGH - 1, both())),
            ("they failed", "per second", changed(|request| request.end = Ending::Refused)),
            ("they were observers'", "per second", changed(|request| request.client = OBSERVER)),
            ("they were blocking queries", "per second", changed(|request| request.held = true)),
            (
                "they ended after the fault",
                "per second",
                changed(|request| request.ended = 4 * SECOND),
            ),
            ("one fault", "only 1 faults", record(ENOUGH, vec![fault("kill", true)])),
            (
                "one of two took no effect",
                "nothing seen",
                record(ENOUGH, vec![fault("kill", true), fault("pause", false)]),
            ),
            (
                "none of one kind",
                "no fault of pause",
                record(ENOUGH, vec![fault("kill", true), fault("kill", true)]),
            ),
            ("all are skipped", "skipped", all_skipped),
        ];
        for (name, word, record) in bad {
            let Verdict::Vacuous(said) = check(&record) else { panic!("{name}") };
            assert!(said.contains(word), "{name}: {said}");
        }
    }
}
