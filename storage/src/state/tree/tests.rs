use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A key, its index, and whether it is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item(Arc<str>, u64, bool);

impl Row for Item {
    fn key(&self) -> &str {
        &self.0
    }

    fn newest(&self) -> Index {
        Index(self.1)
    }

    fn weight(&self) -> usize {
        self.0.len()
    }

    fn is_marked(&self) -> bool {
        self.2
    }
}

/// Checks order, balance and sums; returns the height.
fn check(link: &Link<Item>) -> u8 {
    let Some(tree) = link else { return 0 };
    let (left, right) = (check(&tree.left), check(&tree.right));
    assert!(left.abs_diff(right) <= 1, "heights {left} and {right}");
    assert_eq!(tree.height, left.max(right) + 1);
    assert!((1..=BLOCK_MAX).contains(&tree.block.len()));
    let part = Tree(link.clone());
    let rows: Vec<&Item> = part.iter().collect();
    assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(tree.marked, rows.iter().filter(|row| row.2).count());
    assert_eq!(tree.sum, sum_of(&rows));
    tree.height
}

fn sum_of(rows: &[&Item]) -> Sum {
    Sum {
        rows: rows.len(),
        weight: rows.iter().map(|row| row.0.len()).sum(),
        newest: rows.iter().map(|row| Index(row.1)).max(),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(String, bool),
    Remove(String),
    Cut(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few characters, so that keys are prefixes of keys; one of them takes more than one byte.
    let key = "[abé]{0,5}";
    let step = prop_oneof![
        12 => (key, any::<bool>()).prop_map(|(key, marked)| Step::Insert(key, marked)),
        3 => key.prop_map(Step::Remove),
        1 => "[abé]{0,3}".prop_map(Step::Cut),
    ];
    prop::collection::vec(step, 0..400)
}

fn below<'a>(model: &'a BTreeMap<String, Item>, prefix: &str) -> Vec<&'a Item> {
    model.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, row)| row).collect()
}

proptest! {
    #[test]
    fn it_is_the_ordered_map_that_it_looks_like(steps in steps(), probes in prop::collection::vec("[abé]{0,4}", 8)) {
        let mut tree = Tree::default();
        let mut model: BTreeMap<String, Item> = BTreeMap::new();
        let mut versions = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(key, marked) => {
                    let row = Item(key.as_str().into(), at as u64, marked);
                    prop_assert_eq!(tree.insert(row.clone()), model.insert(key, row));
                }
                Step::Remove(key) => prop_assert_eq!(tree.remove(&key), model.remove(&key)),
                Step::Cut(prefix) => {
                    let cut = tree.cut_below(&prefix);
                    check(&cut.0);
                    let gone: Vec<Item> = below(&model, &prefix).into_iter().cloned().collect();
                    prop_assert_eq!(cut.iter().cloned().collect::<Vec<_>>(), gone);
                    model.retain(|key, _| !key.starts_with(&prefix));
                }
            }
            if at % 50 == 0 {
                versions.push((tree.clone(), model.clone()));
            }
        }
        versions.push((tree, model));
        // Every version is still what it was.
        for (tree, model) in &versions {
            check(&tree.0);
            prop_assert_eq!(tree.len(), model.len());
            prop_assert_eq!(tree.is_empty(), model.is_empty());
            prop_assert!(tree.iter().eq(model.values()));
            prop_assert!(tree.marked().into_iter().eq(model.values().filter(|row| row.2)));
            for probe in &probes {
                prop_assert_eq!(tree.get(probe), model.get(probe));
                let rows = below(model, probe);
                prop_assert_eq!(tree.sum_below(probe), sum_of(&rows));
                prop_assert!(tree.below(probe).eq(rows));
            }
        }
    }
}

fn filled(keys: impl Iterator<Item = u64>) -> Tree<Item> {
    let mut tree = Tree::default();
    keys.for_each(|key| drop(tree.insert(Item(format!("{key:06}").into(), key, false))));
    tree
}

#[test]
fn what_is_written_in_order_fills_its_blocks_and_stays_flat() {
    const ROWS: u64 = 10_000;
    for tree in [filled(0..ROWS), filled((0..ROWS).rev())] {
        // An AVL tree of n nodes is less than 1.45 log2(n + 2) high; 625 full blocks: 13.
        assert!(check(&tree.0) <= 13, "{}", height(tree.0.as_ref()));
    }
}

#[test]
fn what_is_still_shared_is_freed_when_it_is_not() {
    let mut tree = filled(0..1_000);
    let older = tree.clone();
    let cut = tree.cut_below("0005");
    assert_eq!((cut.len(), tree.len(), older.len()), (100, 900, 1_000));
    let row = older.get("000550").unwrap().0.clone();
    let shared = Box::new(cut).free();
    assert!(!shared.is_empty() && shared.len() < 20, "{} parts", shared.len());
    assert_eq!(Arc::strong_count(&row), 2, "only the older version and this test have it");
    drop(older);
    assert_eq!(Arc::strong_count(&row), 2, "the shared parts have it now");
    assert!(shared.into_iter().flat_map(Bulk::free).next().is_none());
    assert_eq!(Arc::strong_count(&row), 1);
}
