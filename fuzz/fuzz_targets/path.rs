//! Paths: what rules judge is what the backend will make of the bytes it receives, and nothing is left to resolve.
#![no_main]

use lb_policy::CanonicalPath;
use libfuzzer_sys::fuzz_target;

/// What a backend that decodes once and drops parameters and empty segments makes of a path.
fn as_a_backend_reads(forwarded: &str) -> String {
    let segments = forwarded.split('/').map(|segment| {
        // `+` means itself in a path, and a space to the form decoder that is borrowed here.
        let pair = format!("={}", segment.replace('+', "%2B").replace('&', "%26"));
        let decoded = form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
        let decoded = decoded.unwrap_or_default();
        decoded.split(';').next().unwrap_or_default().to_owned()
    });
    let named: Vec<String> = segments.filter(|segment| !segment.is_empty()).collect();
    format!("/{}", named.join("/"))
}

fuzz_target!(|raw: &str| {
    let Ok(path) = CanonicalPath::parse(raw) else { return };
    assert_eq!(CanonicalPath::parse(path.forwarded()).as_ref(), Ok(&path), "once is enough");
    assert_eq!(as_a_backend_reads(path.forwarded()), path.judged(), "judged and forwarded are one path");
    assert!(path.forwarded().bytes().all(|byte| (0x21..0x7f).contains(&byte) && !b"\\?#".contains(&byte)));
    for form in [path.judged(), path.forwarded()] {
        assert!(form.starts_with('/') && !form.contains("//"));
        assert!(form.split('/').all(|segment| !matches!(segment, "." | "..")));
    }
});
