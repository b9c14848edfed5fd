//! Columns of tables: what a cell shows of an object.

use jiff::Timestamp;
use serde_json::Value;

use crate::age::age;
use crate::json_path::JsonPath;
use crate::table::one_line;

/// A column of a kind's table, after the name.
#[derive(Debug)]
pub struct Column {
    /// Name; the header in capitals.
    pub name: &'static str,
    /// Whether only the wide table has it.
    pub wide: bool,
    /// What it shows.
    pub cell: Cell,
    /// Where the value is, as a JSONPath.
    pub path: &'static str,
}

/// What a cell shows of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// The value.
    Text,
    /// How long ago the time was.
    Age,
    /// How many entries the map has.
    Count,
    /// The object that is referred to.
    Object,
}

/// A column of each table.
pub const fn column(name: &'static str, cell: Cell, path: &'static str) -> Column {
    Column { name, wide: false, cell, path }
}

/// A column of the wide table only.
pub const fn wide(name: &'static str, cell: Cell, path: &'static str) -> Column {
    Column { name, wide: true, cell, path }
}

impl Column {
    /// What the cell of an object says.
    pub fn text(&self, object: &Value, now: Timestamp) -> String {
        // The test sees to it that each path can be read.
        let path = JsonPath::parse(self.path);
        let value = path.as_ref().and_then(|path| path.find(object)).unwrap_or(&Value::Null);
        match (self.cell, value) {
            (Cell::Age, time) => age(time.as_str().unwrap_or_default(), now),
            (Cell::Count, map) => map.as_object().map_or(0, serde_json::Map::len).to_string(),
            (Cell::Object, object) => {
                let text = |field: &str| object[field].as_str().unwrap_or_default();
                format!("{}/{}", text("kind").to_lowercase(), text("name"))
            }
            (Cell::Text, Value::Null) => String::new(),
            (Cell::Text, Value::String(text)) => one_line(text),
            (Cell::Text, other) => other.to_string(),
        }
    }
}
