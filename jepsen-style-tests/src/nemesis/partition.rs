//! Servers that cannot reach each other, while each of them runs and its clients reach it.
//!
//! A server is affected if it cannot reach the leader and, through it, a majority; every other server must serve.
//! In shapes in which each server reaches some others, that depends on who leads. The leader at the injection stays
//! leader, because its followers hear it and elect nobody else. If a busy machine moves the leadership all the
//! same, every server next to a cut may be the one that cannot reach the new leader, and counts as affected as
//! well.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::seq::IndexedRandom as _;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::network::{Link, Network, Way};
use crate::{Failure, Limit, Result};

/// How long a partition lasts: several elections.
const HOLD: Duration = Duration::from_secs(4);
/// And every third time: longer than a server holds a request that needs a leader (7 s), so that a
/// minority has to refuse.
const LONG_HOLD: Duration = Duration::from_secs(9);
const LONG_IS_EVERY: u32 = 3;
/// In a ring of so many, a server and its neighbours are a majority, and no two majorities are the same.
const RING: u64 = 5;
/// Within this a look shows the cut and nothing else. With one look more it is shorter than a partition.
const LOOK_LIMIT: Duration = Duration::from_millis(2_500);
/// Within this an isolated leader is replaced: an election and its repetition.
const NEW_LEADER_LIMIT: Duration = Duration::from_secs(3);

/// Which links are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A minority and the majority.
    Halves,
    /// The leader and all others.
    Leader,
    /// One direction only.
    OneWay,
    /// Each server hears its two neighbours only.
    Ring,
}

/// Cuts links.
#[derive(Debug)]
pub(super) struct Partition {
    shape: Shape,
    way: Way,
    cut: Vec<Link>,
    /// How many were healed.
    healed: u32,
    /// The leader at the injection, and its term.
    led: Option<(u64, Option<u64>)>,
    /// Whether that decides who is affected.
    depends_on_leader: bool,
}

/// What is to be cut.
struct Cut {
    what: String,
    links: Vec<Link>,
    affected: Vec<u64>,
    depends_on_leader: bool,
}

impl Partition {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            way: Way::Nft,
            cut: Vec::new(),
            healed: 0,
            led: None,
            depends_on_leader: false,
        }
    }

    /// Looks until it sees exactly the cut: on a busy machine a link that is whole may be slow to answer.
    async fn look(&self, ground: &mut Ground) -> Result<String> {
        let limit = Limit::new(LOOK_LIMIT);
        let network = ground.cluster.network()?;
        loop {
            let seen = match self.way {
                Way::Nft => datagrams(network, &self.cut).await,
                Way::Proxy => passed(network, &self.cut).await,
            };
            if seen.is_ok() || limit.is_over() {
                return seen;
            }
        }
    }
}

/// Chooses what to cut; every server runs.
fn choose(shape: Shape, rng: &mut impl Rng, ids: &[u64], leader: u64) -> Cut {
    match shape {
        Shape::Halves => {
            let size = rng.random_range(1..=(ids.len() - 1) / 2);
            isolate(ids, ids.choose_multiple(rng, size).copied().collect(), leader)
        }
        Shape::Leader => isolate(ids, vec![leader], leader),
        Shape::OneWay => one_way(rng, ids, leader),
        Shape::Ring => ring(ids, leader),
    }
}

/// Cuts both directions between a minority and the others.
fn isolate(ids: &[u64], mut minority: Vec<u64>, leader: u64) -> Cut {
    minority.sort_unstable();
    let links = links_of(ids, |link| minority.contains(&link.from) != minority.contains(&link.to));
    let names: Vec<_> = minority.iter().map(|id| name(*id, leader)).collect();
    let what = format!("cut {} off from the rest", names.join(", "));
    Cut { what, links, affected: minority, depends_on_leader: false }
}

/// TCP needs both directions, so a node that is mute or deaf is as good as gone, and so is a leader for
/// the follower that does not hear it, or that it does not hear. The leader and the others still have
/// each other.
fn one_way(rng: &mut impl Rng, ids: &[u64], leader: u64) -> Cut {
    let others: Vec<_> = ids.iter().copied().filter(|id| *id != leader).collect();
    let follower = others[rng.random_range(0..others.len())];
    let node = ids[rng.random_range(0..ids.len())];
    let (what, links, victim) = match rng.random_range(0..4) {
        0 => {
            let what = format!("nothing reaches n{follower} from n{leader} (leader)");
            (what, vec![Link::new(leader, follower)], follower)
        }
        1 => {
            let what = format!("nothing reaches n{leader} (leader) from n{follower}");
            (what, vec![Link::new(follower, leader)], follower)
        }
        2 => {
            let what = format!("nobody hears {}", name(node, leader));
            (what, links_of(ids, |link| link.from == node), node)
        }
        _ => {
            let what = format!("{} hears nobody", name(node, leader));
            (what, links_of(ids, |link| link.to == node), node)
        }
    };
    let depends_on_leader = links.len() == 1;
    Cut { what, links, affected: vec![victim], depends_on_leader }
}

/// The leader and its neighbours are the majority that serves; the other two see one of them each.
fn ring(ids: &[u64], leader: u64) -> Cut {
    let count = ids.len();
    let are_neighbours = |link: &Link| {
        let place = |id| ids.iter().position(|other| *other == id).unwrap_or(0);
        let distance = place(link.from).abs_diff(place(link.to));
        distance == 1 || distance == count - 1
    };
    let links = links_of(ids, |link| !are_neighbours(link));
    let is_far = |id: &u64| links.contains(&Link::new(leader, *id));
    let affected = ids.iter().copied().filter(is_far).collect();
    let what = format!("a ring: each server hears its two neighbours only; n{leader} leads");
    Cut { what, links, affected, depends_on_leader: true }
}

fn name(id: u64, leader: u64) -> String {
    if id == leader { format!("n{id} (leader)") } else { format!("n{id}") }
}

fn links_of(ids: &[u64], is_wanted: impl Fn(&Link) -> bool) -> Vec<Link> {
    let all = ids.iter().flat_map(|from| ids.iter().map(move |to| Link::new(*from, *to)));
    all.filter(|link| link.from != link.to).filter(is_wanted).collect()
}

#[async_trait]
impl Nemesis for Partition {
    fn name(&self) -> &'static str {
        match self.shape {
            Shape::Halves => "partition",
            Shape::Leader => "partition-leader",
            Shape::OneWay => "partition-one-way",
            Shape::Ring => "partition-ring",
        }
    }

    fn summary(&self) -> &'static str {
        match self.shape {
            Shape::Halves => "a random minority is cut off from the majority",
            Shape::Leader => "the leader is cut off from all others",
            Shape::OneWay => "one direction is cut: of one link of the leader, or of all of a node",
            Shape::Ring => "five servers hear only their two neighbours",
        }
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        if self.shape == Shape::Ring && options.nodes != RING {
            return Err(Failure::new(format!("a ring takes {RING} servers (--nodes {RING})")));
        }
        self.way = Way::of_this_machine();
        options.proxied |= self.way == Way::Proxy;
        Ok(())
    }

    fn hold(&self) -> Duration {
        if (self.healed + 1).is_multiple_of(LONG_IS_EVERY) { LONG_HOLD } else { HOLD }
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let leader = ground.cluster.leader().await?;
        let ids = ground.cluster.ids();
        let cut = choose(self.shape, &mut ground.rng, &ids, leader);
        self.led = Some((leader, term(ground, leader).await));
        self.depends_on_leader = cut.depends_on_leader;
        ground.cluster.network()?.cut(self.way, &cut.links).await?;
        self.cut = cut.links;
        Ok(Injection { what: cut.what, affected: cut.affected })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let mut evidence = self.look(ground).await?;
        if let (Shape::Leader, Some((leader, _))) = (self.shape, self.led) {
            evidence += &format!("; {}", replaced(ground, leader).await?);
        }
        Ok(evidence)
    }

    async fn also_affected(&mut self, ground: &mut Ground) -> Vec<u64> {
        let Some((leader, led_in)) = self.led else { return Vec::new() };
        if !self.depends_on_leader {
            return Vec::new();
        }
        let leads_still = ground.cluster.leader_according_to(leader).await == Some(leader);
        if leads_still && led_in.is_some() && term(ground, leader).await == led_in {
            return Vec::new();
        }
        self.cut.iter().flat_map(|link| [link.from, link.to]).collect()
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        self.cut.clear();
        self.healed += 1;
        ground.cluster.network()?.heal().await
    }
}

/// The term that a server is in.
async fn term(ground: &Ground, id: u64) -> Option<u64> {
    let answer = ground.cluster.probe(id).get("/metrics").await.ok()?;
    answer.metric("quorate_raft_term")
}

/// Each direction by itself: what the packet filter does to a datagram it does to every packet.
async fn datagrams(network: &Network, cut: &[Link]) -> Result<String> {
    let open = network.open_to_datagrams().await?;
    let wanted = except(network.links(), cut);
    if open != wanted {
        return Err(Failure::new(format!("datagrams pass on {}", list(&open))));
    }
    require_answers(network, cut).await?;
    Ok(format!("datagrams stop on {}, and pass on all other links", list(cut)))
}

/// By the proxies' own count, as they carry nothing but connections, which take both directions.
async fn passed(network: &Network, cut: &[Link]) -> Result<String> {
    let count = || cut.iter().map(|link| network.passed_bytes(*link)).collect::<Result<Vec<_>>>();
    let before = count()?;
    require_answers(network, cut).await?;
    if count()? != before {
        return Err(Failure::new("bytes passed on a link that is cut"));
    }
    Ok(format!("no byte passes on {}; all links that are whole answer", list(cut)))
}

/// An answer takes both directions, so links answer if and only if neither is cut.
async fn require_answers(network: &Network, cut: &[Link]) -> Result<()> {
    let answering = network.answering().await?;
    let wanted = network
        .links()
        .into_iter()
        .filter(|link| !cut.contains(link) && !cut.contains(&link.back()));
    if answering == wanted.collect::<Vec<_>>() {
        return Ok(());
    }
    Err(Failure::new(format!("the RPC ports answer on {}", list(&answering))))
}

fn except(links: Vec<Link>, cut: &[Link]) -> Vec<Link> {
    links.into_iter().filter(|link| !cut.contains(link)).collect()
}

fn list(links: &[Link]) -> String {
    let names: Vec<_> = links.iter().map(Link::to_string).collect();
    names.join(", ")
}

/// Waits until the others follow another leader.
async fn replaced(ground: &Ground, leader: u64) -> Result<String> {
    let limit = Limit::new(NEW_LEADER_LIMIT);
    loop {
        for id in ground.cluster.others(leader) {
            if let Some(new) = ground.cluster.leader_according_to(id).await
                && new != leader
            {
                return Ok(format!("n{new} leads instead"));
            }
        }
        limit.pause(|| format!("a leader instead of n{leader}")).await?;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SHAPES: [Shape; 4] = [Shape::Halves, Shape::Leader, Shape::OneWay, Shape::Ring];

    #[test]
    fn whoever_is_not_affected_reaches_a_leader_and_a_majority() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (shape, leader, _) in SHAPES.iter().flat_map(|shape| {
            (1..=5).flat_map(move |leader| (0..50).map(move |round| (*shape, leader, round)))
        }) {
            let ids = [1, 2, 3, 4, 5];
            let cut = choose(shape, &mut rng, &ids, leader);
            let serving: Vec<_> = ids.into_iter().filter(|id| !cut.affected.contains(id)).collect();
            assert!(serving.len() > ids.len() / 2, "{}", cut.what);
            let hub = if serving.contains(&leader) { leader } else { serving[0] };
            for id in serving {
                let link = Link::new(hub, id);
                let is_whole = !cut.links.contains(&link) && !cut.links.contains(&link.back());
                assert!(is_whole, "{}: n{hub} and n{id}", cut.what);
            }
        }
    }

    #[test]
    fn whoever_is_affected_has_a_cut_link_to_the_leader_or_leads() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for shape in SHAPES.into_iter().cycle().take(200) {
            let ids = [1, 2, 3, 4, 5];
            let cut = choose(shape, &mut rng, &ids, 2);
            for id in cut.affected {
                let link = Link::new(2, id);
                let is_cut = cut.links.contains(&link) || cut.links.contains(&link.back());
                let with_leader = matches!(shape, Shape::Halves) && cut.what.contains("leader");
                assert!(id == 2 || is_cut || with_leader, "{}: n{id}", cut.what);
            }
        }
    }

    #[test]
    fn an_isolated_minority_keeps_its_own_links() {
        let cut = isolate(&[1, 2, 3, 4, 5], vec![4, 2], 4);
        assert_eq!(cut.what, "cut n2, n4 (leader) off from the rest");
        assert_eq!(cut.links.len(), 2 * 2 * 3);
        assert!(!cut.links.contains(&Link::new(2, 4)) && !cut.links.contains(&Link::new(1, 3)));
        assert!(cut.links.contains(&Link::new(2, 1)) && cut.links.contains(&Link::new(1, 2)));
    }

    #[test]
    fn everyone_in_a_ring_hears_two_and_the_far_ones_cannot_hear_the_leader() {
        let ids = [1, 2, 3, 4, 5];
        let cut = ring(&ids, 1);
        assert_eq!(cut.affected, [3, 4]);
        for id in ids {
            let hears =
                |other: &&u64| **other != id && !cut.links.contains(&Link::new(**other, id));
            assert_eq!(ids.iter().filter(hears).count(), 2, "n{id}");
        }
    }

    #[test]
    fn a_ring_of_three_is_refused_with_the_reason() {
        let refused = Partition::new(Shape::Ring).prepare(&mut Options::default());
        assert_eq!(refused.unwrap_err().to_string(), "a ring takes 5 servers (--nodes 5)");
    }

    #[test]
    fn every_third_partition_outlasts_the_patience_of_the_servers() {
        let mut partition = Partition::new(Shape::Halves);
        for hold in [HOLD, HOLD, LONG_HOLD, HOLD] {
            assert_eq!(partition.hold(), hold);
            partition.healed += 1;
        }
    }
}
