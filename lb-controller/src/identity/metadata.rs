//! What an OpenID provider says of itself (OpenID Connect Discovery 1.0, RFC 8414).

use serde::Deserialize;

use super::http::{HttpClient, Unavailable};
use crate::config::is_https_url;

/// The part of the metadata that this client goes by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) jwks_uri: String,
    pub(super) introspection_endpoint: Option<String>,
    pub(super) pushed_authorization_request_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    pub(super) userinfo_endpoint: Option<String>,
    #[serde(default)]
    pub(super) require_pushed_authorization_requests: bool,
    #[serde(default)]
    pub(super) claims_parameter_supported: bool,
    /// RFC 9207 §3.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    id_token_signing_alg_values_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
}

impl Metadata {
    pub(super) async fn fetch(http: &HttpClient, issuer: &str) -> Result<Metadata, Unavailable> {
        // A path goes before it in RFC 8414 and after it in OpenID Connect Discovery §4; providers serve the latter.
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: Metadata = http.get(&url).await?.json(&url)?;
        metadata.check(issuer).map_err(|reason| Unavailable::Unusable { url, reason })?;
        Ok(metadata)
    }

    /// The metadata must be the issuer's own (Discovery §4.3), and nothing in it may lead to where others can listen.
    fn check(&self, issuer: &str) -> Result<(), String> {
        if self.issuer != issuer {
            return Err(format!("it is of the issuer {:?}, not {issuer:?}", self.issuer));
        }
        let optional = [
            ("authorization_endpoint", &self.authorization_endpoint),
            ("token_endpoint", &self.token_endpoint),
            ("introspection_endpoint", &self.introspection_endpoint),
            ("pushed_authorization_request_endpoint", &self.pushed_authorization_request_endpoint),
            ("end_session_endpoint", &self.end_session_endpoint),
            ("userinfo_endpoint", &self.userinfo_endpoint),
        ];
        let given = optional.iter().filter_map(|(name, url)| Some((*name, url.as_deref()?)));
        for (name, url) in given.chain([("jwks_uri", self.jwks_uri.as_str())]) {
            if !is_https_url(url) {
                return Err(format!("its {name} is no https URL"));
            }
        }
        if self.code_challenge_methods_supported.as_ref().is_some_and(|known| !known.iter().any(|name| name == "S256"))
        {
            return Err("it does not know PKCE with S256".to_owned());
        }
        Ok(())
    }

    /// Whether the secret goes into the form and not into a header (RFC 8414 §2: `client_secret_basic` if nothing is said).
    pub(super) fn wants_secret_in_form(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
        let has = |method| methods.iter().any(|known| known == method);
        has("client_secret_post") && !has("client_secret_basic")
    }

    /// The names of the algorithms that its ID tokens may be signed with. RS256 if nothing is said, as Discovery §3 has it.
    pub(super) fn id_token_algorithms(&self) -> Vec<&str> {
        match &self.id_token_signing_alg_values_supported {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => vec!["RS256"],
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn read(json: &[u8], issuer: &str) -> Option<Metadata> {
        let metadata: Metadata = serde_json::from_slice(json).ok()?;
        metadata.check(issuer).ok().map(|()| metadata)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_taken_from_its_own_issuer_and_leads_over_https_only() {
        let good = json!({"issuer": "https://idp.example", "jwks_uri": "https://idp.example/jwks"});
        let with = |name: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            changed[name] = value;
            changed
        };
        let rows = [
            ("the least", good.clone(), true),
            ("another issuer", with("issuer", json!("https://idp.example.evil")), false),
            ("the issuer with a slash", with("issuer", json!("https://idp.example/")), false),
            ("no key set", json!({"issuer": "https://idp.example"}), false),
            ("keys over plain HTTP", with("jwks_uri", json!("http://idp.example/jwks")), false),
            ("tokens over plain HTTP", with("token_endpoint", json!("http://idp.example/token")), false),
            ("a script", with("authorization_endpoint", json!("javascript:alert(1)")), false),
            ("a user in the address", with("end_session_endpoint", json!("https://a@idp.example/")), false),
            ("plain PKCE only", with("code_challenge_methods_supported", json!(["plain"])), false),
            ("PKCE", with("code_challenge_methods_supported", json!(["plain", "S256"])), true),
            ("unknown members", with("something_new", json!({"a": 1})), true),
            ("a list", json!([]), false),
        ];
        for (name, json, usable) in rows {
            let read = Metadata::read(json.to_string().as_bytes(), "https://idp.example");
            assert_eq!(read.is_some(), usable, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_reading_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            Metadata::read(&bytes, "https://idp.example");
        }
    }
}
