//! Everything a decision may look at, gathered once per request.

use core::net::IpAddr;

use alloc::string::String;
use alloc::vec::Vec;

use crate::body::BodyFacts;
use crate::level::{Levels, Method, ProvableFactor, ProvedFactor, Strength, UnixSeconds};

/// The facts of one request. Text is borrowed from the request that will be forwarded: what is judged is what goes on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub now: UnixSeconds,
    /// What the numbers of levels mean.
    pub levels: &'a Levels,
    pub request: RequestFacts<'a>,
    pub client: ClientFacts,
    /// `None` without a valid session.
    pub session: Option<SessionFacts<'a>>,
    /// Factors proved for exactly this request, in the transaction that resumes it; empty otherwise.
    pub proved_for_this_request: &'a [ProvedFactor],
    /// What the session's user could prove. Asked only when a challenge is due.
    pub provable: &'a dyn ProvableFactors,
    /// What the rules asked to be read from the body; see `RuleSet::body_needs`.
    pub body: &'a BodyFacts,
    /// The route needs no session.
    pub route_is_public: bool,
}

/// The request line and headers after canonicalisation.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// Upper-case, one of the methods the guard lets through.
    pub method: &'a str,
    /// As [`crate::canonical_host`] gives it: lower-case, without port or trailing dot.
    pub host: &'a str,
    /// [`crate::CanonicalPath::judged`]: decoded once, no `//`, `/./` or `/../`; always starts with `/`.
    pub path: &'a str,
    /// As [`crate::canonical_query`] gives it, without `?`; empty when there is none.
    pub query: &'a str,
    /// Looks a header up by lower-case name; `None` when absent, repeated or not UTF-8.
    pub headers: &'a dyn HeaderLookup,
}

/// Where rules read headers from.
pub trait HeaderLookup: core::fmt::Debug {
    /// The value of the header, `None` when absent, repeated or not UTF-8: two values are two meanings, and a rule must
    /// not see one while the backend obeys the other.
    fn header(&self, lower_case_name: &str) -> Option<&str>;

    /// Whether the header came at all. Sent twice it has no value to show, but must not count as absent.
    fn has(&self, lower_case_name: &str) -> bool;
}

/// Where decisions read what a user could prove: each method once, those to be asked for first in front.
pub trait ProvableFactors: core::fmt::Debug {
    fn provable(&self) -> Vec<ProvableFactor>;
}

/// Somebody who can prove anything, for tests and for asking what a rule would do.
#[derive(Clone, Copy, Debug)]
pub struct Everything;

impl ProvableFactors for Everything {
    fn provable(&self) -> Vec<ProvableFactor> {
        let strength = |method| if method == Method::Webauthn { Strength::DeviceBound } else { Strength::Ordinary };
        Method::all().map(|method| ProvableFactor { method, strength: strength(method) }).collect()
    }
}

/// A request without headers, for tests and for asking what a rule would do.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl HeaderLookup for NoHeaders {
    fn header(&self, _lower_case_name: &str) -> Option<&str> {
        None
    }

    fn has(&self, _lower_case_name: &str) -> bool {
        false
    }
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts {
    /// The peer, or what a trusted proxy says of it.
    pub address: IpAddr,
}

/// The session that came with the request.
#[derive(Clone, Copy, Debug)]
pub struct SessionFacts<'a> {
    /// The identity provider that the user logged in at; `None`: a built-in user.
    pub issuer: Option<&'a str>,
    pub user: &'a str,
    pub groups: &'a [String],
    pub factors: &'a [ProvedFactor],
}
