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

fn mark(kind: &mut String) {
    if !kind.starts_with(MARK) {
        kind.insert_str(0, MARK);
    }
}

fn unmark(kind: &mut String) {
    if kind.starts_with(MARK) {
        kind.drain(..MARK.len());
    }
}

impl ServiceDefinition {
    /// Whether its agent has it from a definition file.
    #[must_use]
    pub fn is_from_file(&self) -> bool {
        self.kind.starts_with(MARK)
    }

    /// Its agent has it from a definition file.
    pub fn mark_from_file(&mut self) {
        mark(&mut self.kind);
    }

    /// Nothing says that its agent has it from a definition file.
    pub(crate) fn unmark_from_file(&mut self) {
        unmark(&mut self.kind);
    }
}

impl CheckRegistration {
    /// Whether its agent has it from a definition file.
    #[must_use]
    pub fn is_from_file(&self) -> bool {
        self.kind.starts_with(MARK)
    }

    /// Its agent has it from a definition file.
    pub fn mark_from_file(&mut self) {
        mark(&mut self.kind);
    }

    /// Nothing says that its agent has it from a definition file.
    pub(crate) fn unmark_from_file(&mut self) {
        unmark(&mut self.kind);
    }

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
