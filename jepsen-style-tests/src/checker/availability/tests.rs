use super::*;

const SECOND: u64 = 1_000_000_000;

fn request(node: u64, sent_s: u64, ended_s: u64, end: Ending) -> RequestLine {
    RequestLine {
        client: 1,
        node,
        what: "GET /v1/kv/a".to_owned(),
        write: false,
        held: false,
        sent: sent_s * SECOND,
        ended: ended_s * SECOND,
        end,
        why: String::new(),
    }
}

fn answered(node: u64, sent_s: u64, ended_s: u64) -> RequestLine {
    request(node, sent_s, ended_s, Ending::Answered)
}

fn held(request: RequestLine) -> RequestLine {
    RequestLine { held: true, ..request }
}

/// From second 10 until healed at 20 and recovered at 25.
fn fault(affected: &[u64]) -> Fault {
    Fault {
        affected: affected.to_vec(),
        began: 10 * SECOND,
        injected: Some(10 * SECOND),
        healed: Some(20 * SECOND),
        recovered: Some(25 * SECOND),
        ..Fault::default()
    }
}

fn judge(requests: &[RequestLine], faults: &[Fault]) -> Verdict {
    super::judge(&[1, 2, 3], requests, faults)
}

#[test]
fn good_runs_are_accepted() {
    let (one, all) = ([fault(&[1])], [fault(&[1, 2, 3])]);
    let forever = [Fault { healed: None, recovered: None, ..fault(&[1]) }];
    let during = || answered(2, 12, 13);
    let good: Vec<(&str, Vec<RequestLine>, &[Fault])> = vec![
        ("nothing is broken", vec![answered(1, 1, 2)], &[]),
        ("kept while a leader is elected", vec![answered(2, 12, 19)], &one),
        (
            "refused by the one that is killed",
            vec![during(), request(1, 12, 13, Ending::NotSent)],
            &one,
        ),
        ("under way when it was killed", vec![during(), request(1, 5, 10, Ending::Unknown)], &one),
        ("sent before it was ready", vec![during(), request(1, 24, 26, Ending::Refused)], &one),
        ("never recovered", vec![during(), request(1, 99, 100, Ending::Unknown)], &forever),
        ("a blocking query takes its time", vec![held(answered(2, 11, 60))], &one),
        ("all are affected", vec![request(2, 12, 13, Ending::Refused)], &all),
    ];
    for (name, requests, faults) in good {
        assert_eq!(judge(&requests, faults), Verdict::Valid, "{name}");
    }
}

#[test]
fn bad_runs_are_rejected() {
    let one = [fault(&[1])];
    let bad: Vec<(&str, &str, Vec<RequestLine>, &[Fault])> = vec![
        ("refused by a survivor", "refused", vec![request(2, 12, 13, Ending::Refused)], &one),
        ("left open by a survivor", "left open", vec![request(2, 12, 13, Ending::Unknown)], &one),
        ("a survivor does not listen", "not sent", vec![request(3, 12, 13, Ending::NotSent)], &one),
        ("kept for too long", "answered after", vec![answered(2, 12, 21)], &one),
        ("refused before the fault", "refused", vec![request(1, 8, 9, Ending::Refused)], &one),
        ("refused after it recovered", "refused", vec![request(1, 26, 27, Ending::Refused)], &one),
        ("refused without a fault", "refused", vec![request(1, 1, 2, Ending::Refused)], &[]),
        (
            "a blocking query fails",
            "left open",
            vec![held(request(2, 11, 20, Ending::Unknown))],
            &one,
        ),
    ];
    for (name, word, requests, faults) in bad {
        let Verdict::Invalid(said) = judge(&requests, faults) else { panic!("{name}") };
        assert!(said[0].contains(word), "{name}: {said:?}");
    }
}

#[test]
fn a_heartbeat_may_be_refused_if_lost_packets_kept_it_for_long() {
    let why = format!("{HEARTBEAT_DELAYED}, send another");
    let late =
        |ended_s| RequestLine { why: why.clone(), ..request(2, 12, ended_s, Ending::Refused) };
    let of = |name: &str| [Fault { nemesis: name.to_owned(), ..fault(&[]) }];
    let during = answered(2, 12, 13);
    assert!(judge(&[during.clone(), late(17)], &of("loss")).is_valid());
    assert!(judge(&[during, late(17)], &of("kill+loss")).is_valid());
    assert!(judge(&[late(13)], &of("loss")).is_invalid(), "it was not late");
    assert!(judge(&[late(17)], &of("kill-leader")).is_invalid(), "nothing was lost");
    assert!(judge(&[late(17)], &[]).is_invalid());
    let other = request(2, 12, 17, Ending::Refused);
    assert!(judge(&[other], &of("loss")).is_invalid(), "it was refused for another reason");
}

#[test]
fn what_a_paused_server_held_is_answered_soon_after() {
    let of = |name: &str| {
        // Paused from 10 to 13, and everybody had caught up at 13.
        let recovered = Some(13 * SECOND);
        [Fault { nemesis: name.to_owned(), healed: recovered, recovered, ..fault(&[1]) }]
    };
    let judge_with = |name: &str, sent_s, ended_s, end| {
        judge(&[answered(2, 11, 12), request(1, sent_s, ended_s, end)], &of(name))
    };
    for name in PAUSING {
        let verdict = judge_with(name, 9, 16, Ending::Unknown);
        let Verdict::Invalid(said) = verdict else { panic!("{name}: {verdict}") };
        assert!(said[0].contains("left open after 7s"), "{said:?}");
    }
    assert!(judge_with("pause", 9, 14, Ending::Unknown).is_valid(), "it is soon enough");
    assert!(judge_with("pause", 9, 16, Ending::Answered).is_valid(), "it is answered");
    assert!(judge_with("pause", 11, 17, Ending::Unknown).is_valid(), "it came in late");
    assert!(judge_with("loss", 9, 16, Ending::Unknown).is_valid(), "a message may be lost");
    assert!(judge_with("loss+pause", 9, 16, Ending::Unknown).is_valid(), "the same");
    let lasting = [Fault { recovered: None, ..of("pause")[0].clone() }];
    let open = request(1, 9, 16, Ending::Unknown);
    assert!(judge(&[answered(2, 11, 12), open], &lasting).is_valid(), "it never caught up");
}

#[test]
fn many_violations_are_counted() {
    let requests = vec![request(2, 12, 13, Ending::Refused); 30];
    let Verdict::Invalid(said) = judge(&requests, &[]) else { panic!("30 refusals") };
    assert_eq!(said.len(), SENTENCES_MAX + 1);
    assert_eq!(said[SENTENCES_MAX], "30 requests in all");
}

#[test]
fn a_fault_that_nobody_met_proves_nothing() {
    let is_vacuous = |verdict| matches!(verdict, Verdict::Vacuous(_));
    assert!(is_vacuous(judge(&[], &[])));
    assert!(is_vacuous(judge(&[answered(2, 1, 2), answered(2, 30, 31)], &[fault(&[1])])));
    assert!(is_vacuous(judge(&[answered(1, 12, 13)], &[fault(&[1])])));
}
