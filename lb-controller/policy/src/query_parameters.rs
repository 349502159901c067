//! Parameters of the query by name: `request.query["page"]`.

use crate::body::{Ambiguous, FormFields, form_field, parse_form};

/// The parameters of one request, read as strictly as an HTML form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryParameters(Parameters);

#[derive(Clone, Debug, PartialEq)]
enum Parameters {
    Read(FormFields),
    /// A backend may read it in another way than we would.
    Unclear,
}

impl Default for Parameters {
    fn default() -> Parameters {
        Parameters::Read(FormFields::new())
    }
}

/// What a request without a query has.
pub static NO_PARAMETERS: QueryParameters = QueryParameters(Parameters::Read(FormFields::new()));

/// Longer queries are not searched.
const MOST_BYTES: usize = 8 * 1024;

impl QueryParameters {
    /// `query` as [`crate::canonical_query`] gives it. A query that two readers could read in two ways has no parameter
    /// that rules could go by: one comes twice, an escape is broken, `;` sets parts apart.
    pub fn parse(query: &str) -> QueryParameters {
        if query.len() > MOST_BYTES {
            return QueryParameters(Parameters::Unclear);
        }
        QueryParameters(parse_form(query.as_bytes()).map_or(Parameters::Unclear, Parameters::Read))
    }

    /// `None` when it is absent, or could be mistaken.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        match &self.0 {
            Parameters::Read(fields) => form_field(fields, name).ok().flatten(),
            Parameters::Unclear => None,
        }
    }

    /// Whether it came, in whatever form; `None`: that cannot be told.
    pub(crate) fn is_present(&self, name: &str) -> Option<bool> {
        match &self.0 {
            Parameters::Read(fields) => Some(match form_field(fields, name) {
                Ok(value) => value.is_some(),
                Err(Ambiguous) => true,
            }),
            Parameters::Unclear => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_read_in_one_way_or_missing() {
        let rows = [
            ("", None, Some(false)),
            ("page=2", Some("2"), Some(true)),
            ("a=b&page=a+b%2Fc", Some("a b/c"), Some(true)),
            ("page", Some(""), Some(true)),
            ("pages=2", None, Some(false)),
            ("Page=2", None, Some(true)),
            ("page=1&page[]=2", None, Some(true)),
            ("page=1&page=2", None, None),
            ("page=1;all=1", None, None),
            ("page=%zz", None, None),
            ("page=é", None, None),
        ];
        for (query, value, is_present) in rows {
            let parameters = QueryParameters::parse(query);
            assert_eq!((parameters.value("page"), parameters.is_present("page")), (value, is_present), "{query}");
        }
    }
}
