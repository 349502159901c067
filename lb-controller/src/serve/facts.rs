//! Gathers what a decision looks at. The body is read only where a rule looks into it; what is read is what is forwarded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lb_policy::{
    BodyError, BodyFacts, ClientFacts, Facts, HeaderLookup, Level, NO_PARAMETERS, ProvableFactors, ProvedFactor,
    QueryParameters, RequestFacts, RouteFacts, RuleSet, UnixSeconds,
};

use crate::config::Config;
use crate::edge::Edge;
use crate::serve::body::ClientBody;
use crate::serve::body_memory::BodyMemory;
use crate::serve::client_certificate::ClientCertificate;
use crate::serve::request::{Inbound, InboundBody};
use crate::serve::respond::{self, Early, Refusal};
use crate::serve::tls::TlsClass;
use crate::signals::{Observed, Sender};
use crate::stepup::Session;

/// The whole of an inspected body must have arrived within this; it is small, and a worker's memory waits for it.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// Reads the body as far as the rules need it. A body that no rule looks into goes on streaming, unread.
pub async fn read_body(
    rules: &RuleSet,
    memory: &Arc<BodyMemory>,
    request: &mut Inbound,
    session: Option<&Session>,
) -> Result<BodyFacts, Early> {
    let Some(needs) = rules.body_needs(&request_facts(request, &NO_PARAMETERS)) else {
        return Ok(BodyFacts::default());
    };
    let headers = &request.headers;
    let length = announced_bytes(headers);
    // Before the first byte is asked for: a client that waits for 100 Continue is told no without sending its body.
    needs.check_headers(content_type(headers), content_encoding(headers), length).map_err(unfit)?;
    let max_bytes = length.unwrap_or(needs.max_bytes).min(needs.max_bytes);
    let bytes = hold_body(memory, request.take_body(), max_bytes, session.is_none()).await?;
    let mut facts = needs.read(content_type(&request.headers), &bytes).map_err(unfit)?;
    request.body = InboundBody::Whole(bytes);
    needs.read_query(request.raw_query(), &mut facts).map_err(unfit)?;
    Ok(facts)
}

fn unfit(error: BodyError) -> Early {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    respond::problem(status, "body", "The body cannot be judged", &error.to_string()).into()
}

/// The body in memory, counted against what all bodies may take while it is.
pub(super) async fn hold_body(
    memory: &Arc<BodyMemory>,
    body: InboundBody,
    max_bytes: u64,
    is_strangers: bool,
) -> Result<Bytes, Early> {
    let incoming = match body {
        InboundBody::Whole(bytes) => return Ok(bytes),
        InboundBody::Streaming(incoming) => incoming,
    };
    let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let place = memory.reserve(most, is_strangers).ok_or(Refusal::TooManyBodies)?;
    Ok(place.hold(Box::pin(read_whole(incoming, max_bytes)).await?))
}

/// The length the client gave; the guard lets only well-formed ones through.
pub(super) fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    only_value(headers, header::CONTENT_LENGTH.as_str())?.parse().ok()
}

/// The whole body, or a refusal: never a prefix of it.
async fn read_whole(incoming: ClientBody, max_bytes: u64) -> Result<Bytes, Early> {
    let limited = Limited::new(incoming, usize::try_from(max_bytes).unwrap_or(usize::MAX));
    match tokio::time::timeout(BODY_WITHIN, limited.collect()).await {
        Err(_) => Err(Refusal::ClientTooSlow.into()),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(unfit(BodyError::TooLarge { max_bytes })),
        Ok(Err(_)) => Err(Refusal::Malformed("The request body broke off.").into()),
    }
}

/// Who sends the request, and what they have proved or could.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    pub session: Option<&'a Session>,
    /// In the transaction that resumes this very request.
    pub proved_for_this_request: &'a [ProvedFactor],
    pub provable: &'a dyn ProvableFactors,
}

/// What was found out about one request beside what it says.
pub struct Findings<'a> {
    pub body: &'a BodyFacts,
    /// See [`parameters`].
    pub parameters: &'a QueryParameters,
    pub observed: &'a Observed,
    /// Rules that this client did work for, and when.
    pub worked: &'a [(String, UnixSeconds)],
}

/// Puts the facts together; they borrow from the request that will be forwarded.
pub fn gather<'a>(
    now: UnixSeconds,
    config: &'a Config,
    request: &'a Inbound,
    who: Who<'a>,
    findings: &Findings<'a>,
    route: RouteFacts<'a>,
) -> Facts<'a> {
    Facts {
        now,
        levels: &config.step_up.levels,
        request: request_facts(request, findings.parameters),
        client: ClientFacts {
            certificate: request.certificate.as_deref().map(ClientCertificate::facts),
            tls_class: request.tls_class.as_ref().map(TlsClass::as_str),
            worked: findings.worked,
            ..findings.observed.client(ClientFacts::at(request.client.address))
        },
        session: who.session.map(Session::facts),
        proved_for_this_request: who.proved_for_this_request,
        provable: who.provable,
        body: findings.body,
        route,
        api_key: who.session.and_then(Session::api_key),
        observed: findings.observed.facts(),
    }
}

/// Who sends the request, for counting and for what was learned of them.
pub fn sender(edge: &Edge, config: &Config, request: &Inbound, session: Option<&Session>) -> Sender {
    let levels = &config.step_up.levels;
    Sender {
        address: request.client.address,
        user: session.map(Session::user_key),
        session: session.map(Session::login_id),
        device: edge.step_up.device_id(request, session),
        is_trusted: session.is_some_and(|session| session.level(levels, edge.clock.now()) >= Level(2)),
    }
}

/// The parameters of the query, where a rule goes by one.
pub fn parameters(rules: &RuleSet, request: &Inbound) -> QueryParameters {
    if rules.reads_query_parameters() {
        QueryParameters::parse(request.raw_query())
    } else {
        QueryParameters::default()
    }
}

pub fn request_facts<'a>(request: &'a Inbound, parameters: &'a QueryParameters) -> RequestFacts<'a> {
    RequestFacts {
        method: request.method.as_str(),
        host: &request.host,
        path: &request.path,
        query: request.raw_query(),
        parameters,
        headers: request,
    }
}

impl HeaderLookup for Inbound {
    fn header(&self, lower_case_name: &str) -> Option<&str> {
        only_value(&self.headers, lower_case_name)
    }

    fn has(&self, lower_case_name: &str) -> bool {
        self.headers.contains_key(lower_case_name)
    }
}

/// A repeated header is absent: two values would let the rule see one and the backend believe the other.
pub fn only_value<'h>(headers: &'h HeaderMap, lower_case_name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(lower_case_name).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => only.to_str().ok(),
        _ => None,
    }
}

pub fn content_type(headers: &HeaderMap) -> Option<&str> {
    only_value(headers, header::CONTENT_TYPE.as_str())
}

/// One that came twice is as good as unreadable: the backend may go by the one that the rules do not see, and there are
/// compressed bytes that are plain text too.
fn content_encoding(headers: &HeaderMap) -> Option<&str> {
    let name = header::CONTENT_ENCODING;
    headers.contains_key(&name).then(|| only_value(headers, name.as_str()).unwrap_or("unreadable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_encoding_is_seen_however_often_it_came() {
        type Row = (&'static str, &'static [&'static [u8]], Option<&'static str>);
        let rows: &[Row] = &[
            ("none", &[], None),
            ("one", &[b"gzip"], Some("gzip")),
            ("one hidden behind another", &[b"identity", b"deflate"], Some("unreadable")),
            ("one that is no text", &[b"gz\xffip"], Some("unreadable")),
        ];
        for (name, values, expected) in rows {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(header::CONTENT_ENCODING, http::HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(content_encoding(&headers), *expected, "{name}");
        }
    }
}
