//! Several faults at once, as in `delay+kill-leader`: they are injected one after the other, last together, and are
//! healed in reverse order. Some bugs need two faults: a leader that dies while much is in flight, a server that is
//! cut off while its own requests are.

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
    /// What showed each but the last: looked for before the next one came, which may hide it.
    shown: Vec<Result<String>>,
}

impl Together {
    pub(super) fn new(name: &str, parts: Vec<Box<dyn Nemesis>>) -> Self {
        Self { name: name.to_owned(), parts, shown: Vec::new() }
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
        // Nothing is asked for by those before one that cannot be.
        let mut asked = options.clone();
        self.parts.iter_mut().try_for_each(|part| part.prepare(&mut asked))?;
        *options = asked;
        Ok(())
    }

    fn consider(&self, options: &Options) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.consider(options))
    }

    fn hold(&self) -> Duration {
        self.parts.iter().map(|part| part.hold()).max().unwrap_or_default()
    }

    fn may_end_servers(&self) -> bool {
        self.parts.iter().any(|part| part.may_end_servers())
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (mut what, mut affected) = (Vec::new(), Vec::new());
        self.shown.clear();
        let last = self.parts.len().saturating_sub(1);
        for (number, part) in self.parts.iter_mut().enumerate() {
            let injection = part.inject(ground).await?;
            what.push(injection.what);
            affected.extend(injection.affected);
            if number < last {
                self.shown.push(part.probe(ground).await);
                tokio::time::sleep(BETWEEN).await;
            }
        }
        affected.sort_unstable();
        affected.dedup();
        Ok(Injection { what: what.join(", and "), affected })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let mut evidence = self.shown.drain(..).collect::<Result<Vec<_>>>()?;
        if let Some(last) = self.parts.last_mut() {
            evidence.push(last.probe(ground).await?);
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
