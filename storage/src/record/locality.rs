//! Where a node runs, which its row keeps among its tagged addresses: members cannot be added to a row that
//! lies within others, and rows without a locality are encoded as they ever were.

use super::{Node, TextMap};

/// What the locality is kept under. No purpose of an address begins with a NUL.
const LOCALITY: &str = "\0Locality";

/// A node's tagged addresses as its row keeps them: with its locality, a JSON object, if it has one.
/// Nothing else can be given under its name.
#[must_use]
pub fn with_locality(tagged: Option<TextMap>, locality: Option<String>) -> Option<TextMap> {
    let mut tagged = tagged;
    if let Some(tagged) = &mut tagged {
        tagged.remove(LOCALITY);
    }
    if let Some(locality) = locality {
        tagged.get_or_insert_default().insert(LOCALITY.to_owned(), locality);
    }
    tagged
}

/// Whether this is the name of the locality, not of an address.
#[must_use]
pub(crate) fn is_locality(purpose: &str) -> bool {
    purpose == LOCALITY
}

impl Node {
    /// Where it runs, as one JSON object, if that was given.
    #[must_use]
    pub fn locality(&self) -> Option<&str> {
        self.tagged_addresses.as_ref()?.get(LOCALITY).map(String::as_str)
    }

    /// The tagged addresses that were given. (Beside a locality, `{}` is `null`.)
    #[must_use]
    pub fn addresses(&self) -> Option<TextMap> {
        let mut tagged = self.tagged_addresses.clone()?;
        let had_locality = tagged.remove(LOCALITY).is_some();
        Some(tagged).filter(|tagged| !had_locality || !tagged.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Indexes, NodeKind};

    fn node(tagged: Option<TextMap>, locality: Option<&str>) -> Node {
        Node {
            name: "n".into(),
            id: String::new(),
            address: String::new(),
            tagged_addresses: with_locality(tagged, locality.map(str::to_owned)),
            meta: None,
            kind: NodeKind::Registered,
            indexes: Indexes::default(),
        }
    }

    #[test]
    fn a_locality_stands_beside_addresses_and_is_none() {
        let wan = TextMap::from([("wan".to_owned(), "10.0.0.1".to_owned())]);
        let place = r#"{"Region":"eu"}"#;
        for tagged in [None, Some(wan)] {
            let placed = node(tagged.clone(), Some(place));
            assert_eq!((placed.locality(), placed.addresses()), (Some(place), tagged.clone()));
            let bare = node(tagged.clone(), None);
            assert_eq!((bare.locality(), &bare.tagged_addresses), (None, &tagged));
            assert_eq!(bare.addresses(), tagged);
        }
        assert_eq!(node(Some(TextMap::new()), None).addresses(), Some(TextMap::new()));
        assert_eq!(node(Some(TextMap::new()), Some(place)).addresses(), None);
    }

    #[test]
    fn its_name_is_that_of_stored_rows_and_no_address_has_it() {
        let placed = node(None, Some("{}"));
        let names: Vec<_> =
            placed.tagged_addresses.iter().flatten().map(|(name, _)| name).collect();
        assert_eq!(names, ["\0Locality"]);
        let forged = TextMap::from([("\0Locality".to_owned(), "x".to_owned())]);
        assert_eq!(node(Some(forged), None).locality(), None);
    }
}
