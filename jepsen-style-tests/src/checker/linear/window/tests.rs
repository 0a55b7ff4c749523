use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::super::tests::{cas, read, write};
use super::*;

fn core(window: &Window) -> Vec<Operation> {
    window.operations.iter().filter(|o| o.is_core).map(|o| o.operation).collect()
}

#[test]
fn a_linearizable_history_has_no_window() {
    assert_eq!(smallest_window(&[write(1, 1, 2), read(1, 3, 4), cas(1, 2, true, 5, 6)]), None);
    assert_eq!(smallest_window(&[]), None);
}

#[test]
fn a_stale_read_stands_alone_against_a_certain_value() {
    let mut history: Vec<Operation> = (1..=100).map(|n| write(n, 10 * n, 10 * n + 5)).collect();
    history.push(read(99, 1_010, 1_015));
    history.push(write(200, 1_020, 1_025));
    let window = smallest_window(&history).unwrap();
    assert_eq!((window.value, window.began, window.ended), (Some(100), 1_005, 1_015));
    assert_eq!(core(&window), [read(99, 1_010, 1_015)]);
    assert_eq!(window.operations.len(), 1);
    assert_eq!(window.earlier, history[94..100]);
    assert_eq!(window.origin, Some(history[98]));
}

#[test]
fn what_ran_beside_the_contradiction_is_shown_and_not_blamed() {
    // The reads of the old value and of nothing else are innocent; time runs backwards in two others.
    let history = [
        write(1, 1, 2),
        write(2, 3, 30),
        read(1, 4, 5),
        read(2, 6, 7),
        write(3, 8, 40),
        read(1, 9, 10),
    ];
    let window = smallest_window(&history).unwrap();
    assert_eq!(window.ended, 10);
    assert_eq!((window.began, window.value), (7, Some(2)));
    assert_eq!(core(&window), [read(1, 9, 10)]);
    let open = Operation { ret: None, ok: None, ..write(3, 8, 40) };
    assert_eq!(window.operations[0], Placed { operation: open, is_core: false });
}

#[test]
fn two_winners_of_one_compare_and_set_are_both_blamed() {
    let history = [write(1, 1, 2), cas(1, 2, true, 3, 6), cas(1, 3, true, 4, 7)];
    let window = smallest_window(&history).unwrap();
    assert_eq!((window.value, window.began), (Some(1), 2));
    assert_eq!(core(&window), history[1..]);
    let beside = [write(1, 1, 2), write(9, 3, 20), cas(1, 2, true, 4, 8), cas(1, 3, true, 5, 7)];
    assert_eq!(core(&smallest_window(&beside).unwrap()).len(), 2);
}

#[test]
fn an_unknown_write_from_before_is_carried_along_if_somebody_looks_for_its_value() {
    let history = [
        write(8, 1, None),
        write(9, 1, None),
        write(1, 2, 3),
        read(8, 4, 5),
        write(2, 6, 7),
        read(8, 8, 9),
    ];
    let window = smallest_window(&history).unwrap();
    assert_eq!((window.value, window.ended), (Some(2), 9));
    assert_eq!(core(&window), [read(8, 8, 9)]);
    // 8 was seen before, so it took effect before; 9 is looked for by nobody.
    assert_eq!((window.operations.len(), window.unseen), (1, 1));
    let late = [write(8, 1, None), write(1, 2, 3), read(1, 4, 5), read(8, 6, 7), read(1, 8, 9)];
    let window = smallest_window(&late).unwrap();
    assert_eq!((window.value, window.began), (Some(8), 7));
}

#[test]
fn the_smallest_window_of_several_keys_is_chosen() {
    let mut history =
        vec![write(1, 1, 2), write(2, 3, 20), write(3, 4, 21), read(2, 5, 6), read(3, 7, 8)];
    history.push(read(2, 9, 10));
    let other = |operation: Operation| Operation { key: 2, ..operation };
    history.extend([other(write(5, 30, 31)), other(read(None, 32, 33))]);
    let window = smallest_window(&history).unwrap();
    assert_eq!((window.key, window.operations.len()), (1, 1));
    history.truncate(5);
    history.extend([other(write(5, 30, 31)), other(read(None, 32, 33))]);
    assert_eq!(smallest_window(&history).unwrap().key, 2);
}

/// A history of a few clients whose answers are nearly always those of a register.
fn random_history(rng: &mut ChaCha8Rng) -> Vec<Operation> {
    let (mut value, mut free) = (None, [1_u64; 4]);
    let mut history = Vec::new();
    for number in 1..=14_u64 {
        let client = rng.random_range(0..free.len());
        let call = free[client] + rng.random_range(1..6_u64) * 10 + number;
        let effect_late = rng.random_range(1..12_u64) * 10;
        free[client] = call + effect_late;
        history.push((client, call, call + effect_late, number));
    }
    history.sort_by_key(|(_, call, ret, _)| call + ret);
    history
        .into_iter()
        .map(|(_, call, ret, number)| {
            // No moment comes twice.
            let (call, ret) = (call * 100 + number, ret * 100 + 50 + number);
            let lie = rng.random_range(0..25) == 0;
            let is_unknown = rng.random_range(0..6) == 0;
            let before = if lie { Some(rng.random_range(1..14)) } else { value };
            match rng.random_range(0..3) {
                0 => read(before, call, ret),
                1 => {
                    value = if is_unknown && lie { value } else { Some(number) };
                    write(number, call, (!is_unknown).then_some(ret))
                }
                _ => {
                    let ok = rng.random_range(0..3) > 0;
                    let from = if ok { before } else { Some(77) };
                    value = if ok { Some(number) } else { value };
                    cas(from, number, ok, call, (!is_unknown).then_some(ret))
                }
            }
        })
        .collect()
}

#[test]
fn every_window_is_a_proof_and_every_blamed_operation_is_needed_for_it() {
    let mut failing = 0;
    for seed in 0..3_000 {
        let history = random_history(&mut ChaCha8Rng::seed_from_u64(seed));
        let Some(window) = smallest_window(&history) else {
            assert!(super::super::check(&history).is_valid(), "seed {seed}");
            continue;
        };
        failing += 1;
        assert!(super::super::check(&history).is_invalid(), "seed {seed}");
        let register = &by_key(&history)[&1];
        let register: Vec<&Operation> = register.iter().copied().filter(|o| matters(o)).collect();
        assert!(is_explained(&known_at(&register, window.ended - 1), None), "seed {seed}");
        let all: Vec<Operation> = window.operations.iter().map(|o| o.operation).collect();
        assert!(!is_explained(&all, window.value), "seed {seed}");
        // Relaxed together, the innocent still leave a contradiction; one of the blamed less, and
        // there is none.
        let needed: Vec<Option<Operation>> = window
            .operations
            .iter()
            .map(|o| if o.is_core { Some(o.operation) } else { relaxed(&o.operation) })
            .collect();
        let flat = |some: &[Option<Operation>]| some.iter().flatten().copied().collect::<Vec<_>>();
        assert!(!is_explained(&flat(&needed), window.value), "seed {seed}");
        for (number, placed) in window.operations.iter().enumerate().filter(|(_, o)| o.is_core) {
            let mut looser = needed.clone();
            looser[number] = relaxed(&placed.operation);
            assert!(is_explained(&flat(&looser), window.value), "seed {seed}: {placed:?}");
        }
    }
    assert!((300..2_700).contains(&failing), "{failing} of 3000 histories fail: a poor mix");
}

#[test]
fn what_is_left_behind_a_certain_point_is_explained_exactly_if_the_whole_is() {
    let (mut points, mut differing) = (0, 0);
    for seed in 0..3_000 {
        let history = random_history(&mut ChaCha8Rng::seed_from_u64(seed));
        let register = &by_key(&history)[&1];
        let register: Vec<&Operation> = register.iter().copied().filter(|o| matters(o)).collect();
        let mut returns: Vec<u64> = register.iter().filter_map(|o| o.ret).collect();
        returns.sort_unstable();
        // A point in the middle, so that much is left; nothing is cut off at the end.
        let middle = returns[returns.len() / 2];
        let all: Vec<Operation> = register.iter().map(|o| **o).collect();
        let certain = last_certain(&all, middle);
        if certain.at == 0 || !is_explained(&known_at(&register, certain.at), None) {
            continue;
        }
        points += 1;
        let is_left = |(number, o): &(usize, &Operation)| {
            o.ret.is_none_or(|ret| ret > certain.at) && !certain.state.done.contains(number)
        };
        let left: Vec<Operation> =
            all.iter().enumerate().filter(is_left).map(|(_, o)| *o).collect();
        let whole = is_explained(&all, None);
        assert_eq!(is_explained(&left, certain.state.value), whole, "seed {seed}");
        differing += usize::from(!whole);
    }
    assert!(points > 500 && differing > 50, "{points} points, {differing} unexplained");
}
