//! The path of a field within an object.

use std::fmt;

use serde_json::Value;

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A field of an object, or a key of a map.
    Field(String),
    /// An element of a list, from 0.
    Index(usize),
}

/// Path of a field from the root of its object; displayed as `spec.volumes[0].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(pub Vec<Segment>);

impl FieldPath {
    /// The path of the field `name` below this one.
    pub fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// The path without the indices of lists: `spec.volumes.name`.
    pub fn without_indices(&self) -> Self {
        let fields = self.0.iter().filter(|s| matches!(s, Segment::Field(_)));
        Self(fields.cloned().collect())
    }

    /// What is found there in `tree`.
    pub(crate) fn find<'a>(&self, tree: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(tree, |value, segment| match segment {
            Segment::Field(name) => value.get(name),
            Segment::Index(index) => value.get(index),
        })
    }

    pub(super) fn of_ignored(path: &serde_ignored::Path<'_>) -> Self {
        use serde_ignored::Path;
        match path {
            Path::Root => Self::default(),
            Path::Seq { parent, index } => Self::of_ignored(parent).with(Segment::Index(*index)),
            Path::Map { parent, key } => Self::of_ignored(parent).field(key),
            Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
                Self::of_ignored(parent)
            }
        }
    }

    pub(super) fn of_error(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment as Step;
        let segments = path.iter().filter_map(|step| match step {
            Step::Seq { index } => Some(Segment::Index(*index)),
            Step::Map { key } | Step::Enum { variant: key } => Some(Segment::Field(key.clone())),
            Step::Unknown => None,
        });
        Self(segments.collect())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if position == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
