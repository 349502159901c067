//! Everything a decision may look at, gathered once per request.

use core::net::IpAddr;

use alloc::string::String;
use alloc::vec::Vec;

use crate::body::BodyFacts;
use crate::level::{Levels, Method, ProvableFactor, ProvedFactor, Strength, UnixSeconds};
use crate::query_parameters::QueryParameters;
use crate::threat::ThreatLevel;

/// The facts of one request. Text is borrowed from the request that will be forwarded: what is judged is what goes on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub now: UnixSeconds,
    /// What the numbers of levels mean.
    pub levels: &'a Levels,
    pub request: RequestFacts<'a>,
    pub client: ClientFacts<'a>,
    /// `None` without a valid session.
    pub session: Option<SessionFacts<'a>>,
    /// Factors proved for exactly this request, in the transaction that resumes it; empty otherwise.
    pub proved_for_this_request: &'a [ProvedFactor],
    /// What the session's user could prove. Asked only when a challenge is due.
    pub provable: &'a dyn ProvableFactors,
    /// What the rules asked to be read from the body; see `RuleSet::body_needs`.
    pub body: &'a BodyFacts,
    pub route: RouteFacts<'a>,
    /// The API key that came with the request and was found good; `None` without one.
    pub api_key: Option<ApiKeyFacts<'a>>,
    pub observed: ObservedFacts<'a>,
}

/// An API key that is what its user says.
#[derive(Clone, Copy, Debug)]
pub struct ApiKeyFacts<'a> {
    /// Names the key without giving it away.
    pub id: &'a str,
    /// When it was made.
    pub made_at: UnixSeconds,
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
    /// Those of `query`; see `RuleSet::reads_query_parameters`.
    pub parameters: &'a QueryParameters,
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
pub struct ClientFacts<'a> {
    /// The peer, or what a trusted proxy says of it.
    pub address: IpAddr,
    /// Two capital letters (ISO 3166-1); `None`: not known, as of a private address.
    pub country: Option<&'a str>,
    /// Number of the autonomous system that announces the address.
    pub asn: Option<u32>,
    /// From 0, nothing is said against the address, to 100; `None` without a list that is still valid.
    pub reputation: Option<u8>,
    /// A browser that somebody logged in with before.
    pub device_known: bool,
    /// Such as `desktop` or `mobile`.
    pub device_class: Option<&'a str>,
    /// What the TLS handshake says of the client's software.
    pub tls_class: Option<&'a str>,
    /// The verified client certificate of the connection.
    pub certificate: Option<CertificateFacts<'a>>,
    /// Rules whose puzzle this client solved from where it is now, and when. It takes no session.
    pub worked: &'a [(String, UnixSeconds)],
}

impl ClientFacts<'_> {
    /// A client of whom nothing but its address is known.
    pub fn at(address: IpAddr) -> ClientFacts<'static> {
        ClientFacts {
            address,
            country: None,
            asn: None,
            reputation: None,
            device_known: false,
            device_class: None,
            tls_class: None,
            certificate: None,
            worked: &[],
        }
    }
}

/// A certificate that the client proved to hold.
#[derive(Clone, Copy, Debug)]
pub struct CertificateFacts<'a> {
    /// Distinguished names as RFC 4514 writes them.
    pub subject: &'a str,
    pub issuer: &'a str,
    /// SHA-256 of the certificate in lower-case hexadecimal digits.
    pub fingerprint: &'a str,
    /// Subject alternative names.
    pub names: &'a [String],
}

/// The session that came with the request.
#[derive(Clone, Copy, Debug)]
pub struct SessionFacts<'a> {
    /// The identity provider that the user logged in at; `None`: a built-in user.
    pub issuer: Option<&'a str>,
    pub user: &'a str,
    pub groups: &'a [String],
    pub factors: &'a [ProvedFactor],
    /// When the login was.
    pub begun_at: UnixSeconds,
}

/// What the configuration says of the route that takes the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteFacts<'a> {
    /// It needs no session.
    pub is_public: bool,
    /// Names and values. A label that the route does not have is the empty text.
    pub labels: &'a [(String, String)],
}

/// What was counted and learned before this request came.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObservedFacts<'a> {
    pub threat: ThreatLevel,
    /// In the order of [`crate::Vocabulary::rates`], this request included; `None`: there is nobody to count for.
    pub rates: &'a [Option<u64>],
    pub failed_logins: FailedLogins,
    /// Where the user of the session usually is; `None`: too little is known of them.
    pub usual_countries: Option<&'a [String]>,
    /// Nobody travels from where the user was last to where they are now in the time between; `None`: either place is
    /// not known.
    pub impossible_travel: Option<bool>,
}

/// Failed logins and proofs within the last ten minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedLogins {
    /// Of the session's user, from anywhere; `None` without a session.
    pub user: Option<u64>,
    /// From the client's address or network.
    pub source: u64,
    /// From this browser; `None` for one that is not known.
    pub device: Option<u64>,
}
