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
        ("they ended after the fault", "per second", changed(|request| request.ended = 4 * SECOND)),
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
