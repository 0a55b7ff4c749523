//! Which services and checks an agent registered from its definition files.
//!
//! The mark lies before the kind, because members cannot be added to a row that lies within others. Rows
//! without it are encoded as they ever were. It is shown to nobody. From
//! [`FILE_MARK_LEVEL`](crate::state::FILE_MARK_LEVEL) on agents give it: before, a server might show it as a
//! kind.

use super::{CheckRegistration, ServiceDefinition};

/// The mark. No kind begins with a NUL.
const MARK: &str = "\0file\0";

/// A kind without the mark, which nobody but an agent can give.
#[must_use]
pub fn without_file_mark(kind: &str) -> &str {
    kind.strip_prefix(MARK).unwrap_or(kind)
}

/// What an agent can have from a definition file.
pub trait FromFile {
    /// Its kind, perhaps with the mark before it.
    fn marked_kind(&self) -> &str;

    /// See [`Self::marked_kind`].
    fn marked_kind_mut(&mut self) -> &mut String;

    /// Whether its agent has it from a definition file.
    #[must_use]
    fn is_from_file(&self) -> bool {
        self.marked_kind().starts_with(MARK)
    }

    /// Notes that its agent has it from a definition file.
    fn mark_from_file(&mut self) {
        if !self.is_from_file() {
            self.marked_kind_mut().insert_str(0, MARK);
        }
    }

    /// Removes the mark, if there is one.
    fn unmark_from_file(&mut self) {
        if self.is_from_file() {
            self.marked_kind_mut().drain(..MARK.len());
        }
    }
}

impl FromFile for ServiceDefinition {
    fn marked_kind(&self) -> &str {
        &self.kind
    }

    fn marked_kind_mut(&mut self) -> &mut String {
        &mut self.kind
    }
}

impl FromFile for CheckRegistration {
    fn marked_kind(&self) -> &str {
        &self.kind
    }

    fn marked_kind_mut(&mut self) -> &mut String {
        &mut self.kind
    }
}

impl CheckRegistration {
    /// The API's `Type`: `ttl`, `http`, `tcp`, ..., or empty.
    #[must_use]
    pub fn check_type(&self) -> &str {
        without_file_mark(&self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_hides_nothing_of_a_kind_and_lies_in_stored_rows_as_it_ever_did() {
        for (kind, settings, mesh_kind) in
            [("", None, ""), ("connect-proxy", None, "connect-proxy"), ("{}", Some("{}"), "")]
        {
            let mut service = ServiceDefinition { kind: kind.to_owned(), ..Default::default() };
            let shown = |service: &ServiceDefinition| {
                (service.settings().map(str::to_owned), service.mesh_kind().to_owned())
            };
            let expected = (settings.map(str::to_owned), mesh_kind.to_owned());
            assert_eq!((shown(&service), service.is_from_file()), (expected.clone(), false));
            service.mark_from_file();
            service.mark_from_file();
            assert_eq!((shown(&service), service.is_from_file()), (expected, true));
            assert_eq!(service.kind, format!("\0file\0{kind}"));
            service.unmark_from_file();
            assert_eq!(service.kind, kind);
        }
        assert_eq!(without_file_mark("\0file\0ttl"), "ttl");
        assert_eq!(without_file_mark("ttl"), "ttl");
    }
}
