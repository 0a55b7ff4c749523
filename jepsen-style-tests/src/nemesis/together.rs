//! Several faults at once, as in `delay+kill-leader`: each is injected in its turn, all last together, and
//! they are healed in the opposite order. Some mistakes need two misfortunes: a leader that dies while much
//! is on its way, a server that is cut off while its own requests are.

use std::time::Duration;

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::Result;
use crate::cluster::Options;

/// What stands between two names.
pub(super) const AND: char = '+';
/// The first fault has been felt for this long when the next one comes.
const BETWEEN: Duration = Duration::from_millis(400);

/// Faults that are injected one after the other and last together.
pub(super) struct Together {
    name: String,
    parts: Vec<Box<dyn Nemesis>>,
}

impl Together {
    pub(super) fn new(name: &str, parts: Vec<Box<dyn Nemesis>>) -> Self {
        Self { name: name.to_owned(), parts }
    }
}

#[async_trait]
impl Nemesis for Together {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> &'static str {
        "several faults at once"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| part.prepare(options))
    }

    fn hold(&self) -> Duration {
        let longest = self.parts.iter().map(|part| part.hold()).max();
        longest.unwrap_or_default() + BETWEEN * u32::try_from(self.parts.len()).unwrap_or(0)
    }

    fn may_end_servers(&self) -> bool {
        self.parts.iter().any(|part| part.may_end_servers())
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (mut what, mut affected) = (Vec::new(), Vec::new());
        for part in &mut self.parts {
            if !what.is_empty() {
                tokio::time::sleep(BETWEEN).await;
            }
            let injection = part.inject(ground).await?;
            what.push(injection.what);
            affected.extend(injection.affected);
        }
        affected.sort_unstable();
        affected.dedup();
        Ok(Injection { what: what.join(", and "), affected })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let mut evidence = Vec::new();
        for part in &mut self.parts {
            evidence.push(part.probe(ground).await?);
        }
        Ok(evidence.join("; "))
    }

    async fn also_affected(&mut self, ground: &mut Ground) -> Vec<u64> {
        let mut affected = Vec::new();
        for part in &mut self.parts {
            affected.extend(part.also_affected(ground).await);
        }
        affected
    }

    /// Heals all of them, whatever becomes of one; the first trouble is what is reported.
    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let mut healed = Ok(());
        for part in self.parts.iter_mut().rev() {
            let this = part.heal(ground).await;
            healed = healed.and(this);
        }
        healed
    }
}
