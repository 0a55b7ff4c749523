//! An ordered table of which a whole range can be cut out at once.
//!
//! The other tables are `imbl`'s ordered maps, which can only remove one key after the other: a million
//! keys below one prefix took seconds, in which nothing else was applied. This one is a balanced tree
//! of small sorted blocks. It is persistent like those maps (a clone shares everything, a change
//! copies the path to what it changes), and what it adds costs as much as a look-up, however many
//! rows it is about:
//!
//! * [`Tree::cut_below`] takes out everything that begins with a prefix;
//! * [`Tree::sum_below`] gives the newest index below a prefix, and how much there is;
//! * [`Tree::marked`] finds the few rows of many that are marked (keys that a session holds).
//!
//! The tree is an AVL tree, and everything that changes it is made of one operation, `join`: two
//! trees and a block between them become one tree (Blelloch, Ferizovic, Sun: "Just Join for Parallel
//! Ordered Sets", 2016). A split is a join of what lies on the path on either side.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::Index;
use crate::release::Bulk;

#[cfg(test)]
mod tests;

/// The most rows of a block. A change copies one block and the path to it; a row costs less memory in
/// a larger block.
const BLOCK_MAX: usize = 16;

/// What a [`Tree`] holds.
pub(crate) trait Row: Clone {
    /// Where the row is found.
    fn key(&self) -> &str;
    /// Its newest index.
    fn newest(&self) -> Index;
    /// How much an answer that shows it grows, in bytes.
    fn weight(&self) -> usize;
    /// Whether [`Tree::marked`] finds it.
    fn is_marked(&self) -> bool {
        false
    }
}

/// Rows in the byte order of their keys.
#[derive(Clone)]
pub(crate) struct Tree<R>(Link<R>);

type Link<R> = Option<Arc<Node<R>>>;

/// Some rows in order, never none, and what they amount to: nodes above are made of that alone.
#[derive(Clone)]
struct Block<R> {
    rows: Arc<[R]>,
    marked: usize,
    sum: Sum,
}

impl<R: Row> From<Vec<R>> for Block<R> {
    fn from(rows: Vec<R>) -> Self {
        Self {
            marked: rows.iter().filter(|row| row.is_marked()).count(),
            sum: Sum::of(rows.iter()),
            rows: rows.into(),
        }
    }
}

impl<R> Deref for Block<R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        &self.rows
    }
}

struct Node<R> {
    left: Link<R>,
    right: Link<R>,
    block: Block<R>,
    height: u8,
    /// How many rows of this node and all below it are marked.
    marked: usize,
    /// Of this node and all below it.
    sum: Sum,
}

/// What some rows amount to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// How many there are.
    pub(crate) rows: usize,
    /// The weight of all of them.
    pub(crate) weight: usize,
    /// The newest index of any.
    pub(crate) newest: Option<Index>,
}

impl Sum {
    fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            weight: self.weight + other.weight,
            newest: self.newest.max(other.newest),
        }
    }

    fn of<'a, R: Row + 'a>(rows: impl Iterator<Item = &'a R>) -> Self {
        let one = |row: &R| Self { rows: 1, weight: row.weight(), newest: Some(row.newest()) };
        rows.map(one).fold(Self::default(), Self::and)
    }
}

/// Where a key is, seen from a prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Below,
    Behind,
}

fn place(key: &str, prefix: &str) -> Place {
    if key.starts_with(prefix) {
        Place::Below
    } else if key < prefix {
        Place::Before
    } else {
        Place::Behind
    }
}

impl<R: Row> Node<R> {
    fn first(&self) -> &str {
        self.block[0].key()
    }

    fn last(&self) -> &str {
        self.block[self.block.len() - 1].key()
    }

    /// The place of a key in the block, or where it would be.
    fn search(&self, key: &str) -> Result<usize, usize> {
        self.block.binary_search_by(|row| row.key().cmp(key))
    }
}

impl<R> Default for Tree<R> {
    fn default() -> Self {
        Self(None)
    }
}

impl<R: Row + fmt::Debug> fmt::Debug for Tree<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<R: Row> Tree<R> {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |node| node.sum.rows)
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The row of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&R> {
        let mut link = &self.0;
        while let Some(node) = link {
            link = if key < node.first() {
                &node.left
            } else if key > node.last() {
                &node.right
            } else {
                return node.search(key).ok().map(|at| &node.block[at]);
            };
        }
        None
    }

    /// Whether a key has a row.
    pub(crate) fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Writes a row; returns the one that it replaces.
    pub(crate) fn insert(&mut self, row: R) -> Option<R> {
        let (link, old) = inserted(self.0.as_ref(), row);
        self.0 = link;
        old
    }

    /// Removes the row of a key.
    pub(crate) fn remove(&mut self, key: &str) -> Option<R> {
        // A miss copies nothing.
        let old = self.get(key)?.clone();
        self.0 = removed(self.0.as_ref(), key);
        Some(old)
    }

    /// All rows, in order.
    pub(crate) fn iter(&self) -> Iter<'_, R> {
        let mut iter = Iter { ahead: Vec::new(), block: [].iter() };
        iter.descend(&self.0);
        iter
    }

    /// The rows whose keys begin with `prefix`, in order.
    pub(crate) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a R> {
        let mut iter = Iter { ahead: Vec::new(), block: [].iter() };
        iter.seek(&self.0, prefix);
        iter.take_while(move |row| row.key().starts_with(prefix))
    }

    /// What the rows below a prefix amount to.
    pub(crate) fn sum_below(&self, prefix: &str) -> Sum {
        sum(&self.0, prefix, prefix.is_empty(), prefix.is_empty())
    }

    /// Takes out all rows below a prefix.
    pub(crate) fn cut_below(&mut self, prefix: &str) -> Self {
        let whole = self.0.take();
        let (before, rest) = split(whole.as_ref(), &|key| key < prefix);
        let (below, behind) = split(rest.as_ref(), &|key| key.starts_with(prefix));
        self.0 = join_two(before.as_ref(), behind.as_ref());
        Self(below)
    }

    /// The rows that are marked, in order; what is not costs nothing.
    pub(crate) fn marked(&self) -> Vec<&R> {
        let mut found = Vec::new();
        collect_marked(&self.0, &mut found);
        found
    }
}

impl<R: Row + Send + Sync + 'static> Bulk for Tree<R> {
    fn rows(&self) -> usize {
        self.len()
    }

    /// Without recursion over more than the tree holds.
    fn free(self: Box<Self>) -> Vec<Box<dyn Bulk>> {
        let mut left = vec![self.0];
        let mut shared: Vec<Box<dyn Bulk>> = Vec::new();
        while let Some(link) = left.pop() {
            match link.map(Arc::try_unwrap) {
                None => {}
                Some(Ok(node)) => left.extend([node.left, node.right]),
                Some(Err(node)) => shared.push(Box::new(Self(Some(node)))),
            }
        }
        shared
    }
}

/// The rows from some place on.
pub(crate) struct Iter<'a, R> {
    /// Nodes whose blocks and right sides are still to come, the next one last.
    ahead: Vec<&'a Node<R>>,
    block: std::slice::Iter<'a, R>,
}

impl<'a, R: Row> Iter<'a, R> {
    fn descend(&mut self, mut link: &'a Link<R>) {
        while let Some(node) = link {
            self.ahead.push(node);
            link = &node.left;
        }
    }

    /// Goes to the first key that is not less than `from`.
    fn seek(&mut self, mut link: &'a Link<R>, from: &str) {
        while let Some(node) = link {
            if node.last() < from {
                link = &node.right;
            } else if node.first() < from {
                let (Ok(at) | Err(at)) = node.search(from);
                self.block = node.block[at..].iter();
                self.descend(&node.right);
                return;
            } else {
                self.ahead.push(node);
                link = &node.left;
            }
        }
    }
}

impl<'a, R: Row> Iterator for Iter<'a, R> {
    type Item = &'a R;

    fn next(&mut self) -> Option<&'a R> {
        loop {
            if let Some(row) = self.block.next() {
                return Some(row);
            }
            let node = self.ahead.pop()?;
            self.block = node.block.iter();
            self.descend(&node.right);
        }
    }
}

fn height<R>(link: Option<&Arc<Node<R>>>) -> u8 {
    link.map_or(0, |node| node.height)
}

fn node<R: Row>(
    left: Option<&Arc<Node<R>>>,
    block: Block<R>,
    right: Option<&Arc<Node<R>>>,
) -> Arc<Node<R>> {
    let sides = || left.into_iter().chain(right);
    let sum = sides().map(|side| side.sum).fold(block.sum, Sum::and);
    Arc::new(Node {
        height: height(left).max(height(right)) + 1,
        marked: block.marked + sides().map(|side| side.marked).sum::<usize>(),
        sum,
        left: left.cloned(),
        right: right.cloned(),
        block,
    })
}

/// One tree of two with a block between them.
fn join<R: Row>(
    left: Option<&Arc<Node<R>>>,
    block: Block<R>,
    right: Option<&Arc<Node<R>>>,
) -> Arc<Node<R>> {
    match (left, right) {
        (Some(tall), _) if tall.height > height(right) + 1 => {
            let inner = join(tall.right.as_ref(), block, right);
            balanced(tall.left.as_ref(), tall.block.clone(), Some(&inner))
        }
        (_, Some(tall)) if tall.height > height(left) + 1 => {
            let inner = join(left, block, tall.left.as_ref());
            balanced(Some(&inner), tall.block.clone(), tall.right.as_ref())
        }
        _ => node(left, block, right),
    }
}

/// A node of two sides whose heights differ by at most two.
fn balanced<R: Row>(
    left: Option<&Arc<Node<R>>>,
    block: Block<R>,
    right: Option<&Arc<Node<R>>>,
) -> Arc<Node<R>> {
    match (left, right) {
        (Some(tall), _) if tall.height > height(right) + 1 => {
            let (outer, inner) = (tall.left.as_ref(), tall.right.as_ref());
            match inner {
                Some(inner) if inner.height > height(outer) => node(
                    Some(&node(outer, tall.block.clone(), inner.left.as_ref())),
                    inner.block.clone(),
                    Some(&node(inner.right.as_ref(), block, right)),
                ),
                _ => node(outer, tall.block.clone(), Some(&node(inner, block, right))),
            }
        }
        (_, Some(tall)) if tall.height > height(left) + 1 => {
            let (inner, outer) = (tall.left.as_ref(), tall.right.as_ref());
            match inner {
                Some(inner) if inner.height > height(outer) => node(
                    Some(&node(left, block, inner.left.as_ref())),
                    inner.block.clone(),
                    Some(&node(inner.right.as_ref(), tall.block.clone(), outer)),
                ),
                _ => node(Some(&node(left, block, inner)), tall.block.clone(), outer),
            }
        }
        _ => node(left, block, right),
    }
}

/// One tree of two.
fn join_two<R: Row>(left: Option<&Arc<Node<R>>>, right: Option<&Arc<Node<R>>>) -> Link<R> {
    let Some(left) = left else { return right.cloned() };
    let (rest, block) = without_last(left);
    Some(join(rest.as_ref(), block, right))
}

/// The last block, and the tree without it.
fn without_last<R: Row>(tree: &Arc<Node<R>>) -> (Link<R>, Block<R>) {
    match &tree.right {
        None => (tree.left.clone(), tree.block.clone()),
        Some(right) => {
            let (rest, block) = without_last(right);
            (Some(join(tree.left.as_ref(), tree.block.clone(), rest.as_ref())), block)
        }
    }
}

/// What comes before a place, and what comes behind it. `is_before` holds up to some key, and for none
/// after that.
fn split<R: Row>(
    link: Option<&Arc<Node<R>>>,
    is_before: &dyn Fn(&str) -> bool,
) -> (Link<R>, Link<R>) {
    let Some(tree) = link else { return (None, None) };
    let (left, right) = (tree.left.as_ref(), tree.right.as_ref());
    if is_before(tree.last()) {
        let (before, behind) = split(right, is_before);
        (Some(join(left, tree.block.clone(), before.as_ref())), behind)
    } else if !is_before(tree.first()) {
        let (before, behind) = split(left, is_before);
        (before, Some(join(behind.as_ref(), tree.block.clone(), right)))
    } else {
        let at = tree.block.partition_point(|row| is_before(row.key()));
        let (before, behind) = tree.block.split_at(at);
        (
            Some(join(left, before.to_vec().into(), None)),
            Some(join(None, behind.to_vec().into(), right)),
        )
    }
}

fn inserted<R: Row>(link: Option<&Arc<Node<R>>>, row: R) -> (Link<R>, Option<R>) {
    let Some(tree) = link else { return (Some(node(None, vec![row].into(), None)), None) };
    let (left, right) = (tree.left.as_ref(), tree.right.as_ref());
    if left.is_some() && row.key() < tree.first() {
        let (side, old) = inserted(left, row);
        return (Some(join(side.as_ref(), tree.block.clone(), right)), old);
    }
    if right.is_some() && row.key() > tree.last() {
        let (side, old) = inserted(right, row);
        return (Some(join(left, tree.block.clone(), side.as_ref())), old);
    }
    let mut rows = tree.block.to_vec();
    let old = match tree.search(row.key()) {
        Ok(at) => Some(std::mem::replace(&mut rows[at], row)),
        Err(at) if rows.len() < BLOCK_MAX => {
            rows.insert(at, row);
            None
        }
        Err(at) => {
            rows.insert(at, row);
            // What is written in order fills its blocks.
            let second = rows.split_off(at.clamp(1, BLOCK_MAX));
            let rest = join(None, second.into(), right);
            return (Some(join(left, rows.into(), Some(&rest))), None);
        }
    };
    (Some(node(left, rows.into(), right)), old)
}

/// A tree without a key that it has.
fn removed<R: Row>(link: Option<&Arc<Node<R>>>, key: &str) -> Link<R> {
    let tree = link?;
    let (left, right) = (tree.left.as_ref(), tree.right.as_ref());
    let side = match (key.cmp(tree.first()), key.cmp(tree.last())) {
        (Ordering::Less, _) => {
            let side = removed(left, key);
            return Some(join(side.as_ref(), tree.block.clone(), right));
        }
        (_, Ordering::Greater) => removed(right, key),
        _ if tree.block.len() == 1 => return join_two(left, right),
        _ => {
            let rows = tree.block.iter().filter(|row| row.key() != key).cloned();
            return Some(node(left, rows.collect::<Vec<_>>().into(), right));
        }
    };
    Some(join(left, tree.block.clone(), side.as_ref()))
}

/// What the rows below a prefix amount to. `from_start`: no row of this part comes before it; `to_end`: none
/// comes behind it.
fn sum<R: Row>(link: &Link<R>, prefix: &str, from_start: bool, to_end: bool) -> Sum {
    let Some(node) = link else { return Sum::default() };
    if from_start && to_end {
        return node.sum;
    }
    let (first, last) = (place(node.first(), prefix), place(node.last(), prefix));
    if last == Place::Before {
        return sum(&node.right, prefix, from_start, to_end);
    }
    if first == Place::Behind {
        return sum(&node.left, prefix, from_start, to_end);
    }
    let mut all = Sum::of(node.block.iter().filter(|row| row.key().starts_with(prefix)));
    if first == Place::Below {
        all = all.and(sum(&node.left, prefix, from_start, true));
    }
    if last == Place::Below {
        all = all.and(sum(&node.right, prefix, true, to_end));
    }
    all
}

fn collect_marked<'a, R: Row>(link: &'a Link<R>, found: &mut Vec<&'a R>) {
    let Some(node) = link.as_ref().filter(|node| node.marked > 0) else { return };
    collect_marked(&node.left, found);
    found.extend(node.block.iter().filter(|row| row.is_marked()));
    collect_marked(&node.right, found);
}
