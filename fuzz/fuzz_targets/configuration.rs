//! Configuration files: every mistake is shown inside the file, and what is accepted holds together.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;

use lb_controller::config::{Config, Service, compile_read};
use libfuzzer_sys::fuzz_target;

fn holds_together(config: &Config) {
    let names: BTreeSet<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names.len(), config.pools.len(), "pools have names of their own");
    assert!(
        config.routes.iter().flat_map(|route| route.pools()).all(|pool| names.contains(pool)),
        "routes name pools that are there"
    );
    assert!(
        config.routes.iter().all(|route| route.matcher.path.first_segment() != Some(".lb")),
        "our own paths are nobody's"
    );
    for pool in &config.pools {
        assert!(!pool.backends.is_empty());
        assert!(pool.health.timeout <= pool.health.interval && pool.health.rise > 0 && pool.health.fall > 0);
    }
    let end = |service: &Service, vip| format!("{vip:?} {:?} {:?}", service.ports, service.protocols);
    let ends = config.services.iter().flat_map(|service| service.vips.iter().map(move |vip| end(service, vip)));
    let addresses: Vec<_> = ends.collect();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "an address has one service");
    for user in &config.users {
        assert!(user.password_hash.starts_with("$argon2id$"));
        assert!(user.totp_secret.as_ref().is_none_or(|secret| (16..=64).contains(&secret.len())));
    }
    assert_eq!(
        config.rules.rule_ids().collect::<BTreeSet<_>>().len(),
        config.rules.len(),
        "rules have ids of their own"
    );
}

fuzz_target!(|source: &str| {
    let compiled = compile_read(Path::new("/etc/lb/lb.yaml"), source);
    match compiled {
        Ok(config) => {
            holds_together(&config);
            let again = compile_read(Path::new("/etc/lb/lb.yaml"), source).expect("as before");
            assert_eq!(format!("{again:?}"), format!("{config:?}"), "one text has one meaning");
        }
        Err(diagnostics) => {
            assert!(diagnostics.to_string().starts_with("error: "));
            assert!(diagnostics.iter().next().is_some(), "a refusal has a reason");
            for place in diagnostics.iter().filter_map(|diagnostic| diagnostic.place.clone()) {
                assert!(source.get(place.clone()).is_some(), "{place:?} is outside the file");
            }
        }
    }
});
