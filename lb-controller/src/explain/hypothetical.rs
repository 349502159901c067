//! A request that is only described, in the terms of a `curl` command.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue};
use lb_policy::{
    BodyFacts, CanonicalPath, ClientFacts, Everything, Facts, HeaderLookup, Method, ProvedFactor, QueryParameters,
    RequestFacts, RouteFacts, SessionFacts, Strength, UnixSeconds, canonical_host, canonical_query,
};
use serde::{Deserialize, Serialize};

use super::given::Given;
use super::{Explained, Taken};
use crate::config::Config;
use crate::serve::{facts, route};
use crate::signals::device_class;

/// What to explain.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hypothetical {
    /// `None`: GET, or POST with data, as curl does it.
    pub method: Option<String>,
    /// `https://host/path?query`.
    pub url: String,
    /// `Name: value`.
    pub headers: Vec<String>,
    pub data: Option<String>,
    /// Logged in as this user; `None`: nobody.
    pub user: Option<String>,
    /// Proved factors and their ages in seconds, besides the login password at age 0.
    pub proved: Vec<(String, u64)>,
    /// `None`: 127.0.0.1.
    pub from: Option<IpAddr>,
    /// Facts by the names under which rules know them, such as `client.country`; what is not given is not known.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Unix seconds; `None`: now.
    #[serde(default)]
    pub at: Option<UnixSeconds>,
}

impl Hypothetical {
    /// Runs the request through the same canonicalisation, routes, body reading and rules as a real one.
    pub fn explain(&self, config: &Config, now: UnixSeconds) -> anyhow::Result<Explained> {
        let now = self.at.unwrap_or(now);
        let url = Url::parse(&self.url)?;
        let headers = self.header_map()?;
        let method = self.method_name();
        let host = canonical_host(url.authority).map_err(|error| anyhow::anyhow!("host {}: {error}", url.authority))?;
        let path = CanonicalPath::parse(url.path).map_err(|error| anyhow::anyhow!("path {}: {error}", url.path))?;
        let lookup = Headers(&headers);
        let query = canonical_query(url.query);
        let parameters = QueryParameters::parse(&query);
        let request = RequestFacts {
            method: &method,
            host: &host,
            path: path.judged(),
            query: &query,
            parameters: &parameters,
            headers: &lookup,
        };
        let route = route::matching(config, &request)
            .with_context(|| format!("no route takes {method} {host}{}; the answer would be 404", path.judged()))?;
        let body = self.body_facts(config, &request, &headers)?;
        let given = Given::read(&self.facts, config)?;
        let factors = self.factors(now)?;
        let groups = self.groups(config, &given)?;
        let begun_at = now.saturating_sub(given.session_age_seconds);
        let session = |user| SessionFacts { issuer: None, user, groups, factors: &factors, begun_at };
        let address = self.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let client = ClientFacts { device_class: device_class(&lookup), ..ClientFacts::at(address) };
        let facts = Facts {
            now,
            levels: &config.step_up.levels,
            request,
            client: given.client(client),
            session: self.user.as_deref().map(session),
            proved_for_this_request: &[],
            provable: &Everything,
            body: &body,
            route: RouteFacts { is_public: route.public, labels: &route.labels },
            api_key: given.api_key(now),
            observed: given.observed(),
        };
        Ok(Explained::of(&config.rules, &facts, Taken::of(route, path.forwarded()), None))
    }

    fn method_name(&self) -> String {
        match &self.method {
            Some(method) => method.to_ascii_uppercase(),
            None => if self.data.is_some() { "POST" } else { "GET" }.to_owned(),
        }
    }

    fn header_map(&self) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            let (name, value) = line.split_once(':').with_context(|| format!("header {line:?} lacks a colon"))?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).with_context(|| format!("header {line:?}"))?;
            let value = HeaderValue::from_str(value.trim()).with_context(|| format!("header {line:?}"))?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn body_facts(
        &self,
        config: &Config,
        request: &RequestFacts<'_>,
        headers: &HeaderMap,
    ) -> anyhow::Result<BodyFacts> {
        let Some(needs) = config.rules.body_needs(request) else { return Ok(BodyFacts::default()) };
        let data = self.data.as_deref().unwrap_or_default().as_bytes();
        // A bare `-d '{…}'` means JSON here: whoever explains a rule on a JSON body should not have to spell the header.
        let looks_like_json = data.trim_ascii_start().starts_with(b"{");
        let fallback = if looks_like_json { "application/json" } else { "application/x-www-form-urlencoded" };
        let content_type = facts::content_type(headers).or((!data.is_empty()).then_some(fallback));
        let refused = |error| anyhow::anyhow!("the request would be refused: {error}");
        let mut facts = needs.read(content_type, data).map_err(refused)?;
        needs.read_query(request.query, &mut facts).map_err(refused)?;
        Ok(facts)
    }

    fn factors(&self, now: UnixSeconds) -> anyhow::Result<Vec<ProvedFactor>> {
        let mut factors = vec![ProvedFactor::ordinary(Method::Password, now)];
        for (name, age_seconds) in &self.proved {
            let Some(method) = Method::from_name(name) else {
                let known: Vec<_> = Method::all().map(Method::name).collect();
                bail!("there is no factor {name:?}; there are: {}", known.join(", "));
            };
            ensure!(self.user.is_some(), "a proved factor needs somebody who proved it: add --user NAME");
            factors.retain(|factor| factor.method != method);
            // A passkey always verifies its user here; whether it can leave its device is not said.
            let strength = if method == Method::Webauthn { Strength::UserVerified } else { Strength::Ordinary };
            factors.push(ProvedFactor { method, at: now.saturating_sub(*age_seconds), strength });
        }
        Ok(factors)
    }

    fn groups<'c>(&self, config: &'c Config, given: &'c Given) -> anyhow::Result<&'c [String]> {
        let Some(name) = &self.user else { return Ok(&[]) };
        if let Some(groups) = &given.groups {
            return Ok(groups);
        }
        // A file without users has them from elsewhere, and cannot know a name for a mistake.
        if config.users.is_empty() {
            return Ok(&[]);
        }
        let user = config.users.iter().find(|user| user.name == *name);
        let user = user.with_context(|| {
            format!("there is no user {name:?} in the configuration; give their groups as the fact session.groups")
        })?;
        Ok(&user.groups)
    }
}

struct Url<'u> {
    authority: &'u str,
    path: &'u str,
    query: &'u str,
}

impl<'u> Url<'u> {
    fn parse(url: &'u str) -> anyhow::Result<Url<'u>> {
        let rest = url.strip_prefix("https://").with_context(|| format!("{url:?} should start with https://"))?;
        let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        Ok(Url { authority, path: if path.is_empty() { "/" } else { path }, query })
    }
}

#[derive(Debug)]
struct Headers<'h>(&'h HeaderMap);

impl HeaderLookup for Headers<'_> {
    fn header(&self, lower_case_name: &str) -> Option<&str> {
        facts::only_value(self.0, lower_case_name)
    }

    fn has(&self, lower_case_name: &str) -> bool {
        self.0.contains_key(lower_case_name)
    }
}
