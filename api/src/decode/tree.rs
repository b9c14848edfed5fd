//! Text to a tree of JSON values, with the paths of keys that are given twice.
//!
//! Keys that are numbers or booleans become strings, as kubectl does it, and YAML's merge key `<<`
//! is applied. The first of two equal keys counts.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{DecodeError, Location};
use super::path::{FieldPath, Segment};

type Tree = (Value, Vec<FieldPath>);

pub(super) fn from_yaml(text: &str) -> Result<Tree, DecodeError> {
    build(serde_norway::Deserializer::from_str(text)).map_err(|error| DecodeError::Syntax {
        message: error.to_string(),
        location: error.location().map(|at| Location { line: at.line(), column: at.column() }),
    })
}

pub(super) fn from_json(text: &str) -> Result<Tree, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    build(&mut deserializer).and_then(|tree| deserializer.end().map(|()| tree)).map_err(|error| DecodeError::Syntax {
        message: error.to_string(),
        location: Some(Location { line: error.line(), column: error.column() }),
    })
}

fn build<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
    let mut found = Found::default();
    let value = Node(&mut found).deserialize(deserializer)?;
    Ok((value, found.duplicates))
}

/// Where the walk is, and the doubled keys that it met.
#[derive(Default)]
struct Found {
    path: Vec<Segment>,
    duplicates: Vec<FieldPath>,
}

struct Node<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a YAML tag")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.0.path.push(Segment::Index(list.len()));
            let element = elements.next_element_seed(Node(self.0))?;
            self.0.path.pop();
            match element {
                Some(element) => list.push(element),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(Key(key)) = entries.next_key()? {
            self.0.path.push(Segment::Field(key.clone()));
            let value = entries.next_value_seed(Node(self.0))?;
            if key == "<<" {
                merged.push(value);
            } else if map.contains_key(&key) {
                self.0.duplicates.push(FieldPath(self.0.path.clone()));
            } else {
                map.insert(key, value);
            }
            self.0.path.pop();
        }
        for value in merged {
            merge(&mut map, value).map_err(de::Error::custom)?;
        }
        Ok(Value::Object(map))
    }
}

/// Adds what a merge key holds: a map or a list of maps. What is there already stays.
fn merge(map: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(maps) => maps.into_iter().try_for_each(|value| merge(map, value)),
        _ => Err("a merge key `<<` must hold a map or a list of maps"),
    }
}

/// A key of a map, as a string whatever it was.
struct Key(String);

impl<'de> de::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key that is a string, a number or a boolean")
            }

            fn visit_str<E>(self, value: &str) -> Result<Key, E> {
                Ok(Key(value.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Key, E> {
                Ok(Key(value.to_string()))
            }
        }

        deserializer.deserialize_any(KeyVisitor)
    }
}
