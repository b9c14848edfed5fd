//! XML as a tree that can be compared whatever the order of attributes and children.

use std::collections::{BTreeMap, BTreeSet};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    pub fn parse(xml: &str) -> Self {
        let mut reader = Reader::from_str(xml);
        let mut open: Vec<Element> = vec![Element::default()];
        loop {
            match reader.read_event().unwrap() {
                Event::Start(start) => open.push(Self::begin(&start)),
                Event::Empty(start) => open.last_mut().unwrap().children.push(Self::begin(&start)),
                Event::End(_) => {
                    let done = open.pop().unwrap();
                    open.last_mut().unwrap().children.push(done);
                }
                Event::Text(text) => open.last_mut().unwrap().text.push_str(text.trim()),
                Event::Eof => return open.pop().unwrap().children.pop().unwrap(),
                _ => {}
            }
        }
    }

    fn begin(start: &BytesStart<'_>) -> Self {
        let attribute = |attribute: quick_xml::events::attributes::Attribute<'_>| {
            (attribute.key.as_ref().to_owned(), attribute.value.into_owned())
        };
        Self {
            name: start.name().as_ref().to_owned(),
            attributes: start.attributes().map(|found| attribute(found.unwrap())).collect(),
            ..Self::default()
        }
    }

    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Changes this element and all below it, given the path of each (`domain/devices/disk`); false drops it.
    pub fn prune(&mut self, above: &str, keep: &mut impl FnMut(&str, &mut Element) -> bool) -> bool {
        let path = if above.is_empty() { self.name.clone() } else { format!("{above}/{}", self.name) };
        if !keep(&path, self) {
            return false;
        }
        self.children.retain_mut(|child| child.prune(&path, keep));
        self.children.sort();
        true
    }

    fn lines(&self, above: &str, into: &mut BTreeSet<String>) {
        let mut label = self.name.clone();
        // What tells one device from another of its kind.
        for child in ["alias", "target"] {
            if let Some(child) = self.child(child) {
                label.push_str(&format!("[{}{}]", child.attribute("name"), child.attribute("dev")));
            }
        }
        for key in ["type", "index", "name", "id"] {
            if let Some(value) = self.attributes.get(key) {
                label.push_str(&format!("[{value}]"));
            }
        }
        let path = format!("{above}/{label}");
        into.insert(format!("{path} = {:?}", self.text));
        for (name, value) in &self.attributes {
            into.insert(format!("{path}@{name} = {value:?}"));
        }
        for child in &self.children {
            child.lines(&path, into);
        }
    }

    /// Each thing that one has and the other has not.
    pub fn differences(&self, other: &Element) -> Vec<String> {
        let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
        self.lines("", &mut left);
        other.lines("", &mut right);
        let only_left = left.difference(&right).map(|line| format!("- {line}"));
        only_left.chain(right.difference(&left).map(|line| format!("+ {line}"))).collect()
    }
}
