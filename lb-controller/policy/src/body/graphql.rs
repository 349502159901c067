//! GraphQL over HTTP: which operation a request runs, and on which fields.
//!
//! Clients choose the name of an operation as they like, so rules that protect something go by its fields.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use apollo_parser::Parser;
use apollo_parser::cst::{Definition, Document, FragmentDefinition, OperationDefinition, Selection, SelectionSet};

use super::json::Json;
use super::{BodyError, Found, Pointer, form};

/// Documents with more words, or nested deeper, are refused.
const MOST_TOKENS: usize = 10_000;
const MOST_DEPTH: usize = 64;
/// Top-level fields, those of fragments included.
const MOST_FIELDS: usize = 256;

/// The operation that one request runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphQlOperation {
    /// `query`, `mutation` or `subscription`.
    pub(crate) operation_type: &'static str,
    pub(crate) name: Option<String>,
    /// The fields of the top level by their names in the schema, whatever aliases they were given.
    pub(crate) fields: Vec<String>,
}

/// Reads the operation from a JSON request (GraphQL over HTTP §5). `None` where there is no query, as when it was stored
/// under a hash before.
pub(super) fn read(document: &Json<'_>) -> Result<Option<GraphQlOperation>, BodyError> {
    if matches!(document, Json::Array(_)) {
        return refuse("a batch of GraphQL requests; send them one by one");
    }
    let Some(query) = text_at(document, "/query")? else { return Ok(None) };
    let wanted = text_at(document, "/operationName")?;
    operation(&query, wanted.as_deref()).map(Some)
}

/// Reads the operation from the query of a URL, where a GET has it (GraphQL over HTTP §6.1), and where some servers look
/// first whatever the method. `None`: it has none.
pub(super) fn read_query(query: &str) -> Result<Option<GraphQlOperation>, BodyError> {
    let unclear = |_| BodyError::Query { problem: "it can be read in two ways" };
    let fields = form::parse(query.as_bytes()).map_err(unclear)?;
    let parameter = |name| form::named(&fields, name).map_err(|_| unclear(BodyError::Encoded));
    let (document, wanted) = (parameter("query")?, parameter("operationName")?);
    let Some(document) = document else { return Ok(None) };
    let in_query = |error| match error {
        BodyError::Malformed { problem, .. } => BodyError::Query { problem },
        other => other,
    };
    operation(document, wanted.filter(|name| !name.is_empty())).map(Some).map_err(in_query)
}

fn text_at(document: &Json<'_>, pointer: &str) -> Result<Option<String>, BodyError> {
    let pointer = Pointer::parse(pointer).map_err(|problem| BodyError::Malformed { offset_bytes: 0, problem })?;
    match document.find(&pointer)? {
        Found::Nothing => Ok(None),
        Found::Text(text) => Ok(Some(text.into_owned())),
        _ => refuse("`query` and `operationName` are texts in GraphQL"),
    }
}

fn operation(query: &str, wanted: Option<&str>) -> Result<GraphQlOperation, BodyError> {
    let tree = Parser::new(query).token_limit(MOST_TOKENS).recursion_limit(MOST_DEPTH).parse();
    if tree.errors().next().is_some() {
        return refuse("the GraphQL document is not valid");
    }
    let document = tree.document();
    let operations: Vec<OperationDefinition> = document.definitions().filter_map(operation_of).collect();
    let is_wanted = |operation: &&OperationDefinition| wanted == name_of(operation).as_deref();
    let mut candidates = operations.iter().filter(|operation| wanted.is_none() || is_wanted(operation));
    let (Some(operation), None) = (candidates.next(), candidates.next()) else {
        return refuse("which GraphQL operation is meant cannot be told");
    };
    let operation_type = match operation.operation_type() {
        None => "query",
        Some(kind) if kind.query_token().is_some() => "query",
        Some(kind) if kind.mutation_token().is_some() => "mutation",
        Some(_) => "subscription",
    };
    let mut collector = Collector { document: &document, fields: Vec::new(), fragments: Vec::new() };
    collector.collect(operation.selection_set())?;
    Ok(GraphQlOperation { operation_type, name: name_of(operation), fields: collector.fields })
}

fn operation_of(definition: Definition) -> Option<OperationDefinition> {
    match definition {
        Definition::OperationDefinition(operation) => Some(operation),
        _ => None,
    }
}

fn name_of(operation: &OperationDefinition) -> Option<String> {
    operation.name().map(|name| name.text().to_string())
}

/// Gathers the fields of one selection, through fragments.
struct Collector<'a> {
    document: &'a Document,
    fields: Vec<String>,
    /// Those that were gone through already: fragments may name one another in a circle.
    fragments: Vec<String>,
}

impl Collector<'_> {
    fn collect(&mut self, selections: Option<SelectionSet>) -> Result<(), BodyError> {
        for selection in selections.into_iter().flat_map(|set| set.selections()) {
            match selection {
                Selection::Field(field) => {
                    let name = field.name().map(|name| name.text().to_string()).unwrap_or_default();
                    if !self.fields.contains(&name) {
                        self.fields.push(name);
                    }
                }
                Selection::InlineFragment(fragment) => self.collect(fragment.selection_set())?,
                Selection::FragmentSpread(spread) => {
                    let name = spread.fragment_name().and_then(|fragment| fragment.name());
                    self.follow(&name.map(|name| name.text().to_string()).unwrap_or_default())?;
                }
            }
            if self.fields.len() > MOST_FIELDS {
                return refuse("more than 256 fields at the top of a GraphQL operation");
            }
        }
        Ok(())
    }

    fn follow(&mut self, name: &str) -> Result<(), BodyError> {
        if self.fragments.iter().any(|known| known == name) {
            return Ok(());
        }
        if self.fragments.len() >= MOST_DEPTH {
            return refuse("more than 64 GraphQL fragments");
        }
        self.fragments.push(name.to_owned());
        let mut named = self.document.definitions().filter_map(fragment_of).filter(|fragment| {
            let own = fragment.fragment_name().and_then(|fragment| fragment.name());
            own.is_some_and(|own| own.text().as_str() == name)
        });
        // Two of one name would be two meanings.
        let (Some(fragment), None) = (named.next(), named.next()) else {
            return refuse("a GraphQL fragment that is not there, or there twice");
        };
        self.collect(fragment.selection_set())
    }
}

fn fragment_of(definition: Definition) -> Option<FragmentDefinition> {
    match definition {
        Definition::FragmentDefinition(fragment) => Some(fragment),
        _ => None,
    }
}

fn refuse<T>(problem: &'static str) -> Result<T, BodyError> {
    Err(BodyError::Malformed { offset_bytes: 0, problem })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use proptest::prelude::*;

    use super::super::json;
    use super::*;

    fn shown(body: &str) -> String {
        let document = json::parse(body.as_bytes()).unwrap();
        match read(&document) {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(operation)) => format!(
                "{} {} {}",
                operation.operation_type,
                operation.name.as_deref().unwrap_or("-"),
                operation.fields.join("+")
            ),
            Err(BodyError::Malformed { problem, .. }) => problem.to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_operation_is_what_the_server_would_run() {
        let unclear = "which GraphQL operation is meant cannot be told";
        let invalid = "the GraphQL document is not valid";
        #[rustfmt::skip]
        let rows = [
            ("the short form is a query", r#"{"query": "{ me { name } orders }"}"#, "query - me+orders"),
            ("a named one", r#"{"query": "mutation Pay($a: Int!) { pay(a: $a) { id } }"}"#, "mutation Pay pay"),
            ("an alias hides nothing", r#"{"query": "mutation { harmless: deleteAll }"}"#, "mutation - deleteAll"),
            ("a field twice is one", r#"{"query": "{ a: me b: me }"}"#, "query - me"),
            ("an inline fragment is looked through", r#"{"query": "mutation { ... on Mutation { deleteAll } ... { ping } }"}"#, "mutation - deleteAll+ping"),
            ("a fragment is looked through", r#"{"query": "mutation { ...F } fragment F on Mutation { deleteAll ...G } fragment G on Mutation { ping }"}"#, "mutation - deleteAll+ping"),
            ("a circle of fragments ends", r#"{"query": "{ ...F } fragment F on Query { me ...F }"}"#, "query - me"),
            ("a fragment that is not there", r#"{"query": "{ ...F }"}"#, "a GraphQL fragment that is not there, or there twice"),
            ("a fragment twice", r#"{"query": "{ ...F } fragment F on Q { a } fragment F on Q { b }"}"#, "a GraphQL fragment that is not there, or there twice"),
            ("a directive may leave a field out, and it counts all the same", r#"{"query": "mutation { deleteAll @skip(if: true) }"}"#, "mutation - deleteAll"),
            ("the named one of several", r#"{"query": "query A { a } mutation B { b }", "operationName": "B"}"#, "mutation B b"),
            ("several and no name", r#"{"query": "query A { a } mutation B { b }"}"#, unclear),
            ("a name that is not there", r#"{"query": "query A { a }", "operationName": "B"}"#, unclear),
            ("a name twice", r#"{"query": "query A { a } mutation A { b }", "operationName": "A"}"#, unclear),
            ("null is no name", r#"{"query": "query A { a }", "operationName": null}"#, "query A a"),
            ("no operation", r#"{"query": "fragment F on Q { a }"}"#, unclear),
            ("a subscription", r#"{"query": "subscription { news }"}"#, "subscription - news"),
            ("words in a text are no fields", r#"{"query": "{ say(text: \"} mutation { deleteAll }\") }"}"#, "query - say"),
            ("words in a comment neither", r#"{"query": "{ me # } mutation { deleteAll }\n }"}"#, "query - me"),
            ("no query", r#"{"extensions": {"persistedQuery": {}}}"#, "nothing"),
            ("a query that is no text", r#"{"query": 7}"#, "`query` and `operationName` are texts in GraphQL"),
            ("a query in capitals beside it", r#"{"query": "{ a }", "Query": "mutation { b }"}"#, "the body has a name that could be mistaken for /query"),
            ("a batch", r#"[{"query": "{ a }"}]"#, "a batch of GraphQL requests; send them one by one"),
            ("not closed", r#"{"query": "{ me"}"#, invalid),
            ("empty", r#"{"query": ""}"#, invalid),
        ];
        for (name, body, expected) in rows {
            let shown = shown(body);
            // A parser may see no mistake in an empty document; it has no operation either.
            let alike = shown == expected || expected == invalid && shown == unclear;
            assert!(alike, "{name}: {shown}");
        }
    }

    #[test]
    fn an_operation_in_the_url_is_one_too() {
        let unclear = Err(BodyError::Query { problem: "it can be read in two ways" });
        let fields = |fields: &[&str]| Ok(Some(fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>()));
        let rows = [
            ("none", "", Ok(None)),
            ("other parameters", "page=2", Ok(None)),
            ("a stored one", "extensions=%7B%7D", Ok(None)),
            ("a query", "query=%7Bme%20orders%7D", fields(&["me", "orders"])),
            ("a plus is a space", "query={me+orders}", fields(&["me", "orders"])),
            ("a mutation", "query=mutation{harmless:deleteAll}", fields(&["deleteAll"])),
            ("the named one", "query=query+A{a}mutation+B{b}&operationName=B", fields(&["b"])),
            ("an empty name is none", "query={me}&operationName=", fields(&["me"])),
            ("twice", "query={me}&query=mutation{deleteAll}", unclear.clone()),
            ("in capitals beside it", "query={me}&Query=mutation{deleteAll}", unclear.clone()),
            ("as a list beside it", "query={me}&query[]=mutation{deleteAll}", unclear.clone()),
            ("a broken escape", "query=%zz", unclear.clone()),
            ("parts set apart in two ways", "query={me};query=mutation{deleteAll}", unclear),
            ("no GraphQL", "query={", Err(BodyError::Query { problem: "the GraphQL document is not valid" })),
        ];
        for (name, query, expected) in rows {
            assert_eq!(read_query(query).map(|operation| operation.map(|one| one.fields)), expected, "{name}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let deep = format!(r#"{{"query": "{}"}}"#, "{a".repeat(5_000));
        assert_eq!(shown(&deep), "the GraphQL document is not valid");
        let wide = format!(r#"{{"query": "{{ {} }}"}}"#, "a ".repeat(20_000));
        assert_eq!(shown(&wide), "the GraphQL document is not valid");
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(query in "(\\{|\\}|\\.\\.\\.|[a-z]{1,3}|mutation|fragment|on|\\(|\\)|:|@|#|\n| ){0,32}") {
            let _ = operation(&query, None);
        }
    }
}
