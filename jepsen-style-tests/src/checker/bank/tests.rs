use super::*;

/// A state of all accounts, from which the next is made.
#[derive(Debug, Clone)]
struct Bank(Vec<Account>);

impl Bank {
    fn at_first() -> Self {
        Self(vec![Account { index: 10, balance: BALANCE_AT_FIRST, transfer: 0 }; 5])
    }

    /// The transfer of `amount` that finds this state.
    fn transfer(&self, id: u64, (from, to): (usize, usize), amount: i64, call: u64) -> Transfer {
        let leg = |account: usize, change| Leg {
            account: account as u64,
            index: self.0[account].index,
            change,
        };
        let (from, to) = (leg(from, -amount), leg(to, amount));
        Transfer { client: 1, id, from, to, ok: Some(true), call, ret: Some(call + 1) }
    }

    /// The state after it took effect at `index`.
    fn after(&self, transfer: &Transfer, index: u64) -> Self {
        let mut after = self.clone();
        for leg in [&transfer.from, &transfer.to] {
            let account = &mut after.0[usize::try_from(leg.account).unwrap()];
            let balance = account.balance + leg.change;
            *account = Account { index, balance, transfer: transfer.id };
        }
        after
    }

    fn read(&self, call: u64) -> Entry {
        self.read_until(call, call + 1)
    }

    fn read_until(&self, call: u64, ret: u64) -> Entry {
        Entry::Total(Total { client: 2, accounts: self.0.clone(), call, ret })
    }

    fn with(&self, account: usize, change: impl FnOnce(&mut Account)) -> Self {
        let mut other = self.clone();
        change(&mut other.0[account]);
        other
    }
}

/// Two transfers one after the other, and the states before, between and after.
struct Story {
    banks: [Bank; 3],
    transfers: [Transfer; 2],
}

fn story() -> Story {
    let first = Bank::at_first();
    let one = first.transfer(1, (0, 1), 30, 100);
    let second = first.after(&one, 20);
    let two = second.transfer(2, (1, 2), 50, 200);
    let third = second.after(&two, 30);
    Story { banks: [first, second, third], transfers: [one, two] }
}

impl Story {
    /// Both transfers, each acknowledged, a read before and between, and `more`.
    fn with(&self, more: &[Entry]) -> Vec<Entry> {
        let [one, two] = self.transfers.clone().map(Entry::Transfer);
        let mut history = vec![self.banks[0].read(50), one, self.banks[1].read(150), two];
        history.extend_from_slice(more);
        history
    }
}

fn unknown(transfer: &Transfer) -> Entry {
    Entry::Transfer(Transfer { ok: None, ret: None, ..transfer.clone() })
}

fn rolled_back(transfer: &Transfer) -> Entry {
    Entry::Transfer(Transfer { ok: Some(false), ..transfer.clone() })
}

#[test]
fn good_histories_are_accepted() {
    let Story { banks, transfers: [one, two] } = story();
    let late = |ret| Entry::Transfer(Transfer { ret: Some(ret), ..two.clone() });
    let good: Vec<(&str, Vec<Entry>)> = vec![
        ("one after the other", story().with(&[banks[2].read(300)])),
        ("nobody read since", story().with(&[])),
        (
            "an unknown transfer took effect",
            vec![
                banks[0].read(50),
                unknown(&one),
                banks[1].read(150),
                Entry::Transfer(two.clone()),
                banks[2].read(300),
            ],
        ),
        (
            "an unknown transfer did not",
            vec![
                banks[0].read(50),
                Entry::Transfer(one.clone()),
                banks[1].read(150),
                unknown(&two),
                banks[1].read(300),
            ],
        ),
        (
            "one of two was rolled back",
            vec![
                banks[0].read(50),
                Entry::Transfer(one.clone()),
                rolled_back(&banks[0].transfer(9, (0, 3), 5, 100)),
                banks[1].read(150),
            ],
        ),
        (
            "rolled back, and one account was as it had been read",
            vec![
                banks[0].read(50),
                Entry::Transfer(one.clone()),
                rolled_back(&banks[0].transfer(9, (0, 3), 5, 100)),
                banks[1].read(150),
                banks[1].read(160),
            ],
        ),
        (
            "rolled back for a reason that came after the last total",
            vec![
                banks[0].read(50),
                Entry::Transfer(one.clone()),
                banks[1].read(150),
                rolled_back(&two),
                banks[1].read_until(200, 300),
            ],
        ),
        (
            "reads beside a transfer see either state",
            vec![
                banks[0].read(50),
                Entry::Transfer(one),
                banks[1].read(150),
                late(250),
                banks[1].read_until(210, 230),
                banks[2].read_until(211, 229),
            ],
        ),
    ];
    for (name, history) in good {
        assert_eq!(check(&history), Verdict::Valid, "{name}");
    }
}

type Bad = (&'static str, &'static str, Vec<Entry>);

/// Each is a name, a word of the sentence that must say what is wrong, and the history.
fn reject(bad: Vec<Bad>) {
    for (name, word, history) in bad {
        let Verdict::Invalid(violations) = check(&history) else { panic!("{name}") };
        assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
    }
}

/// The same money, some of it elsewhere.
fn moved(bank: &Bank, (from, to): (usize, usize), amount: i64) -> Bank {
    bank.with(from, |account| account.balance -= amount)
        .with(to, |account| account.balance += amount)
}

#[test]
fn bad_totals_are_rejected() {
    let Story { banks, transfers: [one, _] } = story();
    let wrong = banks[2].with(0, |account| account.balance += 1);
    let overdrawn = banks[0].transfer(1, (0, 1), 130, 100);
    let half = banks[1].with(0, |account| *account = banks[0].0[0]);
    let other = banks[0].transfer(3, (0, 3), 10, 100);
    let torn = banks[0].after(&other, 25);
    let begin = || banks[0].read(50);
    reject(vec![
        ("a wrong total", "hold 501", story().with(&[wrong.read(300)])),
        ("half of a transfer", "hold 530", story().with(&[half.read_until(100, 190)])),
        (
            "overdrawn",
            "overdrawn",
            vec![
                begin(),
                Entry::Transfer(overdrawn.clone()),
                banks[0].after(&overdrawn, 20).read(150),
            ],
        ),
        ("a stale read", "newer one", story().with(&[banks[2].read(300), banks[1].read(310)])),
        (
            "two states of a version",
            "two states",
            story().with(&[moved(&banks[2], (3, 4), 1).read(300), banks[2].read(300)]),
        ),
        (
            "two snapshots that no order explains",
            "each is newer",
            vec![begin(), unknown(&one), unknown(&other), banks[1].read(150), torn.read(150)],
        ),
        (
            "seen before it was called",
            "there before",
            vec![begin(), banks[1].read(60), Entry::Transfer(one)],
        ),
        ("not how it began", "began", story().with(&[moved(&banks[2], (3, 4), 7).read(300)])),
    ]);
}

#[test]
fn bad_transfers_are_rejected() {
    let Story { banks, transfers: [one, two] } = story();
    let elsewhere = banks[0].transfer(2, (3, 4), 50, 200);
    let other = banks[0].transfer(3, (0, 3), 10, 100);
    let begin = || banks[0].read(50);
    reject(vec![
        ("an acknowledged transfer is lost", "lost", story().with(&[banks[1].read(300)])),
        ("from nowhere", "nowhere", vec![begin(), banks[1].read(150), unknown(&two)]),
        (
            "rolled back and there",
            "rolled back",
            vec![begin(), rolled_back(&one), banks[1].read(150)],
        ),
        (
            "replaced twice",
            "replaced twice",
            story().with(&[Entry::Transfer(other), banks[2].read(300)]),
        ),
        (
            "a transfer between other accounts",
            "other accounts",
            vec![
                begin(),
                Entry::Transfer(one),
                banks[1].read(150),
                Entry::Transfer(elsewhere),
                banks[2].read(300),
            ],
        ),
        ("a wrong sum", "wrong sum", story().with(&[moved(&banks[2], (1, 2), 7).read(300)])),
    ]);
}

#[test]
fn an_update_that_is_lost_is_found_though_its_outcome_was_never_told() {
    let Story { banks, transfers: [one, _] } = story();
    let unseen = banks[0].transfer(2, (0, 1), 10, 200);
    let after = banks[0].after(&unseen, 30);
    let history = || {
        vec![
            banks[0].read(50),
            unknown(&one),
            banks[1].read(150),
            Entry::Transfer(unseen.clone()),
            after.read(300),
        ]
    };
    reject(vec![
        ("one version, two transfers", "replaced twice", history()),
        ("a version that nothing follows", "overwritten unseen", history()),
    ]);
}

#[test]
fn wrong_refusals_are_rejected() {
    let Story { banks, transfers: [one, two] } = story();
    let begin = || vec![banks[0].read(50), Entry::Transfer(one.clone()), banks[1].read(150)];
    let then = |more: &[Entry]| [begin(), more.to_vec()].concat();
    let elsewhere = banks[1].transfer(3, (2, 3), 10, 300);
    let moved_on = banks[1].after(&elsewhere, 30);
    reject(vec![
        ("one total shows both", "refused", then(&[rolled_back(&two), banks[1].read(300)])),
        (
            "another account has moved on",
            "refused",
            then(&[
                rolled_back(&banks[1].transfer(2, (0, 1), 5, 200)),
                Entry::Transfer(elsewhere),
                moved_on.read(400),
            ]),
        ),
    ]);
}

#[test]
fn figures_too_large_to_add_are_rejected() {
    let Story { banks, .. } = story();
    let rich = banks[2].with(3, |account| account.balance = i64::MAX);
    reject(vec![("overflow", "accounts hold", story().with(&[rich.read(300)]))]);
}

#[test]
fn an_idle_bank_proves_nothing() {
    let Story { banks, transfers: [one, _] } = story();
    assert!(matches!(check(&[]), Verdict::Vacuous(_)));
    assert!(matches!(check(&[banks[0].read(50)]), Verdict::Vacuous(_)));
    assert!(matches!(check(&[banks[0].read(50), unknown(&one)]), Verdict::Vacuous(_)));
    assert!(matches!(check(&[Entry::Transfer(one)]), Verdict::Vacuous(_)));
}

#[test]
fn both_kinds_of_lines_are_read_back() {
    let Story { banks, transfers: [one, _] } = story();
    for entry in [banks[0].read(50), Entry::Transfer(one)] {
        let line = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
    }
}
