//! Random transactions.

use super::super::catalog::Registration;
use super::super::operation::Operation;
use super::super::state::fold;
use super::super::txn::TxnOp;
use super::Generator;

/// Enough that operations of one transaction meet.
const TXN_OPERATIONS_MAX: usize = 8;

impl Generator<'_> {
    pub(super) fn transact(&mut self) -> Operation {
        let count = self.dice.below(TXN_OPERATIONS_MAX) + 1;
        let only_reads = self.dice.one_in(5);
        // Most operations should be able to hold, else no long transaction ever does.
        let careful = !self.dice.one_in(3);
        let mut list = Vec::new();
        while list.len() < count {
            let operation = self.txn_operation(careful);
            if only_reads && operation.writes() {
                continue;
            }
            list.push(operation);
        }
        Operation::Transact(list)
    }

    fn txn_operation(&mut self, careful: bool) -> TxnOp {
        const VERBS: &[&str] = &["get", "set", "set", "cas", "delete", "delete-cas"];
        let verb = self.dice.one_of(VERBS);
        let node = self.a_node();
        let row = self.model.nodes.get(&fold(&node));
        match self.dice.below(10) {
            0..6 => self.txn_key(careful),
            6 => {
                let verb = if careful && row.is_none() { "set" } else { verb };
                let index = self.index(row.map(|row| row.at.modify));
                let what = Registration { node, facts: self.node_facts(), ..Default::default() };
                TxnOp::Node { verb, node: what, index }
            }
            7 | 8 => {
                let service = self.service();
                let found = row.and_then(|row| row.services.get(&service.id));
                let verb = if careful && found.is_none() { "set" } else { verb };
                let index = self.index(found.map(|row| row.at.modify));
                TxnOp::Service { verb, node, service, index }
            }
            _ => {
                let check = self.check();
                let found = row.and_then(|row| row.checks.get(&check.id));
                let verb = if careful && found.is_none() { "set" } else { verb };
                let index = self.index(found.map(|row| row.at.modify));
                TxnOp::Check { verb, node, check, index }
            }
        }
    }

    fn txn_key(&mut self, careful: bool) -> TxnOp {
        const SAFE: &[&str] = &["set", "delete", "get-or-empty", "get-tree", "delete-tree"];
        const PRESENT: &[&str] =
            &["set", "get", "cas", "delete-cas", "check-index", "check-session"];
        const ALL: &[&str] = &[
            "set",
            "cas",
            "lock",
            "unlock",
            "get",
            "get-or-empty",
            "get-tree",
            "check-index",
            "check-session",
            "check-not-exists",
            "delete",
            "delete-tree",
            "delete-cas",
            "odd",
            "",
        ];
        let mut key = self.key();
        let row = self.model.keys.get(&key);
        let mut verb = match (careful, row) {
            (true, Some(row)) if self.is_known(Some(row.at.modify)) => self.dice.one_of(PRESENT),
            (true, _) => self.dice.one_of(SAFE),
            (false, _) => self.dice.one_of(ALL),
        };
        if verb == "lock" {
            key = self.lock_key();
            if self.model.is_delayed(&key).is_none() {
                verb = "set";
            }
        }
        let row = self.model.keys.get(&key);
        let index = match careful {
            true => row.and_then(|row| self.ledger.index_of(row.at.modify)).unwrap_or(0),
            false => self.index(row.map(|row| row.at.modify)),
        };
        let holder = row.and_then(|row| row.session.clone());
        let session = match (verb, careful) {
            ("check-session", true) => holder.unwrap_or_default(),
            ("lock" | "unlock" | "check-session", _) if !self.dice.one_in(10) => self.a_session(),
            _ => String::new(),
        };
        if verb == "delete-tree" && self.dice.one_in(2) {
            key = "r/".to_owned();
        }
        if !careful && self.dice.one_in(30) {
            key = String::new();
            verb = "get";
        }
        let flags = self.flags().unwrap_or(0);
        TxnOp::Key { verb, key, value: self.value(), flags, index, session }
    }
}
