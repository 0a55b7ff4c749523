//! One connection of a stream of changes.

use std::time::Duration;

use eventsource_stream::Event;

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::sse::{self, Events};
use crate::transport::Call;
use crate::types::live::{StreamChange, StreamGap, StreamLeader, StreamMoved, StreamSnapshot};

/// A server that sends nothing for so long is dead: a mark comes every 5 s.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(8);

impl Client {
    /// Opens a stream of changes: `/v1/quorate/stream`. `service`, `prefix` (of keys) and `kind` in the query narrow it,
    /// `since` is the number of the last record that was seen.
    ///
    /// It ends with its server; [`Follow`](crate::Follow) goes on at the next one.
    ///
    /// # Errors
    /// Status 400: the query is wrong. Status 503: no server has room for it, or nothing is recorded yet.
    pub async fn stream(&self, query: &Query) -> Result<EventStream, Error> {
        let (response, address) = self.transport().open(&stream_call(query)).await?;
        Ok(EventStream(Events::new(response, &address, SILENCE_MAX)))
    }
}

pub(crate) fn stream_call(query: &Query) -> Call {
    Call::get("/v1/quorate/stream", query)
}

/// An open stream of changes.
#[derive(Debug)]
pub struct EventStream(pub(crate) Events);

/// What a stream says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Frame {
    /// Instances, in the order of service, node and id; large lists come in several.
    Snapshot(StreamSnapshot),
    /// A record of the history.
    Change(Box<StreamChange>),
    /// Everything up to this record was looked at.
    Mark(u64),
    /// Records were lost; a snapshot follows.
    Gap(StreamGap),
    /// A backup was restored; a snapshot follows.
    Restored,
    /// Who leads.
    Leader(Option<String>),
    /// The server stops.
    Moved(StreamMoved),
    /// What this version does not know.
    Other(String),
}

impl EventStream {
    /// The next frame; `None`: the server has ended the stream.
    ///
    /// # Errors
    /// [`Error::Transport`]: the connection broke, or nothing came for 8 s.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        match self.0.next().await? {
            None => Ok(None),
            Some(event) => frame(&event).map(Some),
        }
    }
}

fn frame(event: &Event) -> Result<Frame, Error> {
    Ok(match event.event.as_str() {
        "snapshot" => Frame::Snapshot(sse::data(event)?),
        "change" => Frame::Change(Box::new(sse::data(event)?)),
        "mark" => Frame::Mark(
            event.id.parse().map_err(|_| Error::Decode(format!("a mark at {:?}", event.id)))?,
        ),
        "gap" => Frame::Gap(sse::data(event)?),
        "restored" => Frame::Restored,
        "leader" => Frame::Leader(sse::data::<StreamLeader>(event)?.leader),
        "moved" => Frame::Moved(sse::data(event)?),
        other => Frame::Other(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, id: &str, data: &str) -> Result<Frame, Error> {
        let (event, id, data) = (name.to_owned(), id.to_owned(), data.to_owned());
        frame(&Event { event, id, data, retry: None })
    }

    #[test]
    fn frames_are_told_by_their_names() {
        assert_eq!(read("mark", "17", "{}").unwrap(), Frame::Mark(17));
        assert_eq!(read("restored", "", "{}").unwrap(), Frame::Restored);
        assert_eq!(read("leader", "", r#"{"Leader":null}"#).unwrap(), Frame::Leader(None));
        assert_eq!(read("news", "", "?").unwrap(), Frame::Other("news".to_owned()));
        let gap = read("gap", "", r#"{"Since":3,"Last":9}"#).unwrap();
        assert_eq!(gap, Frame::Gap(StreamGap { since: 3, last: 9 }));
        assert!(matches!(read("mark", "x", "{}"), Err(Error::Decode(_))));
        assert!(matches!(read("change", "1", "["), Err(Error::Decode(_))));
    }
}
