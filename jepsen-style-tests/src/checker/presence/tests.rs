use super::*;
use crate::journal::{Fault, Sample};

/// A run of a minute, in which n1 leads.
fn samples() -> Vec<Sample> {
    let leads =
        |at: u64| Sample { at, node: 1, term: Some(1), leads: Some(true), ..<_>::default() };
    vec![leads(0), leads(60 * SECOND)]
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

/// What a run with faults that end processes had.
fn killed() -> Restarts {
    Restarts::of(&[Fault { nemesis: "kill".to_owned(), ..Fault::default() }])
}

fn opened(life: u64, node: u64, at: u64) -> Event {
    Event::Opened { life, node, attempt: 1, at }
}

fn parted(life: u64, at: u64) -> Event {
    Event::Parted { life, node: 1, at, why: "moved".to_owned() }
}

fn died(life: u64, at: u64, node: Option<u64>) -> Event {
    Event::Died { life, at, linger_ms: 500, node }
}

fn look(at: u64, stale: bool, critical: &[u64]) -> Event {
    Event::Look { node: 3, stale, call: at, ret: at + MILLISECOND, critical: critical.to_vec() }
}

/// Sixty lives that move once each and die at second 20, and looks that show them `late` after their linger.
fn run(late: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for life in 0..60 {
        events.extend([opened(life, 1, 0), parted(life, SECOND), opened(life, 3, 2 * SECOND)]);
        events.push(died(life, 20 * SECOND, Some(3)));
    }
    let all: Vec<u64> = (0..60).collect();
    let shown_from = 20 * SECOND + 500 * MILLISECOND + late;
    for at in (0..30 * SECOND).step_by(100_000_000) {
        let critical: &[u64] = if at >= shown_from { &all } else { &[] };
        events.extend([look(at, false, critical), look(at, true, critical)]);
    }
    events
}

fn due_of(events: &[Event], life: u64) -> Option<Due> {
    lives(events)[&life].due(&windy(), &SentAway::of(events))
}

fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Invalid(violations) => violations.join("\n"),
        other => panic!("{other}"),
    }
}

#[test]
fn lives_that_pass_until_their_linger_is_over_and_show_soon_after_are_accepted() {
    let events = run(600 * MILLISECOND);
    assert_eq!(check_living(&events, &killed()), Verdict::Valid);
    assert_eq!(check_dead(&events, &calm()), Verdict::Valid);
    let counts = count(&events, &calm());
    let expected = Counts { lives: 60, moves: 60, judged_soon: 60, judged_after_grace: 0 };
    assert_eq!(counts, expected);
}

#[test]
fn one_that_is_critical_while_it_lives_is_found_by_whatever_read() {
    for at in [SECOND + 1, 10 * SECOND, 20 * SECOND - 2 * MILLISECOND] {
        for stale in [false, true] {
            let mut events = run(0);
            events.push(look(at, stale, &[7]));
            let said = said(&check_living(&events, &killed()));
            assert!(said.starts_with("life 7 was critical while it lived"), "{said}");
        }
    }
    let mut events = run(0);
    events.push(look(20 * SECOND + 300 * MILLISECOND, true, &[7]));
    let said = said(&check_living(&events, &killed()));
    assert!(said.starts_with("life 7 was critical 199 ms before its linger was over"), "{said}");
}

#[test]
fn one_that_found_no_server_for_long_is_not_held_against_anybody() {
    let mut events = run(0);
    events.extend([opened(99, 1, 0), parted(99, SECOND), opened(99, 2, 12 * SECOND)]);
    events.push(look(10 * SECOND, false, &[99]));
    assert_eq!(check_living(&events, &killed()), Verdict::Valid);
    events.push(look(8 * SECOND, false, &[99]));
    said(&check_living(&events, &killed()));
}

#[test]
fn a_dead_one_that_goes_on_passing_is_found() {
    let said = said(&check_dead(&run(1_200 * MILLISECOND), &calm()));
    assert!(said.contains("life 7 was killed at 20000000000 ns and was still passing"), "{said}");
    // Only stale reads show it.
    let mut events = run(0);
    events.retain(|event| !matches!(event, Event::Look { stale: true, .. }));
    let mut late = events.clone();
    for event in &mut late {
        if let Event::Look { critical, .. } = event {
            critical.retain(|life| *life != 7);
        }
    }
    assert_eq!(check_dead(&events, &calm()), Verdict::Valid);
    assert!(matches!(check_dead(&late, &calm()), Verdict::Invalid(all) if all.len() == 1));
}

#[test]
fn the_end_of_one_whose_server_was_lost_may_take_the_grace_and_no_longer() {
    let mut events = run(0);
    events.extend([opened(99, 2, 0), died(99, 12 * SECOND, Some(2))]);
    // Life 99 never shows, and the looks end before it must.
    assert_eq!(check_dead(&events, &windy()), Verdict::Valid);
    assert_eq!(due_of(&events, 99).map(Due::at), Some(33 * SECOND + 250 * MILLISECOND));
    events.push(look(34 * SECOND, false, &[]));
    let all = said(&check_dead(&events, &windy()));
    assert!(all.contains("life 99 was killed"), "{all}");
    // So may that of one whose server sends its clients away, as another life is told.
    assert!(matches!(due_of(&events, 7), Some(Due::Soon(_))));
    let why = "moved".to_owned();
    events.push(Event::Parted { life: 98, node: 3, at: 21 * SECOND, why });
    assert!(matches!(due_of(&events, 7), Some(Due::AfterGrace(_))));
    events.pop();
    // What was in doubt when it died is not judged.
    for event in &mut events {
        if let Event::Died { life: 99, node, .. } = event {
            *node = None;
        }
    }
    let all = said(&check_dead(&events, &windy()));
    assert!(!all.contains("life 99"), "{all}");
}

#[test]
fn too_little_proves_nothing_and_what_does_not_fit_is_a_violation() {
    let few: Vec<_> = run(0)
        .into_iter()
        .filter(|event| !matches!(event, Event::Parted { .. }))
        .filter(|event| !matches!(event, Event::Opened { node: 1, .. }))
        .collect();
    assert!(matches!(check_living(&few, &killed()), Verdict::Vacuous(_)));
    assert_eq!(check_living(&few, &Restarts::default()), Verdict::Valid);
    let alive: Vec<_> =
        run(0).into_iter().filter(|event| !matches!(event, Event::Died { .. })).collect();
    assert!(matches!(check_dead(&alive, &calm()), Verdict::Vacuous(_)));
    let mut events = run(0);
    let what = "it was told that it is replaced".to_owned();
    events.push(Event::Strange { life: 5, node: 2, what });
    let said = said(&check_living(&events, &killed()));
    assert!(said.contains("life 5 at n2"), "{said}");
}
