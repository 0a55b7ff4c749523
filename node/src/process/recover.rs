//! `quorate recover`: what to do when a majority of the servers is lost for good.
//!
//! It shows what is in the data directories that are left, says which of them to take and what may be
//! missing in it, and makes a new cluster of that one ([`quorate_storage::recovery`]).

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use quorate_storage::raft::{LogId, NodeId};
use quorate_storage::recovery::{Recovered, Report, Survivor};
use uuid::Uuid;

use crate::raft::protocol::DiskState;

/// Flags of `quorate recover`.
#[derive(Debug, Clone, Args)]
pub struct RecoverArgs {
    /// Data directory of a stopped server; give every one that is left
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    pub data_dir: Vec<PathBuf>,
    /// Only shows what is there and what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Does it without asking
    #[arg(long)]
    pub yes: bool,
    /// Also where the servers that are left are a majority, or the log is known to lack something
    #[arg(long)]
    pub force: bool,
}

/// Shows the data directories and founds a new cluster of the best of them.
///
/// # Errors
/// When no directory can be used, or the answer is no.
pub fn run(args: &RecoverArgs) -> io::Result<()> {
    let mut survivors = Vec::new();
    for path in &args.data_dir {
        match Survivor::open(path) {
            Ok(survivor) => survivors.push(survivor),
            Err(error) => println!("Not usable: {error}\n"),
        }
    }
    let mut reports: Vec<Report> = survivors.iter().map(|one| one.report().clone()).collect();
    note_what_was_lost(&mut reports);
    let reports: Vec<&Report> = reports.iter().collect();
    if !reports.is_empty() {
        println!("{}", table(&reports));
    }
    if let Some(conflict) = conflict(&reports) {
        println!("{conflict}");
        if args.dry_run {
            println!("\nThis was a dry run: nothing was changed.");
            return Ok(());
        }
        return Err(io::Error::other(
            "nothing was changed: the committed entries of these directories conflict; choose, and give only the \
             directory to take",
        ));
    }
    let advice = Advice::on(&reports).map_err(io::Error::other)?;
    println!("{}", advice.text(&reports));
    if args.dry_run {
        println!("\nThis was a dry run: nothing was changed.");
        return Ok(());
    }
    if let Some(why) = advice.objection.filter(|_| !args.force) {
        return Err(io::Error::other(format!("{why} (--force overrides this)")));
    }
    if !args.yes {
        confirm(&reports[advice.best].dir.display().to_string())?;
    }
    let best = survivors.swap_remove(advice.best);
    // The others are free again.
    drop(survivors);
    let (dir, node) = (best.report().dir.clone(), best.report().node);
    let rpc_addr = best.report().peer().map_or_else(String::new, |peer| peer.rpc_addr.clone());
    let fresh = || Uuid::new_v4().to_string();
    let recovered = best.found_new_cluster(fresh(), fresh()).map_err(io::Error::other)?;
    println!("\n{}", what_next(&recovered, &dir.display().to_string(), node, &rpc_addr));
    Ok(())
}

/// A log that looks complete may end before what another server knows it to have held: the directory was set back.
fn note_what_was_lost(reports: &mut [Report]) {
    let lost: Vec<Option<String>> =
        reports.iter().map(|report| what_was_lost(report, reports)).collect();
    for (report, lost) in reports.iter_mut().zip(lost) {
        report.lost = report.lost.take().or(lost);
    }
}

fn what_was_lost(report: &Report, all: &[Report]) -> Option<String> {
    if report.has_impossible_term() {
        return Some("its term is one that no election can reach, so it cannot start".to_owned());
    }
    let disk = DiskState {
        last: report.last.map(Into::into),
        term: report.vote.map_or(0, |vote| vote.leader_id().term),
        ..DiskState::default()
    };
    all.iter().filter(|other| other.cluster == report.cluster).find_map(|other| {
        let known = other.log_ends.get(&report.node).filter(|known| known.store == report.store)?;
        let (upto, term) = known.upto?;
        let lacks = disk.lacks(upto, term)?;
        Some(format!(
            "its directory was replaced by an older copy: {lacks}, according to server {}",
            other.node
        ))
    })
}

/// What there is to say if two of these servers know different entries to be committed. There is no best one
/// then: whichever is taken, what the other one alone has is lost.
fn conflict(reports: &[&Report]) -> Option<String> {
    let pairs = reports.iter().enumerate().flat_map(|(at, one)| {
        reports[at + 1..]
            .iter()
            .filter(|other| other.cluster == one.cluster)
            .map(move |other| (one, other))
    });
    let index = pairs.filter_map(|(one, other)| one.contradicts(other)).min()?;
    let mut text = format!(
        "The committed entries of these directories CONFLICT, from index {index} on at the latest. Servers were set \
         back to older copies of their directories, or replaced, and went on from there. Writes were acknowledged \
         on both sides, and no directory has all of them:\n"
    );
    for report in reports {
        text.push_str(&format!(
            "  {} (server {}) knows entries up to {} to be committed\n",
            report.dir.display(),
            report.node,
            entry(report.known_committed())
        ));
    }
    text.push_str(
        "Nothing is recommended. Copy all directories aside first. Choose the one whose writes you need, and give \
         only that one: --data-dir DIR. Writes that only the others have are not in the new cluster.",
    );
    Some(text)
}

/// Asks on the terminal; without one the answer is no.
fn confirm(dir: &str) -> io::Result<()> {
    if !io::stdin().is_terminal() {
        return Err(io::Error::other(
            "nothing was changed: there is no terminal to confirm on; --yes skips the question, --dry-run only reports",
        ));
    }
    print!("\nFound a new cluster of {dir}? Type yes: ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(io::Error::other("nothing was changed"))
}

/// One column for each directory.
fn table(reports: &[&Report]) -> Table {
    type Shown = fn(&Report) -> String;
    let rows: [(&str, Shown); 10] = [
        ("directory", |report| report.dir.display().to_string()),
        ("cluster", |report| report.cluster.clone()),
        ("server", |report| {
            let name = report.peer().map_or("no member", |peer| peer.name.as_str());
            format!("{} ({name})", report.node)
        }),
        ("store", |report| report.store.clone()),
        ("members", members),
        ("term, vote", |report| {
            report.vote.map_or_else(
                || "none".to_owned(),
                |vote| {
                    let leader = vote.leader_id();
                    format!("term {}, for server {}", leader.term, leader.voted_for)
                },
            )
        }),
        ("last log entry", |report| entry(report.last)),
        ("committed and applied", |report| entry(report.committed)),
        ("snapshot up to", |report| entry(report.snapshot)),
        ("log complete", |report| {
            report.lost.clone().map_or_else(|| "yes".to_owned(), |lost| format!("NO: {lost}"))
        }),
    ];
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    for (title, shown) in rows {
        let cells = reports.iter().map(|report| shown(report));
        table.add_row([title.to_owned()].into_iter().chain(cells));
    }
    table
}

fn entry(id: Option<LogId>) -> String {
    id.map_or_else(
        || "none".to_owned(),
        |id| format!("index {} of term {}", id.index, id.leader_id.term),
    )
}

fn members(report: &Report) -> String {
    let voters: BTreeSet<NodeId> = report.membership.voter_ids().collect();
    let members = report.membership.nodes().map(|(id, peer)| {
        let role = if voters.contains(id) { "" } else { ", does not vote" };
        format!("{id} {} at {}{role}", peer.name, peer.rpc_addr)
    });
    members.collect::<Vec<_>>().join("\n")
}

/// Which directory to take.
#[derive(Debug, PartialEq, Eq)]
struct Advice {
    /// Position of the best report.
    best: usize,
    /// Why it should not be done, if there is a reason.
    objection: Option<String>,
    /// Whether every acknowledged write is in the best log.
    is_complete: bool,
    /// Voters whose directories are not here.
    missing: BTreeSet<NodeId>,
    voters: BTreeSet<NodeId>,
}

impl Advice {
    fn on(reports: &[&Report]) -> Result<Self, String> {
        // Raft's own order: what a majority has is in no log that is behind another in this order.
        let order = |at: &usize| {
            let report = reports[*at];
            let last = report.last.map(|last| (last.leader_id.term, last.index));
            (report.peer().is_some(), last, report.lost.is_none(), std::cmp::Reverse(report.node))
        };
        let best = (0..reports.len()).max_by_key(order);
        let best = best.ok_or("none of the directories can be used")?;
        let chosen = reports[best];
        if let Some(other) = reports.iter().find(|other| other.cluster != chosen.cluster) {
            return Err(format!(
                "these directories belong to different clusters: {} to {}, and {} to {}; give those of one cluster",
                chosen.dir.display(),
                chosen.cluster,
                other.dir.display(),
                other.cluster
            ));
        }
        if reports
            .iter()
            .enumerate()
            .any(|(at, report)| reports[..at].iter().any(|earlier| earlier.node == report.node))
        {
            return Err(
                "two of these directories are of one server: give only the newer".to_owned()
            );
        }
        let sound = reports.iter().filter(|report| report.lost.is_none());
        let here: BTreeSet<NodeId> = sound.map(|report| report.node).collect();
        let sets = chosen.voter_sets();
        let voters: BTreeSet<NodeId> = sets.iter().flatten().copied().collect();
        let quorum = |set: &BTreeSet<NodeId>| set.len() / 2 + 1;
        let present = |set: &BTreeSet<NodeId>| set.intersection(&here).count();
        let objection = if sets.iter().all(|set| present(set) >= quorum(set)) {
            Some(format!(
                "these servers are a majority of the {} voters: start them first, all at once. They elect a leader, and need no recovery, unless one of them ends and says that it has lost data",
                voters.len()
            ))
        } else {
            chosen
                .lost
                .as_ref()
                .map(|lost| format!("the log of the best directory is incomplete: {lost}"))
        };
        Ok(Self {
            best,
            objection,
            is_complete: sets.iter().any(|set| set.len() - present(set) < quorum(set)),
            missing: voters.difference(&here).copied().collect(),
            voters,
        })
    }

    fn text(&self, reports: &[&Report]) -> String {
        let chosen = reports[self.best];
        let mut text = format!("Take {} (server {}).", chosen.dir.display(), chosen.node);
        if reports.len() > 1 {
            text.push_str(" No other directory's log ends later.");
        }
        let (voters, missing) = (self.voters.len(), join(&self.missing));
        let loss = if self.is_complete {
            format!(
                "Nothing that was acknowledged is missing: a write is acknowledged once a majority of the {voters} voters has it, so at least one of the directories here does."
            )
        } else {
            format!(
                "A write is acknowledged once {} of the {voters} voters have it. The voters that are not here ({missing}) may have had writes that none of these directories has: the last ones before the loss may be missing.",
                voters / 2 + 1
            )
        };
        let last = chosen.last.map_or(0, |last| last.index);
        let kept = match chosen.beyond_committed() {
            0 => format!("All entries up to {last} are kept."),
            beyond => format!(
                "All entries up to {last} are kept, among them {beyond} that this server does not know to be committed: some of those writes may never have been acknowledged to anybody."
            ),
        };
        let text = format!(
            "{text}\n{loss}\n{kept}\nThe new cluster has another id: the other servers of the old one can never take part in it."
        );
        match &self.objection {
            Some(objection) => format!("{text}\nBut {objection}."),
            None => text,
        }
    }
}

fn join(ids: &BTreeSet<NodeId>) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter().map(|id| format!("server {id}")).collect::<Vec<_>>().join(", ")
}

fn what_next(recovered: &Recovered, dir: &str, node: NodeId, rpc_addr: &str) -> String {
    let kept: Vec<_> = recovered.kept.iter().map(|path| path.display().to_string()).collect();
    format!(
        "Done: {dir} is now the new cluster {}, with server {node} alone, and everything up to entry {}.\n\
         1. Start it as before (quorate server --node-id {node} --data-dir {dir} ...).\n\
         2. Start new servers with new ids and empty data directories: --node-id N --join {rpc_addr} --bootstrap-expect 0.\n\
         3. Keep the other servers of the old cluster stopped: should a majority of them come back, they go on as the old cluster.\n\
         The old log and snapshots are untouched: {}. Remove them when they are no longer needed.",
        recovered.cluster,
        recovered.applied.map_or(0, |applied| applied.index),
        kept.join(", "),
    )
}

#[cfg(test)]
mod tests;
