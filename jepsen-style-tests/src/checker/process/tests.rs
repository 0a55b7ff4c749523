use super::*;
use crate::journal::Ending;

const MIB: u64 = 1024 * 1024;
const TENTH: u64 = 100_000_000;

/// A life of `tenths` tenths of a second, with what it has at each.
fn life(pid: u32, tenths: u64, figures: impl Fn(u64) -> (u64, u64)) -> Vec<Sample> {
    let sample = |tenth| {
        let (descriptors, memory) = figures(tenth);
        Sample {
            at: u64::from(pid) * 1_000_000 * TENTH + tenth * TENTH,
            node: 1,
            pid: Some(pid),
            descriptors: Some(descriptors),
            memory: Some(memory),
            ..Sample::default()
        }
    };
    (0..tenths).map(sample).collect()
}

fn grown(samples: &[Sample]) -> Verdict {
    judge(&RunEnding::default(), samples, &Limits::new(30, 10_000))
}

#[test]
fn a_crowd_is_what_is_under_way_at_one_server_at_once() {
    let request = |node, sent, ended| RequestLine {
        client: 1,
        node,
        what: "GET /v1/kv/a".to_owned(),
        write: false,
        held: false,
        sent,
        ended,
        end: Ending::Answered,
        why: String::new(),
    };
    let requests =
        [request(1, 1, 5), request(1, 2, 9), request(1, 6, 8), request(2, 1, 9), request(2, 9, 10)];
    assert_eq!(crowd(&requests), 2);
    assert_eq!(crowd(&[]), 0);
}

#[test]
fn good_lives_are_accepted() {
    let steady = |_| (45, 70 * MIB);
    let good: Vec<(&str, Vec<Sample>)> = vec![
        ("steady", life(1, 300, steady)),
        ("a cold start", life(1, 300, |t| if t < 15 { (5, MIB) } else { (45, 70 * MIB) })),
        ("as measured", life(1, 300, |t| (30 + t / 20, 64 * MIB + t * MIB / 30))),
        (
            "everybody connects anew for a second",
            life(1, 300, |t| if t > 280 && t < 290 { (900, 70 * MIB) } else { steady(t) }),
        ),
        (
            "a restart sets everything back",
            [life(1, 300, steady), life(2, 300, |_| (500, 700 * MIB))].concat(),
        ),
        ("too short to tell", life(1, 50, |t| (45 * t, 70 * MIB * t))),
    ];
    for (name, samples) in good {
        assert_eq!(grown(&samples), Verdict::Valid, "{name}");
    }
}

#[test]
fn bad_lives_are_rejected() {
    let bad: Vec<(&str, &str, Vec<Sample>)> = vec![
        ("a descriptor for each request", "descriptors", life(1, 300, |t| (40 + 10 * t, MIB))),
        ("one for each tenth of them", "descriptors", life(1, 300, |t| (40 + t, MIB))),
        ("memory for each request", "memory", life(1, 300, |t| (40, (70 + 2 * t) * MIB))),
        (
            "only the second life",
            "pid 2",
            [life(1, 300, |_| (40, MIB)), life(2, 300, |t| (40 + 10 * t, MIB))].concat(),
        ),
        ("a step", "descriptors", life(1, 300, |t| if t < 150 { (40, MIB) } else { (400, MIB) })),
    ];
    for (name, word, samples) in bad {
        let Verdict::Invalid(said) = grown(&samples) else { panic!("{name}") };
        assert!(said.iter().any(|sentence| sentence.contains(word)), "{name}: {said:?}");
    }
}

#[test]
fn a_panic_and_a_process_that_ends_are_rejected() {
    let steady = life(1, 300, |_| (45, 70 * MIB));
    let limits = Limits::new(30, 10_000);
    let panics = vec!["n1: thread panicked".to_owned()];
    let ending = RunEnding { panics, ..RunEnding::default() };
    assert!(judge(&ending, &steady, &limits).is_invalid());
    assert!(judge(&ending, &[], &limits).is_invalid(), "without a sample, too");
    let ended_by_themselves = vec!["n1: exit status 1".to_owned()];
    let ending = RunEnding { ended_by_themselves, ..RunEnding::default() };
    assert!(judge(&ending, &steady, &limits).is_invalid());
}

#[test]
fn no_process_looked_at_proves_nothing() {
    assert!(matches!(grown(&[]), Verdict::Vacuous(_)));
    let gone = Sample { node: 1, pid: Some(7), ..Sample::default() };
    assert!(matches!(grown(&[gone]), Verdict::Vacuous(_)));
}
