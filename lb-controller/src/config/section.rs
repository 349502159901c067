//! Reading a section of the tree: every key is asked for by name, and what was not asked for is a mistake.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use lb_policy::closest_name;

use super::diagnostic::Diagnostic;
use super::tree::{Key, Node, Value};

/// The mistakes found so far. Shared by all who read, so that one mistake never ends the reading.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Diagnostic>>);

impl Problems {
    pub(super) fn report(&self, place: &Range<usize>, complaint: impl Into<Complaint>) {
        let Complaint { message, help } = complaint.into();
        self.0.borrow_mut().push(Diagnostic { place: Some(place.clone()), message, help });
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn into_list(self) -> Vec<Diagnostic> {
        self.0.into_inner()
    }
}

/// What is wrong with a value whose place is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), help: Some(help.into()) }
    }

    /// A name that is not among `known`.
    pub(super) fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Complaint {
        let known: Vec<&str> = known.into_iter().collect();
        let help = match closest_name(name, known.iter().copied()) {
            Some(close) => Some(format!("did you mean `{close}`?")),
            None if known.is_empty() => None,
            None => Some(format!("known: {}", known.join(", "))),
        };
        Complaint { message: format!("there is no {what} `{name}`"), help }
    }
}

impl From<&str> for Complaint {
    fn from(message: &str) -> Complaint {
        Complaint { message: message.to_owned(), help: None }
    }
}

impl From<String> for Complaint {
    fn from(message: String) -> Complaint {
        Complaint { message, help: None }
    }
}

/// The names that things of one kind have, whatever else is wrong with these things.
pub(super) struct Names {
    kind: &'static str,
    taken: HashSet<String>,
}

impl Names {
    pub(super) fn of(kind: &'static str) -> Names {
        Names { kind, taken: HashSet::new() }
    }

    pub(super) fn unique(&mut self, name: String) -> Result<String, Complaint> {
        if self.taken.insert(name.clone()) {
            Ok(name)
        } else {
            Err(format!("another {} has this name", self.kind).into())
        }
    }
}

/// A mapping being read.
pub(super) struct Section<'a> {
    /// For messages, with its article: "a pool".
    what: &'static str,
    place: Range<usize>,
    entries: &'a [(Key, Node)],
    asked: RefCell<Vec<&'static str>>,
    pub(super) problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// `None`, and a complaint, when the node is no mapping.
    pub(super) fn open(what: &'static str, node: &'a Node, problems: &'a Problems) -> Option<Section<'a>> {
        let Value::Map(entries) = &node.value else {
            problems.report(&node.place, format!("{what} is written as `key: value` lines"));
            return None;
        };
        for (index, (key, _)) in entries.iter().enumerate() {
            if entries[..index].iter().any(|(earlier, _)| earlier.name == key.name) {
                problems.report(&key.place, format!("`{}` is given twice", key.name));
            }
        }
        let place = entries.first().map_or(node.place.clone(), |(key, _)| key.place.clone());
        Some(Section { what, place, entries, asked: RefCell::default(), problems })
    }

    /// The value of a key that may be absent. A key without a value is a mistake: it says nothing either way.
    pub(super) fn get(&self, name: &'static str) -> Option<&'a Node> {
        if !self.asked.borrow().contains(&name) {
            self.asked.borrow_mut().push(name);
        }
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        if matches!(node.value, Value::Nothing) {
            self.problems.report(&key.place, format!("`{name}` has no value"));
            return None;
        }
        Some(node)
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, name: &'static str) -> Option<&'a Node> {
        let node = self.get(name);
        if !self.has(name) {
            self.problems.report(&self.place, format!("{} needs `{name}`", self.what));
        }
        node
    }

    /// Complains of a key, at its own place.
    pub(super) fn report_key(&self, name: &str, complaint: impl Into<Complaint>) {
        self.problems.report(&self.place_of(name), complaint);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// The entries of a list; a single value is a list of one.
    pub(super) fn list(&self, name: &'static str) -> &'a [Node] {
        match self.get(name) {
            None => &[],
            Some(Node { value: Value::List(nodes), .. }) => nodes,
            Some(node) => std::slice::from_ref(node),
        }
    }

    /// The entries of a list that must be there and must not be empty.
    pub(super) fn require_list(&self, name: &'static str) -> &'a [Node] {
        match self.require(name) {
            None => &[],
            Some(Node { value: Value::List(nodes), place }) => {
                if nodes.is_empty() {
                    self.problems.report(place, format!("`{name}` is empty"));
                }
                nodes
            }
            Some(node) => std::slice::from_ref(node),
        }
    }

    /// Where a key stands; where the section begins if it is not there.
    pub(super) fn place_of(&self, name: &str) -> Range<usize> {
        let key = self.entries.iter().find(|(key, _)| key.name == name);
        key.map_or_else(|| self.place.clone(), |(key, _)| key.place.clone())
    }

    /// All entries, for a section whose keys are names of the author's choosing.
    pub(super) fn entries(&self) -> &'a [(Key, Node)] {
        self.entries
    }

    /// An optional value, read by `read`; `None` also when it could not be.
    pub(super) fn value<T>(&self, name: &'static str, read: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<T> {
        self.get(name)?.read(self.problems, read)
    }

    /// A required value, read by `read`.
    pub(super) fn required_value<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Option<T> {
        self.require(name)?.read(self.problems, read)
    }

    /// Every entry of a list, read by `read`; those that could not be are left out.
    pub(super) fn values<T>(&self, name: &'static str, read: impl Fn(&str) -> Result<T, Complaint>) -> Vec<T> {
        self.list(name).iter().filter_map(|node| node.read(self.problems, &read)).collect()
    }

    /// Complains of every key that nobody asked for. To be called when all keys have been asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.entries.iter().filter(|(key, _)| !asked.contains(&key.name.as_str())) {
            let mut complaint = Complaint::unknown("key", &key.name, asked.iter().copied());
            complaint.message = format!("{} has no key `{}`", self.what, key.name);
            self.problems.report(&key.place, complaint);
        }
    }
}

impl Node {
    /// The text of a scalar; a complaint for anything else.
    pub(super) fn text(&self, problems: &Problems) -> Option<&str> {
        match &self.value {
            Value::Text(text) => return Some(text),
            Value::Nothing => problems.report(&self.place, "a value is missing here"),
            Value::List(_) => problems.report(&self.place, "one value is meant here, not a list"),
            Value::Map(_) => problems.report(&self.place, "one value is meant here, not `key: value` lines"),
        }
        None
    }

    pub(super) fn read<T>(&self, problems: &Problems, read: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<T> {
        read(self.text(problems)?).map_err(|complaint| problems.report(&self.place, complaint)).ok()
    }
}
