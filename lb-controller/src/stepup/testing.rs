//! What the tests of step-up are made of: users whose passwords hash fast, requests without a network, a browser that
//! keeps cookies.

use std::sync::OnceLock;

use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, Version};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod};
use lb_policy::Method;

use super::account::Account;
use super::factor::FactorVerified;
use super::session::Session;
use crate::config::{Config, User};
use crate::serve::request::{Client, Inbound, InboundBody};

pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const TOTP_SECRET: &[u8] = b"12345678901234567890";
pub(crate) const HOST: &str = "shop.example";

/// Alice has a password and a code; bob has a password alone.
pub(crate) fn config() -> Config {
    let user = |name: &str, totp_secret| User {
        name: name.to_owned(),
        password_hash: cheap_hash().to_owned(),
        totp_secret,
        email: None,
        phone: None,
        groups: vec!["staff".to_owned()],
    };
    Config { users: vec![user("alice", Some(TOTP_SECRET.to_vec())), user("bob", None)], ..Config::default() }
}

/// The lowest cost Argon2 allows: what is tested is not how long it takes.
fn cheap_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_with_salt(PASSWORD.as_bytes(), b"sixteen bytes ok").unwrap().to_string()
    })
}

/// A session as it is right after a login at `now`.
pub(super) fn session(user: &str, now: u64) -> Session {
    let config = config();
    let account = Account::built_in(&config, user).unwrap();
    let proof = FactorVerified::in_tests(&account.id, Method::Password, now);
    Session::begin(proof, &account, &config.step_up, now)
}

pub(super) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Inbound {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    if !body.is_empty() {
        map.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Inbound {
        id: None,
        method: HttpMethod::from_bytes(method.as_bytes()).unwrap(),
        authority: HOST.to_owned(),
        host: HOST.to_owned(),
        path: target.split('?').next().unwrap().to_owned(),
        target: target.to_owned(),
        headers: map,
        body: InboundBody::Whole(Bytes::copy_from_slice(body.as_bytes())),
        client: Client { address: [192, 0, 2, 7].into(), through_trusted_proxy: false },
        ends: None,
        certificate: None,
        tls_class: None,
        pages: Default::default(),
        upgrade: None,
        onward: Default::default(),
    }
}

pub(super) fn body_of(request: &Inbound) -> &[u8] {
    match &request.body {
        InboundBody::Whole(bytes) => bytes,
        InboundBody::Streaming(_) => panic!("the body was not read"),
    }
}
