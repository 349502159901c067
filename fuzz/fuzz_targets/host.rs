//! Hosts: one name for every spelling, and only characters that no reader stumbles over.
#![no_main]

use lb_policy::canonical_host;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|authority: &str| {
    let Ok(host) = canonical_host(authority) else { return };
    for spelling in [host.clone(), host.to_ascii_uppercase(), format!("{host}:8443")] {
        assert_eq!(canonical_host(&spelling).as_deref(), Ok(host.as_str()), "{spelling}");
    }
    assert!(!host.is_empty() && host.len() <= 253);
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match literal {
        Some(literal) => assert!(literal.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            assert!(host.bytes().all(plain) && !host.ends_with('.') && !host.contains(".."));
        }
    }
});
