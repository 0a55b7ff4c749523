//! The history, as a workload reads it at its end.

use serde_json::Value;

use crate::client::{CLIENT_AT_THE_END, Call, Site};
use crate::http::AnswerExt as _;
use crate::{Failure, Result};

/// Records of one page.
const PAGE: usize = 1_000;
const OLDEST_SEQ: &str = "x-quorate-oldest-seq";

/// All records that a filter chooses, the oldest first, and from which number on the history is complete: 1, or more if
/// some are not kept any more.
///
/// # Errors
/// The first server does not answer.
pub(super) async fn read(site: &Site, filter: &str) -> Result<(u64, Vec<Value>)> {
    let (mut oldest, mut records, mut since) = (1, Vec::new(), None);
    loop {
        let after = since.map_or_else(String::new, |seq| format!("&since={seq}"));
        let path = format!("/v1/quorate/history?{filter}&limit={PAGE}{after}");
        let reply = site.send(CLIENT_AT_THE_END, 0, Call::read(&path)).await;
        let Some(answer) = reply.answer() else {
            return Err(Failure::new(format!("no history: {:?}", reply.outcome)));
        };
        let header = answer.header(OLDEST_SEQ).and_then(|text| text.parse().ok());
        oldest = oldest.max(header.unwrap_or(u64::MAX));
        let page = answer.value()?;
        let page = page.as_array().map(Vec::as_slice).unwrap_or_default();
        since = page.last().and_then(|record| record["Seq"].as_u64());
        let is_last = page.len() < PAGE;
        records.extend_from_slice(page);
        if is_last {
            return Ok((oldest, records));
        }
    }
}
