//! The smallest failing window as a drawing: a lane for each client, a bar for each operation.
//!
//! What matters is which operation ended before which other began, so the axis is one of order: every call
//! and every return is a step to the right, wide enough for the texts. Distances mean nothing; the moments
//! are in the table below the drawing.

use std::collections::{BTreeMap, HashMap};

use super::axis::Axis;
use crate::checker::linear::Window;
use crate::client::CLIENTS_MAX;
use crate::history::{Function, Operation};
use crate::record::Record;

/// Height of a lane, in pixels.
const LANE_PX: usize = 44;
/// Least pixels between two events.
const STEP_PX: usize = 18;
/// Width of a letter of the drawing's text, in pixels, rounded up.
const LETTER_PX: usize = 7;
/// Room left of the first and right of the last event.
const MARGIN_PX: usize = 12;
/// Room at the left for the clients' names.
const NAMES_PX: usize = 104;
/// Room above the lanes.
const TOP_PX: usize = 22;
/// More operations are not drawn; those that contradict each other always are.
const DRAWN_MAX: usize = 80;

/// One bar.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) x: usize,
    pub(super) width: usize,
    pub(super) y: usize,
    pub(super) class: &'static str,
    pub(super) is_open: bool,
    pub(super) text: String,
    pub(super) title: String,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) client: String,
    pub(super) node: String,
    pub(super) what: String,
    pub(super) call: String,
    pub(super) ret: String,
    pub(super) standing: &'static str,
    pub(super) class: &'static str,
}

/// The window.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) key: u64,
    pub(super) sentences: Vec<String>,
    pub(super) width: usize,
    pub(super) height: usize,
    /// Where the last certain moment is drawn, and what is written there.
    pub(super) certain_x: usize,
    pub(super) certain: String,
    pub(super) names: Vec<(usize, String)>,
    pub(super) bars: Vec<Bar>,
    pub(super) rows: Vec<Row>,
}

/// How an operation stands to the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Earlier,
    Innocent,
    Contradicts,
    Fails,
}

impl Standing {
    fn class(self) -> &'static str {
        match self {
            Self::Earlier => "earlier",
            Self::Innocent => "innocent",
            Self::Contradicts => "blamed",
            Self::Fails => "blamed fails",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Earlier => "settled before",
            Self::Innocent => "not needed for the contradiction",
            Self::Contradicts => "cannot be ordered",
            Self::Fails => "cannot be ordered: its answer fits nowhere",
        }
    }
}

impl Failing {
    pub(super) fn of(window: &Window, record: &Record, axis: Axis) -> Self {
        let operations = drawn(window);
        let places = Places::of(&operations, window.began);
        let nodes = nodes(record);
        let clients: Vec<u64> = clients(&operations);
        let bar = |(number, (operation, standing)): (usize, &(Operation, Standing))| {
            let lane = clients.iter().position(|client| *client == operation.client);
            let (x, end) = places.bars[number];
            Bar {
                x,
                width: end - x,
                y: TOP_PX + lane.unwrap_or_default() * LANE_PX,
                class: standing.class(),
                is_open: operation.ret.is_none(),
                text: format!("{} {}", in_words(operation), node_name(operation, &nodes)),
                title: format!("{}: {}", sentence(operation, &nodes, axis), standing.words()),
            }
        };
        let name = |(lane, client): (usize, &u64)| (TOP_PX + lane * LANE_PX, client_name(*client));
        let value = value_name(window.value);
        Self {
            key: window.key,
            sentences: sentences(window, operations.len(), &nodes, axis),
            width: places.width,
            height: TOP_PX + clients.len() * LANE_PX,
            certain_x: places.certain,
            certain: format!("certainly {value} here"),
            names: clients.iter().enumerate().map(name).collect(),
            bars: operations.iter().enumerate().map(bar).collect(),
            rows: operations.iter().map(|(o, standing)| row(o, *standing, &nodes, axis)).collect(),
        }
    }
}

/// What is drawn, in the order of the calls.
fn drawn(window: &Window) -> Vec<(Operation, Standing)> {
    let standing = |placed: &crate::checker::linear::Placed| match placed.is_core {
        true if placed.operation.ret == Some(window.ended) => Standing::Fails,
        true => Standing::Contradicts,
        false => Standing::Innocent,
    };
    let mut drawn: Vec<(Operation, Standing)> =
        window.operations.iter().map(|placed| (placed.operation, standing(placed))).collect();
    while drawn.len() > DRAWN_MAX {
        let Some(first) = drawn.iter().position(|(_, standing)| *standing == Standing::Innocent)
        else {
            break;
        };
        drawn.remove(first);
    }
    drawn.extend(window.earlier.iter().map(|operation| (*operation, Standing::Earlier)));
    drawn.sort_by_key(|(operation, _)| operation.call);
    drawn
}

/// The clients in the order of their first call.
fn clients(operations: &[(Operation, Standing)]) -> Vec<u64> {
    let mut clients = Vec::new();
    for (operation, _) in operations {
        if !clients.contains(&operation.client) {
            clients.push(operation.client);
        }
    }
    clients
}

/// Where everything is, in pixels.
struct Places {
    /// Begin and end of each operation's bar.
    bars: Vec<(usize, usize)>,
    certain: usize,
    width: usize,
}

impl Places {
    /// Gives every event its place from the left: behind the one before, and a call behind the text of its
    /// client's operation before.
    fn of(operations: &[(Operation, Standing)], began: u64) -> Self {
        let mut events: Vec<(u64, Event)> = vec![(began, Event::Certain)];
        for (number, (operation, _)) in operations.iter().enumerate() {
            events.push((operation.call, Event::Call(number)));
            events.extend(operation.ret.map(|ret| (ret, Event::Return(number))));
        }
        events.sort_unstable();
        let mut places = Self { bars: vec![(0, 0); operations.len()], certain: 0, width: 0 };
        let mut free: BTreeMap<u64, usize> = BTreeMap::new();
        let mut x = NAMES_PX + MARGIN_PX;
        let mut text_end = x;
        for (_, event) in events {
            match event {
                Event::Certain => {
                    places.certain = x;
                    text_end = text_end.max(x + "certainly 12000057 here".len() * LETTER_PX);
                }
                Event::Call(number) => {
                    let operation = &operations[number].0;
                    let client = free.entry(operation.client).or_default();
                    x = x.max(*client);
                    // " n1" stands behind what was done.
                    let letters = in_words(operation).chars().count() + 4;
                    *client = x + letters * LETTER_PX + MARGIN_PX;
                    text_end = text_end.max(*client);
                    places.bars[number].0 = x;
                }
                Event::Return(number) => places.bars[number].1 = x,
            }
            x += STEP_PX;
        }
        places.width = x.max(text_end) + MARGIN_PX;
        for ((_, end), (operation, _)) in places.bars.iter_mut().zip(operations) {
            if operation.ret.is_none() {
                *end = places.width;
            }
        }
        places
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Return(usize),
    Certain,
    Call(usize),
}

/// Which node each request went to, by the moment when it was sent: no moment comes twice.
fn nodes(record: &Record) -> HashMap<u64, u64> {
    record.requests.iter().map(|request| (request.sent, request.node)).collect()
}

fn node_name(operation: &Operation, nodes: &HashMap<u64, u64>) -> String {
    nodes.get(&operation.call).map_or("?".to_owned(), |node| format!("n{node}"))
}

fn client_name(client: u64) -> String {
    match (client % CLIENTS_MAX, client / CLIENTS_MAX) {
        (number, 0) => format!("client {number}"),
        (number, lost) => format!("client {number}, life {}", lost + 1),
    }
}

fn value_name(value: Option<u64>) -> String {
    value.map_or("absent".to_owned(), |value| value.to_string())
}

/// `w 57`, `cas 41>57 ok`, `r 57`.
fn in_words(operation: &Operation) -> String {
    let [from, arg, val] = [operation.from, operation.arg, operation.val].map(value_name);
    match operation.f {
        Function::Read => format!("r {val}"),
        Function::Write => format!("w {arg}"),
        Function::Cas => {
            let outcome = match operation.ok {
                Some(true) => " ok",
                Some(false) => " failed",
                None => "",
            };
            format!("cas {from}>{arg}{outcome}")
        }
        Function::Add => format!("add {arg}"),
        Function::Contains => format!("contains {arg}"),
    }
}

fn sentence(operation: &Operation, nodes: &HashMap<u64, u64>, axis: Axis) -> String {
    let end = axis.seconds_or(operation.ret, "never known to end");
    let (client, node) = (client_name(operation.client), node_name(operation, nodes));
    format!(
        "{} by {client} at {node}, {} to {end}",
        in_words(operation),
        axis.seconds(operation.call)
    )
}

fn row(operation: &Operation, standing: Standing, nodes: &HashMap<u64, u64>, axis: Axis) -> Row {
    Row {
        client: client_name(operation.client),
        node: node_name(operation, nodes),
        what: in_words(operation),
        call: axis.seconds(operation.call),
        ret: axis.seconds_or(operation.ret, "open"),
        standing: standing.words(),
        class: standing.class(),
    }
}

/// What the drawing shows, for those who read.
fn sentences(window: &Window, drawn: usize, nodes: &HashMap<u64, u64>, axis: Axis) -> Vec<String> {
    let Window { key, unseen, .. } = window;
    let (value, ended) = (value_name(window.value), axis.seconds(window.ended));
    let certain = if window.began == 0 {
        format!("Key {key} begins absent.")
    } else {
        format!("At {} key {key} certainly held {value}.", axis.seconds(window.began))
    };
    let mut sentences = vec![format!(
        "{certain} From there no order of the operations explains what clients were told until {ended}; until just before, some order did."
    )];
    let blamed: Vec<&Operation> =
        window.operations.iter().filter(|o| o.is_core).map(|o| &o.operation).collect();
    sentences.push(match blamed.as_slice() {
        [one] => format!("One answer fits nowhere: {}.", sentence(one, nodes, axis)),
        several => format!(
            "{} operations cannot be ordered; without any one of them the others could be.",
            several.len()
        ),
    });
    if let Some(origin) = &window.origin {
        sentences.push(format!(
            "What the last of them saw comes from {}.",
            sentence(origin, nodes, axis)
        ));
    }
    if *unseen > 0 {
        sentences.push(format!(
            "{unseen} operations of unknown outcome are left out: nobody looked for what they would have written."
        ));
    }
    let all = window.operations.len() + window.earlier.len();
    if drawn < all {
        sentences.push(format!("{} more that are not needed for this are not drawn.", all - drawn));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(client: u64, f: Function, call: u64, ret: impl Into<Option<u64>>) -> Operation {
        Operation {
            from: Some(41),
            arg: Some(57),
            ok: Some(true),
            val: Some(57),
            ret: ret.into(),
            ..Operation::called(client, 1, f, call)
        }
    }

    #[test]
    fn operations_are_named_as_people_write_them() {
        let all = [Function::Read, Function::Write, Function::Cas];
        let words = all.map(|f| in_words(&operation(1, f, 1, 2)));
        assert_eq!(words, ["r 57", "w 57", "cas 41>57 ok"]);
        let refused =
            Operation { ok: Some(false), from: None, ..operation(1, Function::Cas, 1, 2) };
        assert_eq!(in_words(&refused), "cas absent>57 failed");
        assert_eq!(client_name(3), "client 3");
        assert_eq!(client_name(3 + 2 * CLIENTS_MAX), "client 3, life 3");
    }

    #[test]
    fn bars_keep_the_order_of_events_and_texts_of_a_client_do_not_overlap() {
        let operations: Vec<(Operation, Standing)> = vec![
            (operation(1, Function::Write, 1, 10), Standing::Innocent),
            (operation(2, Function::Write, 2, None), Standing::Innocent),
            (operation(3, Function::Cas, 3, 4), Standing::Innocent),
            (operation(3, Function::Cas, 5, 6), Standing::Innocent),
        ];
        let places = Places::of(&operations, 0);
        let [one, open, first, second] = places.bars[..] else { panic!("four bars") };
        assert!(one.0 < open.0 && open.0 < first.0 && first.0 < first.1 && second.1 < one.1);
        assert!(second.0 - first.0 > "cas 41>57 ok n1".len() * LETTER_PX);
        assert_eq!(open.1, places.width);
        assert!(places.certain < one.0);
    }
}
