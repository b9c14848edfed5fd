//! Finds the place of a field in the text of its object.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::Location;
use super::path::{FieldPath, Segment};

/// Line and column of the field at `path` in a YAML or JSON text of one document: those of its key,
/// or of the element in a list. Where the path leads to a field that is not there, the place of the
/// innermost one that is. `None` for the root, and for what came by an alias or a merge key.
///
/// It serves every message that has a field path, not only those of decoding.
pub fn locate(text: &str, path: &FieldPath) -> Option<Location> {
    (1..=path.0.len()).rev().find_map(|length| {
        // The parser tells places only in its errors, so the walk ends at the field with one.
        let at = serde_norway::Deserializer::from_str(text)
            .deserialize_any(Walk(&path.0[..length]))
            .err()
            .filter(|error| error.to_string().contains(ARRIVED))?
            .location()?;
        Some(Location { line: at.line(), column: at.column() })
    })
}

const ARRIVED: &str = "arrived at the field";

/// Goes down a path that is not empty.
struct Walk<'a>(&'a [Segment]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            return deserializer.deserialize_any(Arrived);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((Segment::Field(name), rest)) = self.0.split_first() else {
            return Err(de::Error::custom("a list was expected"));
        };
        while let Some(matches) = entries.next_key_seed(KeyIs { name, last: rest.is_empty() })? {
            if matches {
                entries.next_value_seed(Walk(rest))?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Some((Segment::Index(index), rest)) = self.0.split_first() else {
            return Err(de::Error::custom("a map was expected"));
        };
        for _ in 0..*index {
            elements.next_element::<IgnoredAny>()?;
        }
        elements.next_element_seed(Walk(rest))?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Tells whether a key is `name`; fails there if it is the last of the path.
struct KeyIs<'a> {
    name: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        if self.last && key == self.name {
            return Err(E::custom(ARRIVED));
        }
        Ok(key == self.name)
    }
}

/// Fails at whatever comes, so that the error has its place.
struct Arrived;

impl<'de> Visitor<'de> for Arrived {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom(ARRIVED))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Err(E::custom(ARRIVED))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Err(E::custom(ARRIVED))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom(ARRIVED))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom(ARRIVED))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Err(E::custom(ARRIVED))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom(ARRIVED))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom(ARRIVED))
    }
}
