//! Mutants: servers that are broken on purpose, one rule at a time.
//!
//! A fault-injection suite that finds nothing proves nothing, unless it is known to find what is there.
//! So each rule that the suite is to guard has a mutant that breaks it, at the very place where the rule
//! is kept, and the suite has to name the mutant's checker.
//!
//! None of this is in a server that anybody runs. Without the cargo feature `mutants`, [`is_active`] is
//! `false` at compile time and the broken branches are not compiled. With it, one mutant is chosen when
//! the process starts (`activate`, which only such a build has), and the node says so and works in
//! marked directories only.
//!
//! Each mutant says what is broken and, behind "Shown by", what can bring it to light. With which workload
//! and fault it is tried, and which checker has to notice, is in the table of the harness.

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $breaks:literal;)*) => {
        /// One deliberate fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant { $($(#[$doc])* $variant,)* }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name: lower case, words joined by hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What is broken, in one sentence.
            #[must_use]
            pub const fn breaks(self) -> &'static str {
                match self { $(Self::$variant => $breaks,)* }
            }
        }
    };
}

mutants! {
    /// Rule: default reads pass a barrier. The barrier is skipped, so a follower that lags answers with
    /// what it has.
    ///
    /// Shown by: kv-register under partition, pause or delay; checker linearizable.
    StaleReadsServedAsConsistent = "stale-reads-served-as-consistent":
        "default reads are answered from the local state, without a barrier";

    /// Rule: a restarted leader leads nothing until it is elected again.
    ///
    /// Shown by: kv-register under kill or power-cut of the leader or of all, started again at once;
    /// checker linearizable.
    LeaderRestore = "leader-restore":
        "a leader that restarts goes on leading without an election";

    /// Rule: a vote is on the disk before it is given. It is kept in memory only, so a restarted server
    /// has forgotten whom it voted for and which term it has seen. (That it was merely not synced could
    /// not be seen: log and vote share one file, and the next entry's sync covers both.)
    ///
    /// Shown by: kv-register or set under kill or power-cut of a majority or of all; checker
    /// linearizable, set, or process.
    VoteNotSynced = "vote-not-synced":
        "votes are given without ever being written to the disk";

    /// Rule: entries are on the disk before openraft is told so. They are synced with the next
    /// high-water mark, up to a second later.
    ///
    /// Shown by: set or append under power-cut (or kill) of a majority or of all; checker set.
    AckBeforeFsync = "ack-before-fsync":
        "entries are acknowledged before they are flushed and synced";

    /// Rule: a server that lost its data must not come back under its old id. Neither store ids nor a
    /// log that has become shorter are looked at.
    ///
    /// Shown by: any workload under wiped-node; checker process (the wiped server is expected to be
    /// refused, and is not), set when a majority was needed that forgot.
    WipedNodeUnderItsOldId = "wiped-node-under-its-old-id":
        "a server whose data directory was emptied is let in under its old id";

    /// Rule: a write is acknowledged when a majority has it. The leader's own clients are answered before
    /// anybody else has seen the entry, with the outcome that is to be expected.
    ///
    /// Shown by: kv-register or set under partition, kill or pause of the leader; checker linearizable
    /// or set.
    AckBeforeQuorum = "ack-before-quorum":
        "a leader answers its own clients before the entry is committed";

    /// Rule: a snapshot holds everything. It lacks the sessions, and the keys are held by nobody.
    ///
    /// Shown by: session or lock under kill or rolling-restart; checker state-hash, session or lock.
    SnapshotMissingSessions = "snapshot-missing-sessions":
        "snapshots hold no sessions and no holders of keys";

    /// Rule: a snapshot is durable before the log that it covers is purged. Neither the file nor its name
    /// is synced.
    ///
    /// Shown by: set under power-cut; checker process (the server cannot start) or set.
    PurgeBeforeSnapshotDurable = "purge-before-snapshot-durable":
        "the log is purged up to a snapshot that is not on the disk yet";

    /// Rule: an entry is applied once in each life. A server that restored a snapshot applies the first
    /// entries behind it twice, without the records that would forbid it.
    ///
    /// Shown by: kv-register, append or set under kill or rolling-restart; checker state-hash.
    ApplyTwiceOnRestart = "apply-twice-on-restart":
        "a server that started from a snapshot applies the first entries behind it twice";

    /// Rule: origin records are part of a snapshot, because a command that is sent again must be known.
    ///
    /// Shown by: anything under wiped-node or membership, for whoever gets a snapshot then lacks the record of a
    /// server that is gone; checker state-hash. (A mere restart shows nothing: what each server sends next
    /// makes its record again.)
    OriginRecordLostInSnapshot = "origin-record-lost-in-snapshot":
        "snapshots do not hold which commands were applied";

    /// Rule: a compare-and-set fails when the key has changed.
    ///
    /// Shown by: kv-register or append, no fault; checker linearizable or append.
    CasIgnoresIndex = "cas-ignores-index":
        "a compare-and-set of a key always succeeds";

    /// Rule: the index is a counter of changes in the state. `X-Consul-Index` is the last applied log
    /// entry's index, and commands of one entry share one `ModifyIndex`.
    ///
    /// Shown by: watch under kill or pause of the leader; checker watch. (Each election adds an entry that
    /// changes nothing, so the log runs ahead of what it holds, and a query waits for an index that its
    /// topic has not reached.) txn: checker versions.
    IndexFromTheRaftLog = "index-from-the-raft-log":
        "indexes are those of the Raft log";

    /// Rule: no topic's index ever falls. The indexes of tables and tombstones are forgotten when a
    /// snapshot is read.
    ///
    /// Shown by: watch or catalog under kill or rolling-restart; checker watch or state-hash.
    IndexFallsAfterRestart = "index-falls-after-restart":
        "a state that was read from a snapshot begins the indexes of its tables anew";

    /// Rule: deadlines depend on no wall clock. A new leader sets cluster time from its own, and servers'
    /// clocks are half a minute apart.
    ///
    /// Shown by: ttl or session under kill or pause of the leader; checker ttl-early (and ttl-late, when
    /// leadership goes to a server whose clock is behind).
    ExpiryFromALocalClock = "expiry-from-a-local-clock":
        "a new leader takes cluster time from its own wall clock";

    /// Rule: only the expiry entry expires. Every server also expires what is due by its own clock, in
    /// its own state.
    ///
    /// Shown by: ttl or session under kill of the leader; checker state-hash or ttl-early.
    ExpiryByAFollower = "expiry-by-a-follower":
        "every server expires what is due by its own clock, outside the log";

    /// Rule: a paused leader's clock stands still. It counts the pause, and so does whoever led meanwhile:
    /// at its next leadership it adds all the time since it last led.
    ///
    /// Shown by: ttl or session under pause or kill of the leader, twice; checker ttl-early.
    ClockJumpsWithAPause = "clock-jumps-with-a-pause":
        "a leader counts the time in which it was paused or did not lead";

    /// Rule: a renewal or heartbeat is acknowledged only after it is applied. One that changes nothing
    /// visible is answered from memory.
    ///
    /// Shown by: ttl or session, no fault; checker ttl-early.
    RenewNotReplicated = "renew-not-replicated":
        "heartbeats and renewals are acknowledged without being replicated";

    /// Rule: a key cannot be acquired during the lock delay of its last holder.
    ///
    /// Shown by: lock, no fault; checker lock.
    LockDelayIgnored = "lock-delay-ignored":
        "a key can be acquired during its lock delay";

    /// Rule: a query subscribes before it looks. It looks, and subscribes 20 ms later.
    ///
    /// Shown by: watch, no fault; checker watch.
    LostWakeUp = "lost-wake-up":
        "a blocking query subscribes after it has looked";

    /// Rule: a new version is published before anybody is woken or answered. It is published 5 ms later.
    ///
    /// Shown by: watch, no fault; checker watch. kv-register: checker linearizable.
    WakeBeforePublish = "wake-before-publish":
        "waiters are woken and clients answered before the new state can be seen";

    /// Rule: a touched key wakes the watchers of every prefix of it.
    ///
    /// Shown by: watch of a prefix, no fault; checker watch.
    WrongPrefix = "wrong-prefix":
        "a touched key is looked up under prefixes that are one byte too short";

    /// Rule: what is sent again to a new leader keeps its number.
    ///
    /// Shown by: kv-register or append with compare-and-set, under kill, pause or partition of the
    /// leader; checker linearizable or append.
    ResendUnderANewNumber = "resend-under-a-new-number":
        "commands that are sent to the next leader get new numbers";

    /// Rule: nothing in apply depends on the order of a hash. The parts of an entry are applied in an
    /// order that is random on each server.
    ///
    /// Shown by: kv-register or catalog with clients at several servers, no fault; checker state-hash.
    HashMapOrderInApply = "hash-map-order-in-apply":
        "the parts of an entry are applied in another order on each server";

    /// Rule: a leader confirms with a quorum that it still leads before it answers a barrier.
    ///
    /// Shown by: kv-register under partition of the leader, with a client at it; checker linearizable or
    /// availability (a minority answers `?stale` only).
    MinorityServesConsistentReads = "minority-serves-consistent-reads":
        "a leader that was cut off answers default reads";

    /// Rule: a command of an earlier life is never applied. It is, and lives are counted downwards, so
    /// that a restarted server's commands are of that kind: no record keeps them from being applied twice.
    ///
    /// Shown by: kv-register with plain writes and deletions of keys that many clients share, under duplicate
    /// when servers were restarted before; checker linearizable or versions. (The first copy answers the client,
    /// so a compare-and-set shows nothing.)
    LowerIncarnationApplied = "lower-incarnation-applied":
        "commands of an earlier life of their server are applied, without a record";

    /// Rule: a number at or below the floor is never applied. It is, and each server claims at once that
    /// all it has numbered is answered, as it would be if the network had held a copy back.
    ///
    /// Shown by: kv-register with plain writes and deletions of keys that many clients share, under duplicate;
    /// checker linearizable or versions. (The first copy answers the client, so a compare-and-set shows
    /// nothing.)
    FloorIgnored = "floor-ignored":
        "commands at or below the floor of their server are applied again";

    /// Rule: a client is answered when its own server has applied its command. A follower's are answered
    /// when the leader has.
    ///
    /// Shown by: kv-register with `?stale` reads of the server that took the write, under delay; checker
    /// versions. catalog: checker catalog.
    AnswerBeforeOwnApply = "answer-before-own-apply":
        "a follower answers when the leader has applied, before it has itself";

    /// Rule: a barrier serves the reads that were waiting when it was sent. It serves those that came
    /// while it was under way, too.
    ///
    /// Shown by: kv-register under delay; checker linearizable.
    BarrierJoinedAfterItWasSent = "barrier-joined-after-it-was-sent":
        "a read joins a barrier that is already under way";

    /// Rule: only apply refuses. A compare-and-set is refused, and a check or session is unknown,
    /// because of what the server that took the request has in its own state.
    ///
    /// Shown by: kv-register with clients that change servers, under delay or partition; checker
    /// linearizable. catalog: checker catalog.
    RefusalFromLocalState = "refusal-from-local-state":
        "commands are refused because of a server's own, perhaps old, state";

    /// Rule: a session with behaviour `delete` deletes the keys that it held. It releases them.
    ///
    /// Shown by: lock, no fault; checker lock.
    SessionDeleteOnlyReleases = "session-delete-only-releases":
        "a session with the behaviour delete only releases its keys";

    /// Rule: the removal of an instance wakes whoever waits for its service.
    ///
    /// Shown by: watch of a service without other writers, no fault; checker watch. (The next change of the
    /// service wakes them after all.)
    DeregistrationWakesNobody = "deregistration-wakes-nobody":
        "nobody who waits for a service is woken by a deregistration";

    /// Rule: the deletion of a key wakes whoever waits for it.
    ///
    /// Shown by: watch of a key without other writers, no fault; checker watch. (The next write of the key
    /// wakes them after all.)
    KeyDeletionWakesNobody = "key-deletion-wakes-nobody":
        "nobody who waits for a key is woken by its deletion";

    /// Rule: a TTL runs from the registration of its check, the first as every later one.
    ///
    /// Shown by: ttl with checks that are registered again between two heartbeats, no fault; checker
    /// ttl-early.
    ReRegisteredCheckKeepsItsOldTime = "re-registered-check-keeps-its-old-time":
        "the TTL of a check that is registered again runs on from before";

    /// Rule: a snapshot that replaces the state answers the commands whose entries it stands for.
    ///
    /// Shown by: no run, so far. A test of the node keeps everything but the snapshot from a server whose command
    /// was committed (`a_command_whose_entry_came_in_a_snapshot_is_answered_from_the_origin_record`).
    OutcomesNotLookedUpAfterASnapshot = "outcomes-not-looked-up-after-a-snapshot":
        "commands whose entries came within a snapshot are never answered";
}

impl Mutant {
    /// The mutant of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

/// Whether this mutant was chosen: never, in a build without mutants.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is_active(_: Mutant) -> bool {
    false
}

/// Whether this mutant was chosen.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_active(mutant: Mutant) -> bool {
    active() == Some(mutant)
}

/// The mutant of this process, once for its life.
#[cfg(feature = "mutants")]
static CHOSEN: std::sync::OnceLock<Mutant> = std::sync::OnceLock::new();

/// Makes this process that mutant, until it ends. To be called before anything else is.
///
/// # Errors
/// The mutant that it is already.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Mutant) -> Result<(), Mutant> {
    CHOSEN.set(mutant).or_else(|_| match active() {
        Some(chosen) if chosen != mutant => Err(chosen),
        Some(_) | None => Ok(()),
    })
}

/// The mutant that this process is, if it is one.
#[cfg(feature = "mutants")]
#[must_use]
pub fn active() -> Option<Mutant> {
    CHOSEN.get().copied()
}

/// Cluster time as a server would have it that kept it by its own clock from when it was first asked.
#[cfg(feature = "mutants")]
#[expect(clippy::disallowed_methods, reason = "the very fault that is to be found")]
pub(crate) fn local_time(applied: crate::ClusterTime) -> crate::ClusterTime {
    use std::time::Instant;
    static ORIGIN: std::sync::OnceLock<(Instant, crate::ClusterTime)> = std::sync::OnceLock::new();
    let (since, then) = ORIGIN.get_or_init(|| (Instant::now(), applied));
    let elapsed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    *then + crate::Millis(elapsed)
}

/// The time that is applied: a server has no other.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn local_time(applied: crate::ClusterTime) -> crate::ClusterTime {
    applied
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_leads_back_to_its_mutant() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::from_name(mutant.name()), Some(*mutant));
        }
        assert_eq!(Mutant::from_name(""), None);
        assert_eq!(Mutant::from_name("a-mutant-of-no-rule"), None);
    }

    #[test]
    fn names_are_unique_and_of_words_joined_by_hyphens() {
        let names: BTreeSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        assert_eq!(names.len(), Mutant::ALL.len());
        for name in names {
            let is_word =
                |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(name.split('-').all(is_word), "{name}");
        }
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn a_build_without_mutants_has_none() {
        const { assert!(!is_active(Mutant::CasIgnoresIndex)) };
        assert!(Mutant::ALL.iter().all(|mutant| !is_active(*mutant)));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn nothing_is_broken_until_a_mutant_is_chosen() {
        assert_eq!(active(), None);
        assert!(Mutant::ALL.iter().all(|mutant| !is_active(*mutant)));
    }
}
