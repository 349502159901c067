//! Built-in users.

use argon2::Params;
use argon2::password_hash::phc::PasswordHash;
use totp_rs::Secret;

use super::super::section::{Complaint, Names, Problems, Section};
use super::super::tree::Node;
use super::super::{User, values};
use super::factors::mail_address;

/// A login computes the hash: more would let a handful of logins take all memory.
const MOST_HASH_KIB: u32 = 256 * 1024;

pub(super) fn compile(config: &Section<'_>) -> Vec<User> {
    let mut names = Names::of("user");
    config.list("users").iter().filter_map(|node| user(node, &mut names, config.problems)).collect()
}

fn user(node: &Node, names: &mut Names, problems: &Problems) -> Option<User> {
    let section = Section::open("a user", node, problems)?;
    let name = section.required_value("name", |text| {
        if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
            return Err("a user's name has 1 to 128 bytes without control characters".into());
        }
        names.unique(text.to_owned())
    });
    let password_hash = section.required_value("password_hash", password_hash);
    let totp_given = section.has("totp_secret");
    let totp_secret = section.value("totp_secret", totp_secret);
    let email = section.value("email", mail_address);
    let phone = section.value("phone", phone);
    let groups = section.values("groups", values::name);
    section.finish();
    // A user whose secret could not be read is not a user without one.
    if totp_given && totp_secret.is_none() {
        return None;
    }
    Some(User { name: name?, password_hash: password_hash?, totp_secret, email, phone, groups })
}

/// The text is never repeated in messages.
fn password_hash(text: &str) -> Result<String, Complaint> {
    const HELP: &str = "`lb-controller hash-password` makes one";
    let complain = |message: &str| Complaint::new(message, HELP);
    let hash = PasswordHash::new(text).map_err(|_| complain("this is no password hash"))?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err(complain(&format!("the hash is {}, not argon2id", hash.algorithm)));
    }
    let params = Params::try_from(&hash).map_err(|_| complain("the hash has parameters that Argon2 does not know"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(complain("the hash is cut short"));
    }
    if params.m_cost() > MOST_HASH_KIB {
        return Err(complain("the hash takes more than 256 MiB of memory to check"));
    }
    Ok(text.to_owned())
}

/// E.164: a plus sign and up to 15 digits.
fn phone(text: &str) -> Result<String, Complaint> {
    let digits: String = text.chars().filter(|char| *char != ' ').collect();
    let is_number = digits.strip_prefix('+').is_some_and(|rest| {
        (7..=15).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_digit()) && !rest.starts_with('0')
    });
    if !is_number {
        return Err(Complaint::new("this is no telephone number", "write it with its country: \"+49 151 12345678\""));
    }
    Ok(digits)
}

/// Base32 as authenticator apps show it: upper or lower case, with or without spaces and padding.
fn totp_secret(text: &str) -> Result<Vec<u8>, Complaint> {
    let plain: String =
        text.chars().filter(|char| !matches!(char, ' ' | '=')).map(|char| char.to_ascii_uppercase()).collect();
    let secret = Secret::try_from_base32(&plain).map_err(|_| {
        Complaint::new("this is no TOTP secret", "a secret is Base32: letters A to Z and digits 2 to 7")
    })?;
    let bytes = secret.as_bytes().to_vec();
    // RFC 4226 §4 R6: at least 128 bits.
    if !(16..=64).contains(&bytes.len()) {
        return Err(Complaint::new("a TOTP secret has 16 to 64 bytes", "that is 26 to 103 characters of Base32"));
    }
    Ok(bytes)
}
