use super::*;
use crate::checker::Verdict;
use crate::journal::{Fault, Sample};

/// Nobody is served for so long.
const TURN: u64 = 100 * MILLISECOND;

/// A run of two minutes, in which n1 leads.
fn samples() -> Vec<Sample> {
    let leads =
        |at: u64| Sample { at, node: 1, term: Some(1), leads: Some(true), ..<_>::default() };
    vec![leads(0), leads(120 * SECOND)]
}

fn calm() -> Weather {
    Weather::new(&[], &samples(), 3)
}

/// n2 is down from second 10 to second 14.
fn windy() -> Weather {
    let (began, recovered) = (10 * SECOND, Some(14 * SECOND));
    let fault = Fault { affected: vec![2], began, recovered, ..Fault::default() };
    Weather::new(&[fault], &samples(), 3)
}

fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Invalid(violations) => violations.join("\n"),
        other => panic!("{other}"),
    }
}

/// A run that is made step by step.
#[derive(Default)]
struct Story {
    events: Vec<Event>,
    records: Vec<Entry>,
    grants: u64,
}

impl Story {
    /// 120 claims at n1, n2 and n3, each of which waits for the one before; all get `pooled-2`.
    fn of_a_line() -> Self {
        let mut story = Self::default();
        for claim in 0..120 {
            story.queue(claim);
            if claim > 0 {
                story.serve(claim - 1);
            }
        }
        story.serve(119);
        story
    }

    fn record(&mut self, kind: &str, claim: u64) -> &mut Entry {
        let seq = self.records.len() as u64 + 1;
        let position = claim + 1;
        self.records.push(Entry {
            seq,
            kind: kind.to_owned(),
            claim,
            position,
            ..Entry::default()
        });
        self.records.last_mut().unwrap()
    }

    fn queue(&mut self, claim: u64) {
        self.record(QUEUED, claim);
    }

    fn grant(&mut self, claim: u64, instance: &str) -> Told {
        self.grants += 1;
        let (fence, seq) = (self.grants * 3, self.grants);
        let entry = self.record(GRANTED, claim);
        (entry.instance, entry.fence, entry.grant) = (instance.to_owned(), fence, seq);
        Told::Granted { instance: instance.to_owned(), fence, seq }
    }

    fn end(&mut self, claim: u64, reason: &str) {
        self.record(ENDED, claim).reason = reason.to_owned();
    }

    /// It waited for two turns, and has the instance for one.
    fn serve(&mut self, claim: u64) {
        let at = claim * TURN;
        let told = self.grant(claim, "pooled-2");
        self.ask(claim, 0, at.saturating_sub(2 * TURN), at + 1, told);
        self.end(claim, "released");
        let (call, ret) = (at + TURN / 2, at + TURN);
        self.events.push(Event::Release { claim, call, ret, told: Some(String::new()) });
    }

    fn ask(&mut self, claim: u64, attempt: u64, call: u64, ret: u64, told: Told) {
        let (node, region) = (claim % 3 + 1, String::new());
        let ask = Event::Ask { claim, attempt, node, region, ttl_ms: 2_000, call, ret, told };
        self.events.push(ask);
    }

    fn told(mut self) -> Vec<Event> {
        self.events.push(Event::History { oldest: 1, records: self.records });
        self.events
    }
}

#[test]
fn a_line_that_is_served_in_order_is_accepted() {
    let events = Story::of_a_line().told();
    assert_eq!(check_exclusive(&events), Verdict::Valid);
    assert_eq!(check_fifo(&events, &calm()), Verdict::Valid);
    assert_eq!(check_idle(&events, &calm(), 1), Verdict::Valid);
    let counts = count(&events, &calm());
    assert_eq!((counts.claims, counts.grants, counts.taken_back), (120, 120, 0));
    assert!(counts.compared > 100 && counts.waits == 119, "{counts:?}");
}

#[test]
fn two_holders_of_one_slot_are_found() {
    let mut story = Story::of_a_line();
    for claim in [200, 201] {
        story.queue(claim);
        story.grant(claim, "pooled-1");
    }
    assert_eq!(
        check_exclusive(&Story { records: story.records.clone(), ..Story::of_a_line() }.told()),
        Verdict::Valid
    );
    story.queue(202);
    story.grant(202, "pooled-1");
    let said = said(&check_exclusive(&story.told()));
    assert!(said.contains("pooled-1 has 2 slots and is [(200,"), "{said}");
}

#[test]
fn fences_that_do_not_grow_and_grants_that_are_lost_or_doubled_are_found() {
    let mut story = Story::of_a_line();
    story.grants = 3;
    story.queue(200);
    story.grant(200, "pooled-3");
    let text = said(&check_exclusive(&story.told()));
    assert!(text.contains("fence 12 after 360") && text.contains("grant 4 after 120"), "{text}");
    let mut story = Story::of_a_line();
    story.end(7, "expired");
    let text = said(&check_exclusive(&story.told()));
    assert!(text.contains("claim.ended of claim 7, which was over"), "{text}");
}

#[test]
fn a_claim_that_is_over_before_its_client_releases_it_is_found() {
    let released = |at: u64| {
        let mut story = Story::of_a_line();
        for event in &mut story.events {
            if let Event::Release { claim: 70, call, .. } = event {
                *call = at;
            }
        }
        check_exclusive(&story.told())
    };
    // Claim 71 is told of the instance at second 7.1.
    assert_eq!(released(7_100 * MILLISECOND), Verdict::Valid);
    let text = said(&released(7_200 * MILLISECOND));
    assert!(text.contains("claim 70 was over before its client released it"), "{text}");
}

#[test]
fn a_client_that_is_told_what_is_not_so_is_found() {
    let cases: [(Told, &str); 3] = [
        (Told::Busy, "was told that all are busy"),
        (Told::Over("expired".to_owned()), "was told that it is over: expired"),
        (
            Told::Granted { instance: "pooled-2".to_owned(), fence: 1, seq: 1 },
            "was told of pooled-2, fence 1",
        ),
    ];
    for (told, expected) in cases {
        let mut story = Story::of_a_line();
        story.queue(200);
        story.grant(200, "pooled-3");
        story.ask(200, 0, 0, SECOND, told);
        let said = said(&check_exclusive(&story.told()));
        assert!(said.contains(expected), "{said}");
    }
    let mut story = Story::of_a_line();
    let told = Some("expired".to_owned());
    story.events.push(Event::Release { claim: 7, call: 0, ret: 1, told });
    let said = said(&check_exclusive(&story.told()));
    assert!(said.contains("was told Some(\"expired\") when it was released"), "{said}");
}

#[test]
fn one_who_came_before_and_waited_is_found_unless_his_server_was_not_well() {
    // Claim 302 came before 500 and has the same requirements; both wait at n3.
    let overtaken = |at: u64, ret: u64| {
        let mut story = Story::of_a_line();
        story.record(QUEUED, 302);
        story.record(QUEUED, 500);
        let told = story.grant(500, "pooled-3");
        story.ask(500, 0, at, at + SECOND, told);
        story.ask(302, 0, at, ret, Told::Left);
        story.told()
    };
    let text = said(&check_fifo(&overtaken(30 * SECOND, 40 * SECOND), &calm()));
    assert!(
        text.contains("claim 500 was granted at place 501, before claim 302 at place 303"),
        "{text}"
    );
    // It had left when the other one was told.
    let events = overtaken(30 * SECOND, 30 * SECOND + 1);
    assert_eq!(check_fifo(&events, &calm()), Verdict::Valid);
    // n3 was paused; so was n2, which is nobody's business.
    let at = 30 * SECOND;
    for (node, is_found) in [(3, false), (2, true)] {
        let (began, recovered) = (at, Some(at + SECOND));
        let fault = Fault { affected: vec![node], began, recovered, ..Fault::default() };
        let weather = Weather::new(&[fault], &samples(), 3);
        let verdict = check_fifo(&overtaken(at, 40 * SECOND), &weather);
        assert_eq!(verdict.is_invalid(), is_found, "n{node}: {verdict}");
    }
}

#[test]
fn after_an_offer_ran_out_the_others_of_its_server_may_be_passed_over() {
    let mut story = Story::of_a_line();
    // All three wait at n2.
    for claim in [301, 304, 307] {
        story.queue(claim);
    }
    story.grant(301, "pooled-3");
    story.queue(301);
    let told = story.grant(307, "pooled-3");
    story.ask(301, 0, 30 * SECOND, 31 * SECOND, Told::Left);
    story.ask(304, 0, 30 * SECOND, 50 * SECOND, Told::Left);
    story.ask(307, 0, 30 * SECOND, 40 * SECOND, told);
    assert_eq!(check_fifo(&story.told(), &calm()), Verdict::Valid);
}

/// `pooled-2` idles from second 12 on, while claim 201 waits at n1 until `until`.
fn idling(until: u64, region: &str) -> Vec<Event> {
    let mut story = Story::of_a_line();
    story.queue(201);
    story.ask(201, 0, 12 * SECOND, until, Told::Left);
    if let Some(Event::Ask { region: required, .. }) = story.events.last_mut() {
        region.clone_into(required);
    }
    story.told()
}

#[test]
fn an_instance_that_idles_while_somebody_waits_is_found() {
    assert_eq!(check_idle(&idling(18 * SECOND, ""), &calm(), 1), Verdict::Valid);
    let text = said(&check_idle(&idling(20 * SECOND, "eu"), &calm(), 1));
    assert!(text.contains("pooled-2 idled from 12000000000 to 20000000000 ns (8000 ms)"), "{text}");
    // It is in another region, or two servers were lost at once.
    assert_eq!(check_idle(&idling(20 * SECOND, "asia"), &calm(), 1), Verdict::Valid);
    assert_eq!(check_idle(&idling(20 * SECOND, "eu"), &calm(), 2), Verdict::Valid);
}

#[test]
fn who_waits_at_a_server_that_is_lost_waits_for_no_instance() {
    let fault = |node| {
        let (began, recovered) = (13 * SECOND, Some(14 * SECOND));
        Weather::new(
            &[Fault { affected: vec![node], began, recovered, ..Fault::default() }],
            &samples(),
            3,
        )
    };
    // Claim 201 waits at n1, which leads: time stands still as well.
    assert_eq!(check_idle(&idling(20 * SECOND, ""), &fault(1), 1), Verdict::Valid);
    said(&check_idle(&idling(20 * SECOND, ""), &fault(3), 1));
}

#[test]
fn a_holder_that_falls_silent_keeps_its_instance_for_its_ttl() {
    let silent = |until: u64| {
        let mut story = Story::of_a_line();
        story.queue(200);
        let told = story.grant(200, "pooled-2");
        story.ask(200, 0, 12 * SECOND, 12 * SECOND + 1, told);
        story.queue(201);
        story.ask(201, 0, 12 * SECOND, until, Told::Left);
        story.told()
    };
    // Its TTL of 2 s, the delay, and what an offer may take.
    assert_eq!(check_idle(&silent(21 * SECOND), &calm(), 1), Verdict::Valid);
    let text = said(&check_idle(&silent(23 * SECOND), &calm(), 1));
    assert!(text.contains("while claim 201 waited"), "{text}");
}

#[test]
fn too_little_proves_nothing() {
    let none: [Event; 0] = [];
    assert!(matches!(check_exclusive(&none), Verdict::Vacuous(_)));
    let mut story = Story::of_a_line();
    story.events.retain(|event| !matches!(event, Event::Ask { .. }));
    let events = story.told();
    assert!(matches!(check_fifo(&events, &calm()), Verdict::Vacuous(_)));
    assert!(matches!(check_idle(&events, &calm(), 1), Verdict::Vacuous(_)));
    let mut lost = Story::of_a_line().told();
    if let Some(Event::History { oldest, .. }) = lost.last_mut() {
        *oldest = 7;
    }
    assert!(matches!(check_exclusive(&lost), Verdict::Vacuous(_)));
    assert_eq!(check_fifo(&Story::of_a_line().told(), &windy()), Verdict::Valid);
}
